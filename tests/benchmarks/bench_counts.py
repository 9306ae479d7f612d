# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts parameters and operations of the backbones of all architectures, beside the published figures.

The tensors are fake: nothing is computed.

    python tests/benchmarks/bench_counts.py
"""

import torch
from torch._subclasses import FakeTensorMode
from transformers.initialization import no_init_weights

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.families import ARCHITECTURES
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import table, write_json
from training.evaluation.model_counts import count_parameters_and_operations


# Millions of parameters in Table 1 of EsViT (arXiv 2106.09785), and its README for the last three.
PAPER = {
    **{"swin-tiny": 28, "swin-small": 49, "swin-base": 87, "deit-small": 21, "vit-base": 85},
    **{"vil-tiny": 28, "cvt-tiny": 29, "resnet-50": 23},
}
# 10^9 multiply-adds at 224 px, with window 7 and a classifier, in Table 1 of Swin (arXiv 2103.14030), and for the last
# four in Table 2 of PVT (arXiv 2102.12122).
MULTIPLY_ADDS = {
    **{"swin-tiny": 4.5, "swin-small": 8.7, "swin-base": 15.4, "deit-small": 4.6, "vit-base": 17.5},
    **{"pvt-tiny": 1.9, "pvt-small": 3.8, "pvt-medium": 6.7, "pvt-large": 9.8},
}
WINDOWS = {"swin": (7, 14)}  # of the published models of a family, where there are several


def variants() -> list[tuple[str, int | None]]:
    """Lists the names of architectures, with their windows where there are several."""
    return [
        (name, window)
        for name, fields in ARCHITECTURES.items()
        if name != "auto"  # whatever backbone one gives it
        for window in WINDOWS.get(fields["architecture"], (None,))
    ]


def count(name: str, window: int | None = None, side: int = 224) -> tuple[int, int]:
    """Counts parameters of a backbone, and floating point operations for one image (a product and a sum are two)."""
    config = EsViTConfig.from_architecture(name, window_size=window)
    with torch.device("meta"), no_init_weights():  # some of transformers' models cannot be built of fake tensors
        model = EsViTModel(config).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"), torch.no_grad():
        model.to_empty(device="cpu")
        return count_parameters_and_operations(model, torch.empty(1, config.num_channels, side, side))


def rows() -> list[dict]:
    result = []
    for name, window in variants():
        parameters, operations = count(name, window)
        result.append(
            {
                "name": name if window is None else f"{name}, window {window}",
                "parameters": parameters,
                "paper_millions": PAPER.get(name),
                "multiply_adds": operations / 2,
                "published_billions": MULTIPLY_ADDS.get(name) if window in (None, 7) else None,
            }
        )
    return result


@exit_with_message()
def main() -> None:
    ProgramParser(__doc__).parse_args()
    counted = rows()
    print(
        table(
            ["", "parameters", "10^9 multiply-adds"],
            ((*list(r.values())[:2], r["multiply_adds"] / 1e9) for r in counted),
        )
    )
    print(write_json("counts", {}, {"rows": counted}))


if __name__ == "__main__":
    main()
