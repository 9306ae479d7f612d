# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the arguments that name a model, and loads the model that they name."""

import argparse

from accelerate import PartialState

from modeling_esvit.images.hub import require_hub
from modeling_esvit.images.models import load_configuration
from modeling_esvit.images.precision import resolve_dtype
from modeling_esvit.storage.paths import parse_name
from modeling_esvit.storage.run_folders import find_model
from training.features.frozen_models import TIMM, FrozenModel, count_blocks, load_frozen


def add_model_arguments(
    parser: argparse.ArgumentParser, known: str = "a model folder, the name of a model on the Hub, or timm:NAME"
) -> None:
    """Adds the model, where it runs, and how it is fetched. `known` says which models the program takes."""
    parser.add_argument("model", type=parse_name, metavar="MODEL", help=known)
    parser.add_argument("--device", help="where the model runs (default: an accelerator if there is one)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")


def load_named_model(
    arguments: argparse.Namespace, n_last_blocks: int | None = None, untrained: bool = False
) -> FrozenModel:
    """Loads the model that the arguments name, with their `dtype` and `compile`, onto the device of this process.

    `untrained` replaces its weights by random ones.

    Raises:
        FrozenModelError, NoImageModelError: see `load_frozen`.
    """
    device = arguments.device or PartialState().device
    return load_frozen(
        arguments.model,
        n_last_blocks=n_last_blocks,
        device=device,
        dtype=resolve_dtype(arguments.dtype, device),
        compile=arguments.compile,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        untrained=untrained,
    )


def count_named_blocks(arguments: argparse.Namespace) -> int:
    """Counts the last blocks of the model that the arguments name, see `count_blocks`; its weights are not read.

    Raises:
        NoImageModelError, NoHubError: see `load_configuration` and `require_hub`.
    """
    if arguments.model.startswith(TIMM):
        return 0
    name, revision = find_model(arguments.model), arguments.revision
    require_hub(name, revision=revision)
    return count_blocks(load_configuration(name, revision=revision, trust_remote_code=arguments.trust_remote_code))
