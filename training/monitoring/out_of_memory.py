# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What to say where the memory of a device, or of the machine, does not suffice."""

from accelerate.utils.memory import should_reduce_batch_size as is_out_of_memory

from training.options.pretrain_options import PretrainOptions


def smaller_batch(options: PretrainOptions) -> tuple[int, int] | None:
    """The next smaller batch size and accumulation of the same images a step; None if there is none."""
    pairs = 2 if options.mixup or options.cutmix else 1  # images that are mixed stay in one batch
    for parts in range(2, options.batch_size // pairs + 1):
        if options.batch_size % (parts * pairs) == 0:
            return options.batch_size // parts, options.gradient_accumulation_steps * parts
    return None


def out_of_memory_advice(options: PretrainOptions) -> str:
    """Which options to change, with this run's numbers; the first changes nothing else."""
    crops = 2 + sum(options.local_crops_numbers)
    ways = []
    smaller = smaller_batch(options)
    if smaller is not None:
        ways.append(
            f"--batch_size {smaller[0]} --gradient_accumulation_steps {smaller[1]} takes the same images for a step "
            "and gives the same result, in a run from its start"
        )
    if not options.gradient_checkpointing:
        ways.append(
            "--gradient_checkpointing takes a quarter more time and a third less memory, and a run that has "
            "checkpoints may go on with it"
        )
    ways.append(
        f"less than {options.num_prototypes} --num_prototypes, smaller or fewer crops than "
        f"{options.global_crop_size} px and {options.local_crops_numbers} of {options.local_crop_sizes} px, or a "
        "smaller --architecture give another model"
    )
    return f"The memory does not suffice for {options.batch_size} images in {crops} crops at a time:\n" + "\n".join(
        f"  * {way}" for way in ways
    )


__all__ = ["is_out_of_memory", "out_of_memory_advice"]
