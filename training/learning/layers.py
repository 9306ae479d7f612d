# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers the layers of a network, so that those near the image can have a lower learning rate (`--layer_decay`).

As in BEiT (arXiv 2106.08254) and timm, layer 0 is the embedding, the blocks are 1 to L, over all stages, and what comes
after the last block is L + 1: the final norm and the heads. What lies between two blocks, such as the merging of
patches, belongs to the block before it. The rate of layer i is multiplied by `layer_decay` ** (L + 1 - i).
"""

import re
from collections.abc import Iterator, Sequence

from torch import nn

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.backbone_probe import EsViTBackboneError, trace_parameters
from modeling_esvit.tokens import EsViTLayer


ENCODER = "esvit.encoder."
BACKBONE = f"{ENCODER}backbone."


def scale_rates(model: EsViTForPreTraining, layer_decay: float) -> dict[str, float]:
    """Returns the factor of the learning rate of each trainable parameter, by its name.

    Raises:
        EsViTBackboneError: The blocks of a backbone of transformers or timm cannot be told.
    """
    numbers = number_layers(model)
    top = max(numbers.values())
    return {name: layer_decay ** (top - number) for name, number in numbers.items()}


def number_layers(model: EsViTForPreTraining) -> dict[str, int]:
    """Returns the layer of each trainable parameter, by its name.

    Raises:
        EsViTBackboneError: See `scale_rates`.
    """
    encoder = model.esvit.encoder
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if model.config.family.wraps_backbone:
        order = [BACKBONE + name for name in trace_parameters(encoder.description)]
        blocks = [BACKBONE + name for name in find_blocks(encoder.backbone)]
    else:  # registered in the order of the forward pass
        order = [name for name in trainable if name.startswith(ENCODER)]
        blocks = [name for name, module in model.named_modules() if isinstance(module, EsViTLayer)]
    owners = {name: next((block for block in blocks if name.startswith(f"{block}.")), None) for name in order}
    blocks = [block for block in dict.fromkeys(owners.values()) if block is not None]  # in their order
    numbers = number_parameters(owners, blocks)
    return {name: numbers.get(name, len(blocks) + 1) for name in trainable}


def number_parameters(owners: dict[str, str | None], blocks: Sequence[str]) -> dict[str, int]:
    """Returns the layer of each parameter of an encoder. `owners` and `blocks` are in the order of the forward pass.

    `owners` has the block that a parameter is in. A ViL has the MLP of a block beside it, in the same list.
    """
    last_list, begun, numbers = blocks[-1].rpartition(".")[0], 0, {}
    for name, block in owners.items():
        if block is not None:
            numbers[name] = blocks.index(block) + 1
            begun = max(begun, numbers[name])
        else:
            numbers[name] = begun + (begun == len(blocks) and not name.startswith(f"{last_list}."))
    return numbers


def find_blocks(backbone: nn.Module) -> list[str]:
    """Returns the names of the blocks of a backbone of transformers or timm, which mark them in no common way.

    Blocks are the elements of the outermost lists, or of the lists in these if they hold stages. Lists whose names
    differ in numbers alone belong together (`stages.0.layers`, `stages.1.layers`). Of several kinds of lists, the one
    with most parameters is meant: another one may hold embeddings.

    Raises:
        EsViTBackboneError: It has no such lists.
    """
    kinds: dict[str, list[str]] = {}
    for name, elements in find_block_lists(backbone):
        kinds.setdefault(re.sub(r"\d+", "N", name), []).extend(f"{name}.{key}" for key, _ in elements.named_children())
    if not kinds:
        raise EsViTBackboneError(
            f"layer_decay: the blocks of a {type(backbone).__name__} cannot be told; leave it at 1.0, and give a lower "
            "--lr instead."
        )
    return max(kinds.values(), key=lambda names: sum(count_parameters(backbone.get_submodule(name)) for name in names))


def find_block_lists(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the name and the list of each sequence of blocks."""
    for name, outer in find_lists(backbone):
        inner = [
            found
            for key, element in outer.named_children()
            for found in ([(f"{name}.{key}", element)] if is_list(element) else find_lists(element, f"{name}.{key}."))
        ]
        yield from inner or [(name, outer)]


def find_lists(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the name and the list of each outermost list in a module."""
    for name, child in module.named_children():
        if is_list(child):
            yield prefix + name, child
        else:
            yield from find_lists(child, f"{prefix}{name}.")


def is_list(module: nn.Module) -> bool:
    """Returns whether a module is a list of more than layers of torch, such as a convolution and its norm."""
    return isinstance(module, nn.ModuleList | nn.Sequential) and any(
        is_list(child) or (count_parameters(child) > 0 and not type(child).__module__.startswith("torch.nn"))
        for child in module.children()
    )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
