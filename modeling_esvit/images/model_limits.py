# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Bounds what the files of a model can make this process do: a stranger may have written them.

A configuration is a few numbers, and each may ask for more time or memory than there is. Counts are looked at before
transformers makes anything of them, a network is described without values until its size is known to be about that of
the stored weights, and the sides of the images that a processor makes have a limit.
"""

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import CONFIG_MAPPING

from modeling_esvit.errors import EsViTError


LARGEST_COUNT = 2**20  # of labels and the like, of which transformers makes lists
LAYERS, MOST_LAYERS = re.compile("layer|depth|block|stage"), 2**12  # transformers compares their names, each with all
MOST_TENSORS = 20_000  # of a network; those of billions of parameters have about a thousand
# Elements of a network for each that is stored, and beside them: heads and poolers may be missing, positions are made.
# A tensor counts once when it is described, and once when its stored values take its place.
SHARE, BESIDE = 4, 2**24
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pth.tar")
LARGEST_SIDE = 2560  # pixels of the images that a processor makes; those of Donut are 2560 x 1920
LARGEST_AREA = 2048**2  # pixels, where a processor counts them, or patches of them
SIDES = re.compile("size|divisor|multiple")
LARGEST_GRID = 4096  # pixels of a side that is cut into several images, or scaled down
GRIDS = re.compile("side|edge|width|height|resolution|grid")
PIECES = re.compile("tile|crop|slice|frame|patch|_hd")
PATCH_SIDES = re.compile("(?!temporal).*patch_size")  # a prefix says whose: encoder_, vision_, image_, spatial_
SMALL_PATCH = 16  # pixels of its side
MOST_PIECES = 8  # of the largest area, or as many pixels in smaller ones
OWN_CHECKS = ("esvit",)  # configurations of these types check their own fields


class ModelLimitError(EsViTError, ValueError):
    """Raised when the files of a model ask for more than its weights or images can need."""


def check_counts(fields: Mapping[str, Any]) -> None:
    """Checks the numbers in a `config.json`, before a configuration is made of them.

    Raises:
        ModelLimitError: a field that transformers knows is far larger than any count is.
    """
    model_type = fields.get("model_type")
    known = {"num_labels"}
    if isinstance(model_type, str) and model_type not in OWN_CHECKS and model_type in CONFIG_MAPPING:
        config_class = CONFIG_MAPPING[model_type]
        known |= {*getattr(config_class, "__dataclass_fields__", ()), *config_class.attribute_map}
    for name, value in fields.items():
        if name in known or isinstance(value, dict):
            largest, allowed = find_largest(value), MOST_LAYERS if LAYERS.search(name) else LARGEST_COUNT
            if largest > allowed:
                raise ModelLimitError(f"{name} in its config.json is {largest}, more than {allowed}.")
            if isinstance(value, dict):
                check_counts(value)


def find_largest(value: Any) -> int:
    """Returns the largest whole number in a value of JSON, however deep; 0 if there is none."""
    if isinstance(value, dict | list | tuple):
        return max(map(find_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def count_stored(folder: Path) -> int:
    """Returns about how many numbers the files of weights in a folder hold; those of a pickle by its size."""
    stored = sum(path.stat().st_size // 2 for pattern in PICKLES for path in folder.glob(pattern))
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())
    return stored


@contextmanager
def bound_build(find_stored: Callable[[], int] | None = None) -> Iterator[None]:
    """Stops the construction of a network in this thread that has far too many tensors.

    Args:
        find_stored: returns how many numbers its weights have; it is asked when the first tensor is made. Without it
            only the number of tensors has a limit.

    Raises:
        ModelLimitError: the block builds more than that allows.
    """
    thread, tensors, elements, allowed = threading.get_ident(), 0, 0, 0

    def count(module: torch.nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal tensors, elements, allowed
        if tensor is None or threading.get_ident() != thread:
            return
        if tensors == 0 and find_stored is not None:
            allowed = SHARE * find_stored() + BESIDE
        tensors += 1
        elements += tensor.numel()
        if tensors > MOST_TENSORS:
            raise ModelLimitError(f"its configuration describes a network of more than {MOST_TENSORS} tensors.")
        if find_stored is not None and elements > allowed:
            raise ModelLimitError(
                f"its configuration describes a network of {elements} numbers or more, and its weights are at most "
                f"{(allowed - BESIDE) // SHARE}."
            )

    hooks = [register(count) for register in REGISTERS]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


REGISTERS = (register_module_parameter_registration_hook, register_module_buffer_registration_hook)


def check_sizes(processor: Any) -> None:
    """Checks the sizes of the images that an image processor makes, and how many it makes of one.

    Raises:
        ModelLimitError: a side is longer than LARGEST_SIDE, or there are more pieces than MOST_PIECES of LARGEST_AREA.
    """
    numbers = {name: find_largest(value) for name, value in processor.to_dict().items()}
    for name, number in numbers.items():
        if number > (most := find_limit(name, numbers)):
            unit = " pixels" if SIDES.search(name) or GRIDS.search(name) else ""
            raise ModelLimitError(f"{name} of its image processor is {number}, more than {most}{unit}.")


def find_limit(name: str, numbers: Mapping[str, int]) -> float:
    """Returns how large a whole number of an image processor may be; its other numbers say how large a piece is."""
    if SIDES.search(name):
        return LARGEST_SIDE
    if GRIDS.search(name):
        return LARGEST_GRID
    if "pixel" in name:
        return LARGEST_AREA
    patch = max((number for each, number in numbers.items() if PATCH_SIDES.fullmatch(each)), default=0)
    if "token" in name or ("patch" in name and patch):
        return LARGEST_AREA // (patch or SMALL_PATCH) ** 2
    if not PIECES.search(name):
        return math.inf
    side = max((number for each, number in numbers.items() if "size" in each and "patch" not in each), default=0)
    return MOST_PIECES * LARGEST_AREA // max(side, SMALL_PATCH) ** 2
