# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures forward and backward pass of a backbone with our encoder and with a plain form of it.

Time and peak memory, on the views of a batch (2 x 224 px, 8 x 96 px). The plain form of a ResNet is torchvision's.

    python tests/benchmarks/bench_architectures.py cvt-tiny vil-tiny deit-small resnet-50 --batch 4
    python tests/benchmarks/bench_step.py --architecture deit-small --batch 4     # the whole step
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.conversion.original_resnet import to_torchvision
from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_step import random_groups, report
from tests.benchmarks.harness import RESULTS, environment, rows, take_turns, write_json
from tests.benchmarks.reference import BACKBONES


NUMBERS = (2, 8)  # of global and local crops
Form = Callable[[torch.Tensor], torch.Tensor]  # images of one size to regions [n, T, C]


def build(name: str, **changes) -> EsViTForPreTraining:
    """Builds a network in training mode, without stochastic depth."""
    if name != "resnet-50":
        changes = {"drop_path_rate": 0.0, **changes}
    config = EsViTConfig.from_architecture(name, num_prototypes=1, **changes)
    return EsViTForPreTraining._from_config(config, attn_implementation="eager").train()


def plain_form(model: EsViTForPreTraining) -> tuple[nn.Module, Form]:
    """Returns the module that holds the weights, and what computes with them."""
    if model.config.architecture != "auto":
        return model.esvit, lambda images: BACKBONES[model.config.architecture](model, images)[1]
    theirs = torchvision.models.resnet50()
    theirs.fc = nn.Identity()
    theirs.load_state_dict({to_torchvision(n): t for n, t in model.esvit.encoder.backbone.state_dict().items()})
    maps = nn.Sequential(*list(theirs.children())[:-2])
    return maps, lambda images: maps(images).flatten(2).transpose(1, 2)


def backward(model: nn.Module, groups: list[torch.Tensor]) -> None:
    model.zero_grad()
    torch.cat([group.flatten() for group in groups]).square().mean().backward()


def our_pass(name: str, batch: int, sizes: tuple[int, int], **changes) -> Callable[[], None]:
    model, groups = build(name, **changes), random_groups(batch, sizes, NUMBERS)
    return lambda: backward(model, [model.esvit(groups).last_hidden_state])


def plain_pass(name: str, batch: int, sizes: tuple[int, int], **changes) -> Callable[[], None]:
    (module, form), groups = plain_form(build(name, **changes)), random_groups(batch, sizes, NUMBERS)
    return lambda: backward(module, [form(group) for group in groups])


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("architectures", nargs="+", help="backbones, by their published names")
    parser.add_argument("--batch", type=parse_count, default=4, help="images in a batch")
    parser.add_argument(
        "--sizes", type=parse_count, nargs=2, default=[224, 96], help="Pixels of global and local crops."
    )
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each is measured")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="For the measurements, which report.py takes.")
    arguments = parser.parse_args()
    for name in arguments.architectures:
        what = (name, arguments.batch, tuple(arguments.sizes))
        setups = {
            "reference, fp32": functools.partial(plain_pass, *what),
            "ours, fp32": functools.partial(our_pass, *what),
        }
        results = take_turns(setups, repeats=arguments.repeats)
        print(name, report(results), sep="\n\n", flush=True)
        settings = {"batch": arguments.batch, "sizes": arguments.sizes}
        path = write_json(f"backbone_{name}", settings, {"rows": rows(results.values())}, arguments.folder)
        print(path, flush=True)
    print(environment())


if __name__ == "__main__":
    main()
