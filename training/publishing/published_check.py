# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads a published model by its name, as a stranger would, and compares its outputs with the expected ones.

    python -I training/publishing/published_check.py REPO_ID REVISION EXPECTED.safetensors CACHE_FOLDER

`publish.py` runs it in a process of its own, which does not import `modeling_esvit`: the code comes with the model. It
prints one JSON object, the largest difference of each output relative to its largest value (at least 1).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def sample_outputs(model: Any, pixel_values: Any) -> dict[str, Any]:
    """Returns outputs for images `[B, 3, H, W]` by name.

    A backbone gives regions and view features, a model with heads everything that these compute, and the centres.
    """
    output = model(pixel_values)
    if not hasattr(model, "view_head"):
        return {"last_hidden_state": output.last_hidden_state, "pooler_output": output.pooler_output}
    names = ("view_embeddings", "view_prototypes", "region_embeddings", "region_prototypes")
    outputs = {name: getattr(output, name) for name in names if getattr(output, name) is not None}
    return outputs | {name: buffer for name, buffer in model.named_buffers() if name.endswith("_center")}


def load_by_name(repo_id: str, revision: str, with_heads: bool) -> list[Any]:
    from transformers import AutoModel, AutoModelForPreTraining

    classes = [AutoModel, AutoModelForPreTraining] if with_heads else [AutoModel]
    return [kind.from_pretrained(repo_id, revision=revision, trust_remote_code=True).eval() for kind in classes]


def compute_differences(repo_id: str, revision: str, expected_file: str) -> dict[str, float]:
    import torch
    from safetensors.torch import load_file

    expected = load_file(expected_file)
    images = expected.pop("pixel_values")
    found: dict[str, Any] = {}
    with torch.no_grad():
        for model in load_by_name(repo_id, revision, "view_embeddings" in expected):
            found |= sample_outputs(model, images.to(model.dtype))
    return {
        name: ((found[name] - value).abs().max() / value.abs().max().clamp(min=1)).item()
        for name, value in expected.items()
    }


def main() -> None:
    repo_id, revision, expected_file, cache = sys.argv[1:]
    # Set before the libraries are imported. The user's own cache is not used: a model in it proves nothing.
    os.environ |= {"HF_HUB_CACHE": str(Path(cache, "hub")), "HF_MODULES_CACHE": str(Path(cache, "modules"))}
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    print(json.dumps(compute_differences(repo_id, revision, expected_file)))


if __name__ == "__main__":
    main()
