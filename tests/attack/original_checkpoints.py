# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks the conversion of original checkpoints by damaged files and by tensors that are not what they seem."""

import os
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file

from modeling_esvit.conversion.original_checkpoint import read_checkpoint
from modeling_esvit.convert_original.converter import build_model
from tests.attack.mutations import mutate_bytes
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.paths import FIXTURES


CHECKPOINT = FIXTURES / "checkpoint_swin_tiny.pth"


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def craft(random: Random, tensor: torch.Tensor, canary: Path) -> Any:
    """Returns what may stand in the place of a tensor."""
    shape = list(tensor.shape) or [1]
    huge = [*shape[:-1], 2**31]
    ways = {
        "stride 0": lambda: torch.ones(1).expand(huge),
        "stride 0 of its shape": lambda: tensor.flatten()[:1].expand(shape),
        "negative offset": lambda: tensor.flatten()[-1:],
        "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(len(shape), 1, dtype=torch.long), torch.ones(1), huge),
        "compressed": lambda: torch.ones(4, 4).to_sparse_csr(),
        "meta": lambda: torch.empty(huge, device="meta"),
        "quantized": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8),
        "transposed": lambda: tensor.mT if tensor.ndim > 1 else tensor[None],
        "nested": lambda: {"deeper": tensor},
        "list": lambda: tensor.tolist(),
        "canary": lambda: Canary(canary),
        "NaN": lambda: torch.full_like(tensor, float("nan"), dtype=torch.float32),
        "parameter": lambda: torch.nn.Parameter(tensor.float()),
        "empty": lambda: tensor.flatten()[:0],
        "longer": lambda: torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
        "storage": lambda: tensor.untyped_storage(),
        "number": lambda: 1e400,
        **{str(dtype): lambda dtype=dtype: tensor.to(dtype) for dtype in DTYPES},
    }
    return ways[random.choice(list(ways))]()


DTYPES = (
    *(torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float16, torch.bfloat16, torch.float64),
)


def prepare(folder: Path) -> Attack:
    content = torch.load(CHECKPOINT, weights_only=False)  # a fixture of this repository
    network, whole = content["teacher"], CHECKPOINT.read_bytes()
    path, canary = folder / "checkpoint.pth", folder / "canary"

    def attack(random: Random) -> None:
        kind = random.choice(["bytes", "tensor", "name", "safetensors"])
        if kind == "bytes":
            path.write_bytes(mutate_bytes(random, whole, whole[::-1]))
        else:
            write_crafted(random, kind)
        checkpoint = read_checkpoint(path)
        model, _ = build_model(checkpoint, None, {})
        if canary.exists():
            raise WrongError("code was executed")
        if not all(each.is_floating_point() for each in model.parameters()):
            raise WrongError("weights that are no floats")

    def write_crafted(random: Random, kind: str) -> None:
        changed = dict(network)
        name = random.choice(list(changed))
        if kind == "name":
            changed[random.choice([name + "x", name[1:], "module." + name, "", name.upper()])] = changed.pop(name)
        else:
            changed[name] = craft(random, changed[name], canary)
        if kind == "safetensors":
            plain = {n: t.contiguous().clone() for n, t in changed.items() if isinstance(t, torch.Tensor)
                     and t.device.type == "cpu" and t.layout == torch.strided and t.numel() < 10**6}  # fmt: skip
            save_file({n: t for n, t in plain.items() if not t.is_quantized}, path)
        else:
            top = {**content, "teacher": changed} if random.random() < 0.5 else changed
            torch.save(top, path, _use_new_zipfile_serialization=random.random() < 0.7)

    return attack


SURFACE = Surface("original checkpoints, damaged and crafted", prepare, 2)
