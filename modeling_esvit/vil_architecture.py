# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Parses the strings by which the original names a ViL: stages joined by `_`, each a list of letters with numbers.

    l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n2,s1,g1,p2,f7,a0_l3,h12,d384,n6,s0,g1,p2,f7,a0_l4,h24,d768,n2,s0,g0,p2,f7,a0

`l` is the number of the stage, `h` its heads, `d` its width, `n` its blocks, `s` whether its attention is sparse, `g`
the number of its global tokens, `p` the size of its patches, `f` the side of a chunk, `a` whether it adds position
embeddings instead of position biases (1 unless the string says otherwise), `r` whether it also attends to pooled
tokens, which is not supported.

The one above is the published ViL: `vil-tiny` here, and vil_2262, after its blocks, in the original. Of its labels
vil_1281 and vil_14121 no weights and no widths are known.
"""

import re
from typing import Any

from .family import EsViTArchitectureError


EXAMPLE = "l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n8,s0,g0,p2,f7,a0"  # of two stages
DEFAULTS = {"h": 3, "d": 192, "n": 1, "s": 1, "g": 1, "p": 2, "f": 7, "a": 1, "r": 0}


def is_architecture_string(name: str) -> bool:
    """Returns whether a name is one of these strings."""
    return re.match(r"l\d+(,|_|$)", name) is not None


def parse_stage(text: str, number: int) -> dict[str, int]:
    """Returns the numbers of one stage by their letters."""
    given: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([lhdnsgpfar])(0|[1-9][0-9]{,17})", part)
        if match is None:
            raise EsViTArchitectureError(
                f"{part!r} in stage {number} is none of the letters l, h, d, n, s, g, p, f, a, r with a number (digits "
                "0 to 9, at most 18 of them, no zero in front)."
            )
        if match[1] in given:
            raise EsViTArchitectureError(f"Stage {number} has {match[1]} twice, in {text!r}; give it once.")
        given[match[1]] = int(match[2])
    if given.get("l") != number:
        raise EsViTArchitectureError(
            f"Stage {number} is called {text.split(',')[0]!r}; it must start with 'l{number}'."
        )
    values = {**DEFAULTS, **given}
    if values["r"]:
        raise EsViTArchitectureError(
            f"Stage {number} attends to pooled tokens (r{values['r']}), which is not supported; use r0."
        )
    return values


def parse_architecture(text: str) -> dict[str, Any]:
    """Returns the fields of a configuration.

    Raises:
        EsViTArchitectureError: the string is malformed, or has what is not supported.
    """
    stages = [parse_stage(stage, number) for number, stage in enumerate(text.split("_"), start=1)]
    windows = {stage["f"] for stage in stages if stage["s"]} or {stages[0]["f"]}
    if len(windows) > 1:
        raise EsViTArchitectureError(f"Sparse stages have chunks of different sides ({sorted(windows)}); use one.")
    return {
        "architecture": "vil",
        **make_width_fields([stage["d"] for stage in stages]),
        "depths": [stage["n"] for stage in stages],
        "num_heads": [stage["h"] for stage in stages],
        "sparse_stages": [stage["s"] for stage in stages],
        "global_tokens": [stage["g"] for stage in stages],
        "absolute_positions": [stage["a"] for stage in stages],
        "patch_size": stages[0]["p"],
        "patch_strides": [stage["p"] for stage in stages],
        "window_size": windows.pop(),
    }


def make_width_fields(widths: list[int]) -> dict[str, Any]:
    """Returns `embed_dim`, and `stage_dims` if the width does not double from stage to stage."""
    doubling = [widths[0] * 2**stage for stage in range(len(widths))]
    return {"embed_dim": widths[0], "stage_dims": None if widths == doubling else widths}
