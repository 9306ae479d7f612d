# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds networks in the content of a checkpoint, wherever it nests them and whatever wrapped them.

Training programs put state dicts under entries (`model_ema`, `state_dict`), and wrappers put prefixes before names
(`module.` of DDP, `_orig_mod.` of torch.compile, `module.encoder_q.` of MoCo), in any order. A network is recognised by
the tensors that a family has; what stands before their names is the place where it lies.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_families import ORIGINAL_FAMILIES


# What wrappers of PyTorch put between the parts of a name, at any depth.
TRANSPARENT = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# What stands before the names of a network, and says nothing of which network it is.
WRAPPERS = re.compile(r"(?:(?:module|backbone)\.)+")
TRAILING = re.compile(r"(?:^|(?<=\.))(?:(?:module|backbone|esvit|encoder)\.)+$")
# What is no part of a network beside it: mmcv's averages of its tensors, whose names have lost their dots, and the
# counters of torch's AveragedModel, of LitEma and of ema_pytorch.
COPY = re.compile(r"ema_\w+|(?:module\.)*(?:n_averaged|num_updates|decay|initted|step)")
WHOLE = "the whole file"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DEEPEST = 30  # entries within entries
MOST_ENTRIES = 10**6  # of all mappings of a file
MOST_SHOWN = 60  # characters of a place that is refused
SHARED = 4  # how often the values of a file may be there
COUNTERS = re.compile(r"(?:^|\.)num_batches_tracked$")  # of BatchNorm, whole numbers


class StoredNetwork(NamedTuple):
    """Holds a network of a checkpoint.

    Attributes:
        place: The entries and prefixes under which it lies, outermost first.
        tensors: Its tensors, and whatever else is among them, without these prefixes.
        others: Names beside it in the same state dict.
    """

    place: tuple[str, ...]
    tensors: dict[str, Any]
    others: list[str]

    @property
    def name(self) -> str:
        """Returns what `--key` calls it: its place without wrappers that say nothing."""
        return ".".join(part for part in self.place if part not in ("module", "backbone")) or WHOLE

    def is_called(self, key: str) -> bool:
        return key == self.name or key == ".".join(self.place) or key in self.place


def select_network(content: Mapping, key: str | None, path: Any) -> StoredNetwork:
    """Returns the network that `key` names; for None the teacher, or the only one.

    Raises:
        ConversionError: There is no such network, or there are several to choose from.
    """
    networks = list_networks(content)
    names = ", ".join(network.name for network in networks)
    found = [network for network in networks if network.is_called(key or "teacher")]
    if key is None and not found:
        found = [network for network in networks if not network.is_called("student")]
    if not found:
        raise ConversionError(f"{path} has no {key or 'teacher'!r} network; it has {names}. Choose one with --key.")
    exact = [network for network in found if network.name == key]
    if len(found) > 1 and len(exact) != 1:
        raise ConversionError(f"{path} has several networks: {names}. Choose one with --key.")
    return exact[0] if exact else found[0]


def list_networks(content: Mapping) -> list[StoredNetwork]:
    """Returns the networks of a checkpoint; without any that is known, its largest state dict."""
    state_dicts = dict(walk_state_dicts(content))
    networks = [network for place, each in state_dicts.items() for network in split_networks(place, each)]
    if networks or not state_dicts:
        return networks or [StoredNetwork((), {}, [])]
    place, largest = max(state_dicts.items(), key=lambda entry: len(entry[1]))
    return [StoredNetwork(place, remove_wrappers(largest), [])]


def walk_state_dicts(content: Mapping) -> Iterator[tuple[tuple[str, ...], Mapping]]:
    """Yields each mapping that holds tensors itself, with the entries that lead to it.

    Raises:
        ConversionError: They are nested as no program nests them, or lead to the same ones over and over.
    """
    waiting: list[tuple[tuple[str, ...], tuple[Mapping, ...]]] = [((), (content,))]
    entries = 0
    while waiting:
        place, (*above, mapping) = waiting.pop()
        entries += len(mapping)
        if len(place) > DEEPEST or entries > MOST_ENTRIES:
            raise ConversionError(
                f"The file nests its entries without end: {'.'.join(place[:DEEPEST])[:MOST_SHOWN]}..."
            )
        if any(isinstance(value, torch.Tensor) for value in mapping.values()):
            yield place, mapping
        inner = [entry for entry in mapping.items() if isinstance(entry[1], Mapping)]
        waiting += [
            ((*place, str(name)), (*above, mapping, value))
            for name, value in reversed(inner)
            if all(value is not each for each in (*above, mapping))  # a damaged file may hold itself
        ]


def remove_wrappers(state_dict: Mapping) -> dict[str, Any]:
    """Returns a state dict without what PyTorch's wrappers put into its names.

    Raises:
        ConversionError: Two tensors have one name then.
    """
    plain: dict[str, Any] = {}
    for name, value in state_dict.items():
        if (shorter := TRANSPARENT.sub("", str(name))) in plain:
            raise ConversionError(f"The tensor {shorter} is there twice, once as {name}; remove one of the two.")
        plain[shorter] = value
    return plain


def split_networks(place: tuple[str, ...], state_dict: Mapping) -> list[StoredNetwork]:
    """Returns the networks of one state dict, which lie under different prefixes."""
    plain = remove_wrappers(state_dict)
    tensors = {name: value for name, value in plain.items() if not COPY.fullmatch(name)}
    prefixes = {TRAILING.sub("", prefix) for name in tensors if (prefix := find_prefix(name)) is not None}
    outermost = [each for each in prefixes if not any(each.startswith(other) for other in prefixes - {each})]
    networks = []
    for prefix in sorted(outermost):
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        others = [name for name in plain if not (name in tensors and name.startswith(prefix))]
        networks.append(StoredNetwork((*place, *prefix.split(".")[:-1]), own, others))
    return networks


def find_prefix(name: str) -> str | None:
    """Returns what stands before the part of a name that tells a family; None if no part does."""
    starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
    for start in starts:
        if any(family.keys.match(name, start) for family in ORIGINAL_FAMILIES.values()):
            return name[:start]
    return None


def check_storage(name: str, tensor: torch.Tensor) -> None:
    """Checks that a tensor is a plain array all of whose values are in the file. Nothing is computed.

    Raises:
        ConversionError: It is sparse, quantised, without values, or repeats few values over a large shape.
    """
    kind = str(tensor.layout).removeprefix("torch.") if tensor.layout != torch.strided else ""
    kind = kind or ("quantized" if tensor.is_quantized else "")
    if kind or tensor.device.type != "cpu":
        raise ConversionError(f"The tensor {name} is no plain array of values ({kind or tensor.device.type}).")
    stored, declared = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
    if declared > stored:
        raise ConversionError(
            f"The tensor {name} has shape {list(tensor.shape)}, {declared} bytes, of which the file has {stored}."
        )


def check_shared(tensors: Mapping[str, torch.Tensor]) -> None:
    """Checks that tensors do not, all together, show the same values many times over. A few are shared in any model.

    Raises:
        ConversionError: They declare more than SHARED times the bytes that are stored.
    """
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    declared = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if declared > SHARED * sum(stored.values()):
        raise ConversionError(
            f"The {len(tensors)} tensors have {declared} bytes together, of which the file has {sum(stored.values())}."
        )


def check_type(name: str, tensor: torch.Tensor) -> None:
    """Checks that the values of a tensor are weights.

    Raises:
        ConversionError: They are whole numbers, truth values, complex, or of fewer than 16 bits.
    """
    if tensor.dtype not in FLOATS and not (COUNTERS.search(name) and tensor.dtype == torch.int64):
        kinds = ", ".join(str(each).removeprefix("torch.") for each in FLOATS)
        raise ConversionError(f"The tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}, not {kinds}.")
