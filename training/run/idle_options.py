# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds options of a run that somebody gave, and that do nothing beside the others."""

from collections.abc import Callable
from typing import NamedTuple

from training.learning.networks import build_config
from training.options.pretrain_options import PretrainOptions


class Use(NamedTuple):
    """Says what an option is for, and whether a run has that."""

    purpose: str
    is_there: Callable[[PretrainOptions], bool]


LOCAL_CROPS = Use("local crops, of which there are none", lambda options: sum(options.local_crops_numbers) > 0)
USES = {
    "region_weight": Use("task view+region", lambda options: options.task == "view+region"),
    "region_matching_switch": Use(
        "region_matching location_then_feature", lambda options: options.region_matching == "location_then_feature"
    ),
    "warmup_teacher_temp": Use(
        "warm-ups of it (warmup_teacher_temp_epochs)",
        lambda options: options.cut_warmup("warmup_teacher_temp_epochs") > 0,
    ),
    "local_crop_sizes": LOCAL_CROPS,
    "local_crops_scale": LOCAL_CROPS,
    "vil_mode_switch": Use("vil_mode 1", lambda options: build_config(options).vil_mode > 0),
    "knn_k": Use("knn_every", lambda options: options.knn_every > 0),
}
OF_STREAMS = ("shuffle_window", "stream_retry_seconds", "tar_index")


def describe_idle_options(options: PretrainOptions, is_stream: bool) -> list[str]:
    """Returns a line on the options that have another value than by default, and do nothing in this run, if any."""
    of_streams = dict.fromkeys(OF_STREAMS, Use("streams", lambda _: is_stream))
    default = PretrainOptions()
    idle = [
        f"{name} {getattr(options, name)} (is for {use.purpose})"
        for name, use in (USES | of_streams).items()
        if getattr(options, name) != getattr(default, name) and not use.is_there(options)
    ]
    return [f"without effect   = {', '.join(idle)}"] if idle else []
