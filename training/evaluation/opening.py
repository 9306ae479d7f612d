# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens what an evaluation program works on: the model, and the features of its training and test images."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.devices import open_device
from training.data.left_out import repeat_left_out
from training.data.named_data import open_train_and_test
from training.evaluation.arguments import choose_columns
from training.features.bank import FeatureBank, make_bank
from training.features.frozen_models import FrozenModel
from training.features.model_arguments import load_named_model


@contextmanager
def open_features_folder(given: Path | None) -> Iterator[Path]:
    """Opens the given folder, or a temporary one that all processes of this machine share."""
    if given is not None:
        yield given
        return
    state = PartialState()
    with tempfile.TemporaryDirectory(prefix="features-") as own:
        [folder] = broadcast_object_list([own])
        yield Path(folder)
        state.wait_for_everyone()  # before the main process deletes the folder


@contextmanager
def open_evaluation(arguments: argparse.Namespace) -> Iterator[tuple[FrozenModel, list[FeatureBank]]]:
    """Opens the model, and the features of its training and of its test images. Says at the end what was not read."""
    state = open_device(arguments.device)
    reading = {"streaming": arguments.streaming, "decoding": read_decoding_arguments(arguments)}
    sources = open_train_and_test(arguments.train, arguments.test, **reading, **choose_columns(arguments))
    model = load_named_model(arguments, arguments.n_last_blocks)
    options = {name: getattr(arguments, name) for name in ("batch_size", "part_size")}
    with open_features_folder(arguments.features) as folder:
        named = list(zip((arguments.train, arguments.test), sources, strict=True))
        banks = [
            make_bank(model, data, source, folder, num_threads=arguments.workers, **options) for data, source in named
        ]
        yield model, banks
        for (data, source), bank in zip(named, banks, strict=True):
            repeat_left_out(data, source, bank.collect_unreadable(len(source)))
    state.destroy_process_group()
