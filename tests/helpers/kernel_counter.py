# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the kernels that a GPU would launch, and the bytes that they would move, on tensors without values."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers.accelerator import accelerator_path


ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
PICKED = {"index_select", "index", "gather", "embedding"}  # read no more of their input than they return
OVERWRITTEN = {"copy_", "fill_", "zero_", "bernoulli_"}  # write their first argument without reading it
BIAS_ALIGNMENT = 16  # elements of a row to which torch pads the bias of memory-efficient attention


def count_bytes(tensor: torch.Tensor) -> int:
    """Returns the bytes of the elements, each counted once however often a view repeats it."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def list_tensors(values: object) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


class KernelCounter(TorchDispatchMode):
    """Counts, as a context, every operation that is neither a view nor an allocation as one kernel.

    Attributes:
        kernels: Number of each operation, by name.
        bytes: What the kernels of each name read and write.
        mixed: Operations on tensors of several devices; a number (0-dim, on the host) may go with any device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if func.namespace != "prim" and name not in ALLOCATIONS:
            self.count(func, name, args, kwargs, result)
        return result

    def count(self, func, name: str, args: tuple, kwargs: dict, result: object) -> None:
        inputs, outputs = list_tensors((args, kwargs)), list_tensors(result)
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        changed = list_tensors(
            [given.get(a.name) for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        )
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        written = changed + [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in known]
        if not written:
            return
        if name in PICKED:
            read = outputs + inputs[1:]
        elif name in OVERWRITTEN:
            read = inputs[1:]
        else:
            read = [tensor for tensor in inputs if tensor is not kwargs.get("out")]
        self.kernels[name] += 1
        self.bytes[name] += sum(map(count_bytes, read + written))
        devices = {tensor.device.type for tensor in inputs + outputs if tensor.ndim}
        if len(devices) > 1:
            self.mixed.append(str(func))

    def total(self) -> tuple[int, int]:
        """Returns the number of all kernels and of all bytes."""
        return self.kernels.total(), self.bytes.total()


def attend_efficiently(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """Attends as torch does on a GPU, by the memory-efficient kernel; fake tensors would get the plain form."""
    if attn_mask is not None:
        length = attn_mask.shape[-1]
        if attn_mask.stride(-2) % BIAS_ALIGNMENT:
            attn_mask = F.pad(attn_mask, (0, -length % BIAS_ALIGNMENT))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2]).to(query.dtype)
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    attended, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        *(tensor.transpose(1, 2) for tensor in (q, k, v)),
        attn_mask,
        torch.is_grad_enabled() and query.requires_grad,
        dropout_p,
        is_causal,
        scale=scale,
    )
    return attended


def normalize_in_float32(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalises as CUDA's autocast does, in float32; that of a CPU keeps half precision."""
    with torch.autocast(input.device.type, enabled=False):
        return torch.layer_norm(input.float(), normalized_shape, weight, bias, eps)


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """Takes, within the block, the path and the kernels of a GPU for (fake) tensors of any device."""
    with (
        accelerator_path(),
        patch.object(F, "scaled_dot_product_attention", attend_efficiently),
        patch.object(F, "layer_norm", normalize_in_float32),
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),  # else there is no CUDA autocast
        patch("torch.cuda.is_bf16_supported", lambda: True),
    ):
        yield
