# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Forward and backward pass of a backbone on the views of a batch (2 x 224 px, 8 x 96 px), with our encoder and with a
plain form of it: time and peak memory.

    python tests/benchmarks/bench_architectures.py cvt-tiny --batch 4

Another architecture needs a plain form, a function of our encoder and images of one size, in PLAIN.
"""

import argparse
import functools
from collections.abc import Callable

import torch
from bench_step import random_groups, report
from harness import environment, rows, take_turns, write_json
from reference_cvt import plain_encoder
from torch import nn

from modeling_esvit import EsViTConfig, EsViTModel


PlainForm = Callable[[nn.Module, torch.Tensor], torch.Tensor]
PLAIN: dict[str, PlainForm] = {"cvt": plain_encoder}


def build(name: str) -> EsViTModel:
    """In training, without stochastic depth, which the plain forms do not have."""
    config = EsViTConfig.from_architecture(name, drop_path_rate=0.0)
    return EsViTModel._from_config(config, attn_implementation="eager").train()


def backward(model: nn.Module, groups: list[torch.Tensor]) -> None:
    model.zero_grad()
    torch.cat([group.flatten() for group in groups]).square().mean().backward()


def our_pass(name: str, batch: int) -> Callable[[], None]:
    model, groups = build(name), random_groups(batch, (224, 96), (2, 8))
    return lambda: backward(model, [model(groups).last_hidden_state])


def plain_pass(name: str, batch: int) -> Callable[[], None]:
    model, groups = build(name), random_groups(batch, (224, 96), (2, 8))
    form = PLAIN[model.config.architecture]
    return lambda: backward(model, [form(model.encoder, group) for group in groups])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    setups = {
        "reference, fp32": functools.partial(plain_pass, arguments.architecture, arguments.batch),
        "ours, fp32": functools.partial(our_pass, arguments.architecture, arguments.batch),
    }
    results = take_turns(setups, repeats=arguments.repeats)
    print(report(results))
    data = {"batch": arguments.batch, "rows": rows(results.values())}
    print(f"{write_json(f'backbone_{arguments.architecture}', data)}; {environment()}")


if __name__ == "__main__":
    main()
