# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Advises what to change when the memory of a device, or of the machine, is not enough."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size as is_out_of_memory

from modeling_esvit.errors import EsViTError
from training.options.pretrain_options import PretrainOptions


class InsufficientMemoryError(EsViTError, RuntimeError):
    """Raised when a run needs more memory than there is; the message says which options to change."""


@contextmanager
def advise_on_memory(options: PretrainOptions) -> Iterator[None]:
    """Turns the end of the memory, within the block, into an error that says what to change.

    Raises:
        InsufficientMemoryError: The memory of a device or of the machine is not enough.
    """
    try:
        yield
    except RuntimeError as error:  # the end of a CPU's memory has no type of its own
        if not is_out_of_memory(error):
            raise
        raise InsufficientMemoryError(f"{error}\n{advise_options(options)}") from error


def find_smaller_batch(options: PretrainOptions) -> tuple[int, int] | None:
    """Returns the next smaller batch size, and the accumulation that keeps the images a step; None if there is none."""
    pairs = 2 if options.mixup or options.cutmix else 1  # mixed images must stay in one batch
    for parts in range(2, options.batch_size // pairs + 1):
        if options.batch_size % (parts * pairs) == 0:
            return options.batch_size // parts, options.gradient_accumulation_steps * parts
    return None


def advise_options(options: PretrainOptions) -> str:
    """Says which options to change, with this run's numbers; the first way keeps the result."""
    crops = 2 + sum(options.local_crops_numbers)
    ways = []
    smaller = find_smaller_batch(options)
    if smaller is not None:
        ways.append(
            f"--batch_size {smaller[0]} --gradient_accumulation_steps {smaller[1]} takes the same images for a step "
            "and gives the same result, but only in a new run"
        )
    if not options.gradient_checkpointing:
        ways.append(
            "--gradient_checkpointing takes a quarter more time and a third less memory, and also works for a run "
            "that is continued"
        )
    ways.append(
        f"fewer than {options.num_prototypes} --num_prototypes, smaller or fewer crops than "
        f"{options.global_crop_size} px and {options.local_crops_numbers} of {options.local_crop_sizes} px, or a "
        "smaller --architecture train another model"
    )
    return f"The memory is not enough for {options.batch_size} images in {crops} crops at a time:\n" + "\n".join(
        f"  * {way}" for way in ways
    )


__all__ = ["InsufficientMemoryError", "advise_on_memory", "advise_options", "is_out_of_memory"]
