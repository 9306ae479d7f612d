# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Advises on a run before it begins: prototypes and epochs for so many images, and hours for such a machine."""

import math
import os
from collections.abc import Iterator

import psutil

from training.options.pretrain_options import PretrainOptions


FEW_FOR_A_PROTOTYPE, IMAGES_A_PROTOTYPE = 4, 10  # the paper has 20, with 1.28 million images and 65536 prototypes
FEWEST_PROTOTYPES = 64
FEW_IMAGES = 10_000  # below which a public backbone is the better start
FEW_STEPS = 5_000  # after which a network that begins at random has learnt little
FEW_TO_ADAPT = 1_000  # below which nobody has seen a public backbone gain
LONG_HOURS = 48
BUSY = 0.5  # share of the cores that others use, from which on it is worth a line


def advise(options: PretrainOptions, images: int, steps: int, hours: float = 0.0) -> Iterator[str]:
    """Yields a line for each thing to know before a run of so many images, steps and hours (0: unknown)."""
    starts_trained = options.init_from is not None or options.backbone_weights
    each, fewer = images / options.num_prototypes, suggest_prototypes(images)
    yield f"prototypes       = {images:,} images / {options.num_prototypes:,} = {each:.3g} images a prototype"
    if each < FEW_FOR_A_PROTOTYPE and fewer < options.num_prototypes:
        each = images / fewer
        yield f"Advice: so few images leave most prototypes unused: --num_prototypes {fewer} has {each:.3g} for each."
    if images < FEW_IMAGES and not starts_trained:
        yield (
            f"Advice: {images:,} images teach a network little that begins at random (10,000 and 100 epochs are usual)."
            " A public backbone is the better start: --recipe adapt --backbone NAME."
        )
    if images < FEW_TO_ADAPT and starts_trained:
        yield (
            f"Advice: {images:,} images are few to adapt a model with: measure it as it is, too (training/knn.py), and "
            "keep what comes out only if it gains."
        )
    if steps < FEW_STEPS and hours <= LONG_HOURS and not starts_trained:
        epochs = math.ceil(options.epochs * FEW_STEPS / steps)
        yield f"Advice: {steps:,} steps are few; {epochs} epochs would be {FEW_STEPS:,}."
    if hours > LONG_HOURS:
        yield (
            f"Advice: {hours:,.0f} hours are long. A GPU, a smaller network (--embed_dim, --depths, as in the recipe "
            "own_images_small), smaller or fewer crops (--global_crop_size, --local_crop_sizes, --local_crops_numbers) "
            "or fewer --epochs shorten them."
        )


def describe_load(cores: int) -> Iterator[str]:
    """Yields a line if other programs keep the cores busy, and threads of this one would wait in a loop meanwhile."""
    load = psutil.getloadavg()[0]
    if load > BUSY * cores and "OMP_WAIT_POLICY" not in os.environ:
        yield (
            f"other programs   = keep {load:.1f} of {cores} cores busy: with OMP_WAIT_POLICY=passive in the "
            "environment, threads that wait leave the cores to others, and steps take less time"
        )


def suggest_prototypes(images: int) -> int:
    """Returns the power of two with about IMAGES_A_PROTOTYPE images for each prototype."""
    return max(FEWEST_PROTOTYPES, 2 ** round(math.log2(max(images, 1) / IMAGES_A_PROTOTYPE)))
