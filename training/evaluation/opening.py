# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens what an evaluation program works on: the model, and the features of its training and test images."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.devices import open_device
from training.data.left_out import repeat_left_out
from training.data.named_data import open_train_and_test
from training.evaluation.arguments import choose_columns
from training.features.bank import FeatureBank, make_bank
from training.features.frozen_models import UNTRAINED, FrozenModel
from training.features.model_arguments import load_named_model


@contextmanager
def open_features_folder(given: Path | None) -> Iterator[Path]:
    """Opens the given folder, or a temporary one that all processes of this machine share."""
    if given is not None:
        yield given
        return
    state = PartialState()
    main = state.is_main_process
    with tempfile.TemporaryDirectory(prefix="features-") if main else nullcontext() as own:
        [folder] = broadcast_object_list([own])
        yield Path(folder)
        state.wait_for_everyone()  # before the main process deletes the folder


class Evaluation(NamedTuple):
    """Holds what is evaluated.

    banks: the features of the training and of the test images.
    others: name of each model to compare with -> its banks.
    """

    model: FrozenModel
    banks: list[FeatureBank]
    others: dict[str, list[FeatureBank]]


def load_other(arguments: argparse.Namespace, name: str, n_last_blocks: int | None) -> FrozenModel:
    """Loads a model of `--against`: "untrained" is that of the arguments with random weights, and has its features.

    Raises:
        FrozenModelError, NoImageModelError: see `load_frozen`.
    """
    if name == UNTRAINED:
        return load_named_model(arguments, n_last_blocks, untrained=True)
    return load_named_model(argparse.Namespace(**vars(arguments) | {"model": name, "revision": None}))


@contextmanager
def open_evaluation(arguments: argparse.Namespace) -> Iterator[Evaluation]:
    """Opens the model, and the features of its training and test images; those of models to compare with, too.

    Says at the end what was not read.
    """
    state = open_device(arguments.device)
    reading = {"streaming": arguments.streaming, "decoding": read_decoding_arguments(arguments)}
    reading["test_share"] = arguments.test_share
    sources = open_train_and_test(arguments.train, arguments.test, **reading, **choose_columns(arguments))
    n_last_blocks = arguments.n_last_blocks
    model = load_named_model(arguments, n_last_blocks)
    # Loaded before anything is computed, so that a wrong name is found at once.
    others = {name: load_other(arguments, name, n_last_blocks) for name in arguments.against}
    options = {name: getattr(arguments, name) for name in ("batch_size", "part_size")}
    with open_features_folder(arguments.features) as folder:
        named = list(zip((arguments.train, arguments.test or arguments.train), sources, strict=True))

        def make_banks(frozen: FrozenModel) -> list[FeatureBank]:
            return [
                make_bank(frozen, data, source, folder, num_threads=arguments.workers, **options)
                for data, source in named
            ]

        banks = make_banks(model)
        yield Evaluation(model, banks, {name: make_banks(others.pop(name)) for name in arguments.against})
        for (data, source), bank in zip(named, banks, strict=True):
            repeat_left_out(data, source, bank.collect_unreadable(len(source)))
    state.destroy_process_group()
