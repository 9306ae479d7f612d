# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes sums of cross-entropies over K prototypes, and their gradients, without storing logits of all rows.

Student rows i meet teacher rows j. With s_i = W_s z_i / tau_s, q_i = softmax(s_i) and
p_j = softmax((W_t z_j - c) / tau_t), the weights omega_ij of all pairs of one image, their row sums w_i, and because
every p sums to one,

    loss = sum_ij omega_ij CE(p_j, q_i),      g_i = d loss / d s_i = w_i q_i - sum_j omega_ij p_j,
    dz_i = W_s^T g_i / tau_s,                 dW_s = sum_i g_i z_i^T / tau_s.

The K probabilities of each row are computed for a few images (a chunk) at a time, and the gradients in the same pass.

A CPU forms g, as `[K, rows]` and in tiles of prototypes that stay in its cache: that way round the matrix products with
K of tens of thousands are fastest, and all pairs of a row meet in one of them. Its loss is the sum of w_i H(q_i) and
g_i . s_i.

Other devices, and compiled code, take whole rows `[rows, K]`, which pass through memory as seldom as can be. With
m_j = W_s^T p_j and n_i = W_s^T q_i, pairs meet as vectors of D numbers instead of K:

    loss = sum_i w_i logsumexp(s_i) - sum_ij omega_ij m_j . z_i / tau_s,
    dz_i = (w_i n_i - sum_j omega_ij m_j) / tau_s,
    dW_s = (sum_i w_i q_i z_i^T - sum_j p_j (sum_i omega_ij z_i)^T) / tau_s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


# Student rows whose probabilities exist at a time, if one image has not more: 64 MiB, or 2.5 GiB for the three forms of
# them, at K = 65536.
CPU_CHUNK_ROWS, CHUNK_ROWS = 256, 4096
TILE = 4096  # prototypes that are worked on at a time on a CPU, so that the passes over them stay in its cache


class Rows(NamedTuple):
    """Holds the rows of the student and of the teacher that meet, and the prototypes of both.

    Attributes:
        student_z, teacher_z: `[b, S, D]` and `[b, T, D]`.
        student_w, teacher_w: Prototypes, `[K, D]`.
        offset: -c / tau_t, `[K]`.
        pairs: omega, `[b, S, T]`.
    """

    student_z: torch.Tensor
    student_w: torch.Tensor
    teacher_z: torch.Tensor
    teacher_w: torch.Tensor
    offset: torch.Tensor
    pairs: torch.Tensor


class ChunkResult(NamedTuple):
    """Holds what a chunk gives.

    Attributes:
        loss: 0-dim.
        grad_z: Gradient for the student's z / tau_s, `[b, S, D]`.
        grad_w: Gradient for the student's prototypes, `[K, D]`.
        entropy: Of each p, `[b * T]`, if it is asked for.
    """

    loss: torch.Tensor
    grad_z: torch.Tensor
    grad_w: torch.Tensor
    entropy: torch.Tensor | None


@dataclass(frozen=True)
class Method:
    """Chooses the code that computes a chunk, and the type of its matrix products, where chunks are not cut into tiles.

    Attributes:
        chunk: [`compute_chunk`], or its compiled form, which is then taken on a CPU, too.
        product_type: Type of the factors of products with prototypes: bfloat16 where precision is mixed. Sums, softmax
            and gradients are float32.
    """

    chunk: Callable[..., ChunkResult] | None = None
    product_type: torch.dtype | None = None


def cut_prototypes(weight: torch.Tensor) -> list[slice]:
    """Cuts the K prototypes into parts that fit into a CPU's cache."""
    return [slice(start, start + TILE) for start in range(0, len(weight), TILE)]


def softmax_over_prototypes(
    weight: torch.Tensor, scaled_z: torch.Tensor, offset: torch.Tensor | None, memory: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Computes the softmax over prototypes of `weight @ scaled_z.T + offset[:, None]`.

    Each tile of prototypes is shifted by its own peak, so that the logits are read only once.

    Args:
        weight: Prototypes `[K, D]`.
        scaled_z: Rows `[R, D]`.
        offset: `[K]`.
        memory: Takes the exponentials: K x R elements or more.

    Returns:
        The exponentials `[K, R]`, the factor of each tile `[tiles, R]`, and the entropies `[R]`.
    """
    exponentials = memory[: len(weight) * len(scaled_z)].view(len(weight), len(scaled_z))
    peaks, sums, moments = [], [], []
    for tile in cut_prototypes(weight):
        if offset is None:
            logits = weight[tile] @ scaled_z.T
        else:
            logits = torch.addmm(offset[tile, None], weight[tile], scaled_z.T)
        peaks.append(logits.amax(dim=0))
        logits.sub_(peaks[-1])
        torch.exp(logits, out=exponentials[tile])
        sums.append(exponentials[tile].sum(dim=0))
        moments.append(logits.mul_(exponentials[tile]).sum(dim=0))
    peak, total, moment = torch.stack(peaks), torch.stack(sums), torch.stack(moments)
    peak -= peak.amax(dim=0)  # else large logits would cost the entropy its last digits
    log_norm = (peak + total.log()).logsumexp(dim=0)
    scale = (peak - log_norm).exp()
    entropy = log_norm - (scale * (moment + peak * total)).sum(dim=0)
    return exponentials, scale, entropy


DEFAULT_METHOD = Method()


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Computes the product of matrices of one type; half precision is summed up, and returned, in float32."""
    if a.dtype not in (torch.bfloat16, torch.float16):
        return a @ b
    if type(a) is torch.Tensor and a.device.type == "cpu":  # torch has no such product there
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


def exponentiate(logs: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns exp(logs) in another type, by one pass over the memory."""
    return torch.exp(logs, out=torch.empty_like(logs, dtype=dtype))


def compute_chunk(rows: Rows, needs_entropy: bool) -> ChunkResult:
    """Computes loss and gradients of the images of a chunk from whole rows of logits.

    Args:
        rows: z are divided by their temperatures, and the prototypes in the type of the products.
        needs_entropy: also return the entropies of p.
    """
    student_z, student_w, teacher_z, teacher_w, offset, pairs = rows
    dtype = student_w.dtype
    logits = multiply(teacher_z.flatten(0, 1).to(dtype), teacher_w.T).add_(offset)
    log_p = logits.log_softmax(dim=1)
    p = exponentiate(log_p, dtype)
    entropy = -(log_p.exp() * log_p).sum(dim=1) if needs_entropy else None
    del logits, log_p
    logits = multiply(student_z.flatten(0, 1).to(dtype), student_w.T)
    log_q = logits.log_softmax(dim=1)
    log_norm = (logits[:, 0] - log_q[:, 0]).view(pairs.shape[:2])
    q = exponentiate(log_q, dtype)
    del logits, log_q
    row_weight = pairs.sum(dim=2)
    targets = pairs @ multiply(p, student_w).view_as(teacher_z)
    loss = (row_weight * log_norm).sum() - (targets * student_z).sum()
    means = multiply(q, student_w).view_as(student_z)
    weighted_z = (row_weight.unsqueeze(2) * student_z).flatten(0, 1).to(dtype)
    matched_z = (pairs.transpose(1, 2) @ student_z).flatten(0, 1).to(dtype)
    grad_w = multiply(q.T, weighted_z).sub_(multiply(p.T, matched_z))
    return ChunkResult(loss, row_weight.unsqueeze(2) * means - targets, grad_w, entropy)


class Sums(NamedTuple):
    """Holds the loss of a batch, its gradients for student_z and student_w, and the mean entropy of all p."""

    loss: torch.Tensor
    grad_z: torch.Tensor
    grad_w: torch.Tensor
    entropy: torch.Tensor


def sum_in_chunks(rows: Rows, needs_entropy: bool, method: Method) -> Sums:
    """Sums up chunks of equal size, so that a compiler needs one form of [`compute_chunk`].

    z are divided by their temperatures. The last chunk is filled up with rows of no weight.
    """
    student_z, student_w, teacher_z, teacher_w, offset, pairs = rows
    batch = len(student_z)
    images = max(1, CHUNK_ROWS // student_z.shape[1])
    images = -(-batch // -(-batch // images))
    missing = -batch % images
    if missing:
        student_z, teacher_z, pairs = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (student_z, teacher_z, pairs))
    product_type = method.product_type or student_w.dtype
    student_w, teacher_w = student_w.to(product_type), teacher_w.to(product_type)
    chunk = method.chunk or compute_chunk
    losses, grads_z, entropies = [], [], []
    grad_w = torch.zeros_like(student_w, dtype=student_z.dtype)
    for z, targets_z, weights in zip(*(x.split(images) for x in (student_z, teacher_z, pairs)), strict=True):
        result = chunk(Rows(z, student_w, targets_z, teacher_w, offset, weights), needs_entropy)
        grad_w += result.grad_w
        losses.append(result.loss)
        grads_z.append(result.grad_z)
        entropies.append(result.loss.new_zeros(1) if result.entropy is None else result.entropy)
    entropy = torch.cat(entropies)[: teacher_z.shape[1] * batch].mean()
    return Sums(torch.stack(losses).sum(), torch.cat(grads_z)[:batch], grad_w, entropy)


def sum_in_tiles(rows: Rows, student_temp: float, teacher_temp: float) -> Sums:
    """Sums up chunks tile by tile, as suits a CPU. Here z are not divided by their temperatures."""
    student_z, student_w, teacher_z, teacher_w, offset, pairs = rows
    grad_z, grad_w = torch.empty_like(student_z), torch.empty_like(student_w)
    loss, entropy = student_z.new_zeros(()), student_z.new_zeros(())
    images = min(max(1, CPU_CHUNK_ROWS // student_z.shape[1]), len(student_z))
    # One allocation for all chunks: new pages for each would cost as much as the exponentials themselves.
    p_memory, g_memory = (
        z.new_empty(images * z.shape[1] * len(w)) for z, w in ((teacher_z, teacher_w), (student_z, student_w))
    )
    for chunk in (slice(start, start + images) for start in range(0, len(student_z), images)):
        omega = torch.block_diag(*pairs[chunk]).T.contiguous()  # [rows of the teacher, rows of the student]
        scaled_z = student_z[chunk].flatten(0, 1) / student_temp
        p, p_scale, p_entropy = softmax_over_prototypes(
            teacher_w, teacher_z[chunk].flatten(0, 1) / teacher_temp, offset, p_memory
        )
        g, q_scale, q_entropy = softmax_over_prototypes(student_w, scaled_z, None, g_memory)
        row_weight = omega.sum(dim=0)
        q_scale *= row_weight
        pulled = torch.zeros_like(scaled_z)  # W_s^T g
        for index, tile in enumerate(cut_prototypes(student_w)):
            g[tile].mul_(q_scale[index]).addmm_(p[tile], p_scale[index, :, None] * omega, alpha=-1)
            pulled.addmm_(g[tile].T, student_w[tile])
            # Written, not added, by the first chunk: zeros would be a pass of their own over K x D entries.
            grad_w[tile].addmm_(g[tile], scaled_z, beta=min(chunk.start, 1))
        loss += torch.dot(row_weight, q_entropy) + torch.dot(pulled.flatten(), scaled_z.flatten())
        entropy += p_entropy.sum()
        grad_z[chunk] = pulled.div_(student_temp).view_as(grad_z[chunk])
    return Sums(loss, grad_z, grad_w, entropy / teacher_z.shape[:2].numel())


def in_tiles(rows: torch.Tensor, method: Method) -> bool:
    """Returns whether prototypes are taken tile by tile: on a CPU, by code that is not compiled."""
    return rows.device.type == "cpu" and method.chunk is None and not torch.compiler.is_compiling()


class PrototypeCrossEntropy(torch.autograd.Function):
    """Sums pairs[b, i, j] * CE(p_bj, q_bi) over images b, student rows i and teacher rows j.

    Also returns the mean entropy of all p, if `needs_entropy`. Rows are ordered by image: student_z `[B, S, D]`,
    teacher_z `[B, T, D]`, pairs `[B, S, T]`, center `[K]`.
    """

    @staticmethod
    def forward(
        ctx,
        student_z,
        student_w,
        teacher_z,
        teacher_w,
        center,
        pairs,
        student_temp,
        teacher_temp,
        method,
        needs_entropy,
    ):
        with torch.autocast(student_z.device.type, enabled=False):
            offset = center / -teacher_temp
            if in_tiles(student_z, method):
                rows = Rows(student_z, student_w, teacher_z, teacher_w, offset, pairs)
                sums = sum_in_tiles(rows, student_temp, teacher_temp)
            else:
                scaled_student, scaled_teacher = student_z / student_temp, teacher_z / teacher_temp
                rows = Rows(scaled_student, student_w, scaled_teacher, teacher_w, offset, pairs)
                sums = sum_in_chunks(rows, needs_entropy, method)
                sums = sums._replace(grad_z=sums.grad_z.div_(student_temp))
        ctx.save_for_backward(sums.grad_z, sums.grad_w)
        ctx.mark_non_differentiable(sums.entropy)
        return sums.loss, sums.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _):
        grad_z, grad_w = ctx.saved_tensors
        # In place, because grad_w has K x D entries. Autograd notices, and refuses a second backward pass.
        return grad_z.mul_(grad_loss), grad_w.mul_(grad_loss), *[None] * 8
