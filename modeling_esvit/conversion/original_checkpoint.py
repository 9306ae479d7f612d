# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints of the original EsViT (microsoft/esvit, MIT) without executing anything that they hold.

A checkpoint is a pickle. It is only ever opened with `weights_only=True` and the types that training scripts add to
tensors: an `argparse.Namespace` of options, paths in it, and the numpy scalars in the optimizer's groups. The latter
are decoded here, since numpy's own unpickling can be crashed by a damaged file.
"""

import argparse
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_families import NAMES, ORIGINAL_FAMILIES, find_family, preview
from modeling_esvit.conversion.stored_archive import check_archive, describe_part
from modeling_esvit.conversion.stored_networks import (
    WRAPPERS,
    check_shared,
    check_storage,
    check_type,
    select_network,
    walk_state_dicts,
)
from modeling_esvit.images.places import PlaceError, open_regular_file
from modeling_esvit.images.weight_names import find_strange
from modeling_esvit.storage.contents import describe_stand_in
from modeling_esvit.storage.weights_record import WeightsRecord


# What a damaged or hand-made pickle raises, beside pickle's own error (see the pickle module's documentation).
UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
# numpy's type codes for the struct module
NUMPY_SCALARS = {
    **{"f8": "<d", "f4": "<f", "f2": "<e", "b1": "<?"},
    **{"i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B"},
}
ZIP, SAFETENSORS, PICKLE = "zip", "safetensors", "pickle"

RENAMED = (
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
    (re.compile(r"^(head|head_dense)\.mlp\.(weight|bias)$"), r"\1.mlp.0.\2"),  # a head of a single layer
)
FOREIGN = (
    (r"^(esvit\.)?encoder\.patch_embed\.", "already converted, or of a project that calls its Swin 'encoder'"),
    (r"^(\w+\.)?embeddings\.patch_embeddings\.", "a model in transformers' own format"),
    (r"\.attn\.logit_scale$", "a Swin V2"),
    (r"(^|\.)_?flat_param", "shards of FSDP; save a full state dict (FullStateDictConfig)"),
    (
        r"^head\.(fc\.)?(weight|bias)$",
        "a model with a classifier, of timm or torchvision; LayerNorms of its Swin have another epsilon than EsViT's, "
        "and its other networks are backbones of transformers here: --architecture auto --backbone timm:NAME in a run",
    ),
)


ORIGINAL = "[microsoft/esvit](https://github.com/microsoft/esvit)"
NETWORKS = {"teacher": "the teacher", "student": "the student"}  # by their entries in a checkpoint
SUPPORTED = (
    f"Supported are the {NAMES} networks of EsViT: a training checkpoint with 'teacher' and 'student', or one such "
    "state dict, as written by torch.save or as .safetensors."
)


class NumpyType:
    """Stands in for `numpy.dtype` in a pickle."""

    def __init__(self, code: str, *_flags):
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        """Takes the state of a plain type, which adds nothing to its code but a byte order that is always little."""


def decode_numpy_scalar(dtype: NumpyType, data: bytes) -> float | int | bool:
    """Stands in for the function that pickled numpy scalars name."""
    if dtype.code not in NUMPY_SCALARS:
        raise pickle.UnpicklingError(f"Unsupported numpy type {dtype.code!r}")
    return struct.unpack(NUMPY_SCALARS[dtype.code], data)[0]


PATHS = ("pathlib", "pathlib._local")  # the latter in Python 3.13
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    (NumpyType, "numpy.dtype"),
    (decode_numpy_scalar, "numpy._core.multiarray.scalar"),
    (decode_numpy_scalar, "numpy.core.multiarray.scalar"),  # numpy 1
    # A path of one system cannot be made on another, and opens nothing in its pure form.
    *((PurePosixPath, f"{module}.{name}") for module in PATHS for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{module}.{name}") for module in PATHS for name in ("WindowsPath", "PureWindowsPath")),
]


@dataclass
class OriginalCheckpoint:
    """Holds one network of an original checkpoint.

    state_dict: its tensors under their original names, without the prefixes of wrappers and without derivable buffers.
    family: key of its family.
    source: where in the file they come from: `"teacher"`, `"student"`, `"state_dict.model"`, ...
    centers: `center` and `center_grid` (`[1, K]`) of the loss, as far as the file has them.
    args: the options of the training run, if the file has them.
    epoch: number of finished epochs, if the file says it.
    left_out: what else the file holds.
    """

    state_dict: dict[str, torch.Tensor]
    family: str
    source: str
    centers: dict[str, torch.Tensor] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    left_out: list[str] = field(default_factory=list)


def read_checkpoint(path: str | Path, key: str | None = None) -> OriginalCheckpoint:
    """Reads one network of a checkpoint, in any layout that EsViT or its users write.

    Args:
        key: an entry or a prefix of names under which the network lies, such as `"student"` or `"model_ema"`; by
            default the teacher, or the only network.

    Raises:
        ConversionError: the file is no such checkpoint, is damaged, holds an object of a type that is not allowed
            (which is never created), has no `key`, or a tensor is no plain array of floating point numbers.
        OSError: it cannot be read.
    """
    path = Path(path)
    content = read_file(path)
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path} holds a {type(content).__name__}, not a state dict. {SUPPORTED}")
    check_names(content, path)
    network = select_network(content, key, path)
    state_dict, left_out = clean_names(network.tensors)
    if not state_dict:
        raise ConversionError(f"{path} holds no tensors, only {preview(content)}. {SUPPORTED}")
    family = require_family(state_dict, path)
    for name, tensor in state_dict.items():
        check_storage(name, tensor)
    check_shared(state_dict)
    left_out += drop_derived(state_dict, family)
    for name, tensor in state_dict.items():
        check_type(name, tensor)
    checkpoint = OriginalCheckpoint(state_dict, family, network.name, left_out=left_out + network.others)
    if network.place and isinstance(content.get(network.place[0]), Mapping):
        centers, args, epoch = content.get("dino_loss"), content.get("args"), content.get("epoch")
        checkpoint.centers = read_centers(centers) if isinstance(centers, Mapping) else {}
        checkpoint.args = vars(args) if isinstance(args, argparse.Namespace) else {}
        checkpoint.epoch = epoch if isinstance(epoch, int) else None
        known = (network.place[0], "dino_loss", "args", "epoch")
        checkpoint.left_out += [str(name) for name in content if name not in known]
    return checkpoint


def check_names(content: Mapping, path: Path) -> None:
    """Checks the names of a checkpoint's entries and tensors, which messages show.

    Raises:
        ConversionError: one would change a terminal, or forge a line; or entries are nested without end.
    """
    entries = [*content, *(name for place, tensors in walk_state_dicts(content) for name in (*place, *tensors))]
    if (strange := find_strange(entries)) is not None:
        raise ConversionError(f"{path} has an entry with the name {strange}: it is damaged.")


def read_centers(entry: Mapping) -> dict[str, torch.Tensor]:
    """Returns the centres of the loss.

    Raises:
        ConversionError: one is no plain array of floating point numbers.
    """
    centers = {name: value for name, value in entry.items() if isinstance(value, torch.Tensor)}
    for name, tensor in centers.items():
        check_storage(f"dino_loss.{name}", tensor)
        check_type(f"dino_loss.{name}", tensor)
    return centers


def describe_weights(checkpoint: OriginalCheckpoint) -> WeightsRecord:
    """Returns what a checkpoint tells of its weights. Only a region head, or the original's options, tell of EsViT."""
    has_regions = any(name.startswith("head_dense.") for name in checkpoint.state_dict)
    if not has_regions and "use_dense_prediction" not in checkpoint.args:
        return WeightsRecord(f"a checkpoint in the format of the original EsViT ({ORIGINAL})")
    network = NETWORKS.get(checkpoint.source, "a network")
    tasks = "the view and the region task" if has_regions else "the view task"
    epochs = "" if checkpoint.epoch is None else f", for {checkpoint.epoch} epochs"
    return WeightsRecord(
        f"{network} in a checkpoint of the original EsViT ({ORIGINAL})",
        f"without labels, by {tasks}{epochs}; on which images is not recorded",
        by_esvit=True,
        is_teacher=checkpoint.source == "teacher",
    )


def load_original_state_dict(path: str | Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """Returns the tensors of [`read_checkpoint`] alone."""
    return read_checkpoint(path, key).state_dict


def read_file(path: Path) -> Any:
    """Reads tensors and plain values of a file; the data of a zip archive stays on disk until it is used."""
    kind = find_file_kind(path)
    try:
        if kind == SAFETENSORS:
            return load_file(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == ZIP)
    except SafetensorError as error:
        raise ConversionError(f"{path} is a truncated or damaged .safetensors file ({error}).") from error
    except UNPICKLING_ERRORS as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise ConversionError(f"{path} is damaged or no checkpoint: {shorten_error(error)} {SUPPORTED}") from error
        raise ConversionError(
            f"{path} holds an object of type {refused[1]}, which is not loaded because creating it could execute code. "
            "Save the state dict alone, with torch.save(model.state_dict(), ...), where you trust the file."
        ) from error


def find_file_kind(path: Path) -> str:
    """Returns `ZIP`, `SAFETENSORS` or `PICKLE` (before torch 1.6), from the first bytes.

    Raises:
        ConversionError: it is none of these, or a part of a checkpoint, or damaged.
    """
    if part := describe_part(path):
        raise ConversionError(f"{path} {part}")
    try:
        with open_regular_file(str(path)) as file:
            head = file.read(512)
    except PlaceError as error:
        raise ConversionError(f"{path} is no checkpoint: {error}.") from error
    if head.startswith(b"PK\x03\x04"):
        check_archive(path)
        return ZIP
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**8:
        return SAFETENSORS
    if head.startswith(b"\x80"):
        return PICKLE
    raise ConversionError(f"{path} is not a checkpoint: {describe_bytes(head)}. {SUPPORTED}")


def describe_bytes(head: bytes) -> str:
    """Returns in words what a file that is no checkpoint seems to be."""
    if stand_in := describe_stand_in(head):
        return stand_in
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive; unpack it first"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (Keras)"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", head):
        return "a text file"
    return "a binary file of another kind"


def shorten_error(error: Exception) -> str:
    """Returns the first line of an error of torch.load, without its advice to switch the safety off."""
    text = str(error).split("WeightsUnpickler error: ")[-1].strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."


def clean_names(network: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns the tensors under their plain original names, and the names of what is left out."""
    state_dict: dict[str, torch.Tensor] = {}
    left_out = []
    for name, value in network.items():
        wrapper = WRAPPERS.match(name)
        plain = name[wrapper.end() :] if wrapper else name
        for pattern, replacement in RENAMED:
            plain = pattern.sub(replacement, plain)
        if not isinstance(value, torch.Tensor):
            left_out.append(plain)
        elif plain in state_dict:
            raise ConversionError(f"The tensor {plain} is there twice, once as {name}; remove one of the two.")
        else:
            state_dict[plain] = value
    return state_dict, left_out


def require_family(state_dict: Mapping[str, torch.Tensor], path: Path) -> str:
    """Returns the family of a network.

    Raises:
        ConversionError: it is another architecture; the message has its name, not a list of all its tensors.
    """
    for pattern, description in FOREIGN:
        found = next((name for name in state_dict if re.search(pattern, name)), None)
        if found is not None:
            raise ConversionError(f"{path} seems to be {description} (it has a tensor {found}). {SUPPORTED}")
    family = find_family(state_dict)
    if family is None:
        raise ConversionError(f"{path} has none of the tensors of a {NAMES}, but {preview(state_dict)}. {SUPPORTED}")
    return family


def drop_derived(state_dict: dict[str, torch.Tensor], family: str) -> list[str]:
    """Deletes the tensors that the model makes itself, empty ones, and second names of others. Returns their names."""
    derived = [name for name in state_dict if ORIGINAL_FAMILIES[family].derived.search(name)]
    derived += ORIGINAL_FAMILIES[family].empty(state_dict)
    derived += find_aliases(state_dict, ORIGINAL_FAMILIES[family].alias)
    for name in derived:
        del state_dict[name]
    return derived


def find_aliases(state_dict: Mapping[str, torch.Tensor], pattern: re.Pattern | None) -> list[str]:
    """Returns the names that match, if all are second names; none if a network learned these tensors apart."""
    firsts = {name: pattern.sub("", name) for name in state_dict if pattern.search(name)} if pattern else {}
    same = all(
        first in state_dict and torch.equal(state_dict[name], state_dict[first]) for name, first in firsts.items()
    )
    return list(firsts) if same else []
