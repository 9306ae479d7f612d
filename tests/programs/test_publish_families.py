# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Publishes models of every family but Swin (that is `test_publish.py`) to the loopback Hub.

`publish.py` loads them back, and they are loaded by strangers in processes of their own, with the package and from the
code in the repository.
"""

import pytest
import torch

import training.publishing.folder as folder
from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.commands import run_program
from tests.helpers.tiny_models import CODE, CVT, HEADS, PVT, RESNET_BASIC, VIL, VIT
from tests.hub.client import client
from tests.hub.loopback_hub import LoopbackHub


TOKEN = "hf_ada_secret"
FAMILIES = {
    "cvt": CVT,
    "vil": VIL,
    "vit": VIT,
    "resnet": {"architecture": "auto", "backbone_config": RESNET_BASIC, "image_size": 32},
    "pvt": {"architecture": "auto", "backbone_config": PVT, "image_size": 64},
}
IMAGES = "torch.linspace(-1, 1, 2 * 3 * 64 * 48).view(2, 3, 64, 48)"
LOAD = f"""
    import torch, transformers
    from PIL import Image
    name, options = "ada/tiny", OPTIONS
    images = {IMAGES}
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(name, **options).eval()
        heads = transformers.AutoModelForPreTraining.from_pretrained(name, **options).eval()
        backbone = transformers.AutoBackbone.from_pretrained(name, **options).eval()
        extract = transformers.pipeline("image-feature-extraction", model=name, **options)
        result = {{
            "module": type(model).__module__.split(".")[0],
            "feature": model(images).pooler_output.tolist(),
            "views": heads([images]).view_embeddings.tolist(),
            "map": backbone(images).feature_maps[-1].tolist(),
            "pipeline": list(extract(Image.linear_gradient("L"), pool=True, return_tensors=True).shape),
        }}
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_published_and_loaded_by_name(family, tmp_path):
    torch.manual_seed(0)
    source = EsViTForPreTraining(EsViTConfig(**FAMILIES[family], **HEADS)).eval()
    source.save_pretrained(tmp_path / "model")
    push = ["training/publish.py", tmp_path / "model", "--repo_id", "ada/tiny", "--yes"]
    with LoopbackHub([], {TOKEN: "ada"}) as hub:
        done = run_program(["python", *push], base=hub.environment(tmp_path, TOKEN))
        assert "Loaded back by its name in a fresh process: outputs differ by 0.0e+00 at most." in done.stdout
        assert {folder.HEADS, "model.safetensors", *CODE} < set(hub.hub.repositories["model", "ada/tiny"].at("main")[1])
        found = [
            client(hub, tmp_path, "import modeling_esvit", LOAD.replace("OPTIONS", "{}")),
            client(hub, tmp_path, LOAD.replace("OPTIONS", "{'trust_remote_code': True}")),
        ]
    assert [each.pop("module") for each in found] == ["modeling_esvit", "transformers_modules"]
    assert found[0] == found[1]
    with torch.no_grad():
        images = eval(IMAGES)
        output = source.esvit(images)
        expected = {"feature": output.pooler_output, "views": source([images]).view_embeddings}
    for name, tensor in expected.items():
        torch.testing.assert_close(torch.tensor(found[0][name]), tensor, rtol=1e-5, atol=1e-6)
    assert found[0]["pipeline"] == [1, source.config.hidden_size]
    assert torch.tensor(found[0]["map"]).shape[:2] == (2, source.config.hidden_size)
