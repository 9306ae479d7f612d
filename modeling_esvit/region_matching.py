# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Region matching, the view loss and the region loss (arXiv 2106.09785, section 3.2, equations 1 and 2).

Both losses are cross-entropies of student rows against teacher rows over K prototypes. With s = W_s z_s / tau_s and
p = softmax((W_t z_t - c) / tau_t), and because p sums to one,

    - p . log_softmax(s) = logsumexp(s) - p . s,        p . s = (W_s^T p) . z_s / tau_s.

So a teacher row enters through m = W_s^T p alone, a vector of the bottleneck's size, and every (teacher, student) pair
costs one dot product. Rows of logits exist only chunk by chunk; gradients have closed forms and are formed in the same
pass, so that nothing of size rows x K is ever stored.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .modeling_esvit import EsViTForPreTrainingOutput


CHUNK_ROWS = 256  # rows of logits that exist at a time: 64 MiB of float32 at 65536 prototypes


class LossInputError(ValueError):
    """Outputs, layout and task that do not belong together."""


@dataclass
class EsViTLoss:
    """
    loss: scalar with gradient. view_loss, region_loss: its two parts, detached, before weighting (region_loss is None
    for the view task). teacher_entropy: mean entropy of the teacher's view distributions, in nats; ln K means uniform.
    """

    loss: torch.Tensor
    view_loss: torch.Tensor
    region_loss: torch.Tensor | None
    teacher_entropy: torch.Tensor


def row_chunks(rows: torch.Tensor) -> list[slice]:
    return [slice(start, start + CHUNK_ROWS) for start in range(0, len(rows), CHUNK_ROWS)]


class PrototypeCrossEntropy(torch.autograd.Function):
    """
    Sum over student rows i and their targets j of weight_ij * CE(p_j, softmax(s_i)), and the mean entropy of all p_j.

    Gradients, with w_i = sum_j weight_ij, q_i = softmax(s_i) and A_j = sum_i weight_ij z_i:
    dz_i = (w_i q_i W_s - sum_j weight_ij m_j) / tau_s;   dW_s = (Q^T diag(w) Z - P^T A) / tau_s.
    """

    @staticmethod
    def forward(ctx, student_z, student_w, teacher_z, teacher_w, center, targets, weights, student_temp, teacher_temp):
        with torch.autocast(student_z.device.type, enabled=False):
            row_weight = weights.sum(dim=1)
            assigned = torch.zeros_like(teacher_z)  # A
            for column in range(targets.shape[1]):
                assigned.index_add_(0, targets[:, column], student_z * weights[:, column, None])
            grad_w = torch.zeros_like(student_w)
            matched = torch.empty_like(teacher_z)  # m
            entropy = teacher_z.new_zeros(())
            for chunk in row_chunks(teacher_z):
                log_p = torch.addmm(-center, teacher_z[chunk], teacher_w.T).div_(teacher_temp).log_softmax(dim=-1)
                p = log_p.exp()
                entropy -= torch.dot(p.flatten(), log_p.flatten())
                matched[chunk] = p @ student_w
                grad_w.addmm_(p.T, assigned[chunk], alpha=-1 / student_temp)
            pull = (matched[targets] * weights[..., None]).sum(dim=1)  # sum_j weight_ij m_j
            loss = -(pull * student_z).sum() / student_temp
            grad_z = pull.div_(-student_temp)
            for chunk in row_chunks(student_z):
                z, w = student_z[chunk], row_weight[chunk]
                logits = (z @ student_w.T).div_(student_temp)
                log_norm = logits.logsumexp(dim=-1)
                loss += (w * log_norm).sum()
                q = logits.sub_(log_norm[:, None]).exp_().mul_(w[:, None])
                grad_z[chunk].addmm_(q, student_w, alpha=1 / student_temp)
                grad_w.addmm_(q.T, z, alpha=1 / student_temp)
        ctx.save_for_backward(grad_z, grad_w)
        entropy = entropy / len(teacher_z)
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _):
        grad_z, grad_w = ctx.saved_tensors
        return grad_z * grad_loss, grad_w * grad_loss, None, None, None, None, None, None, None


def match_regions(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """
    For each student region the most similar (cosine) teacher region of the same image, j*(i) of equation 2: features
    `[B, T_s, C]` and `[B, T_t, C]` -> indices `[B, T_s]`. In float32 even under autocast: half precision would decide
    close matches by rounding.
    """
    with torch.no_grad(), torch.autocast(student_features.device.type, enabled=False):
        student = F.normalize(student_features.to(torch.promote_types(student_features.dtype, torch.float32)), dim=-1)
        teacher = F.normalize(teacher_features.to(student.dtype), dim=-1)
        return (student @ teacher.transpose(1, 2)).argmax(dim=-1)


def view_targets(num_crops: int, batch: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Teacher rows `[num_crops * batch, 2]` that each student view is compared with, and these pairs' weights: a view
    meets both global views of its image, but not itself. The weights of all pairs add up to one; they have the type and
    the device of `like`.
    """
    image = torch.arange(batch, device=like.device).repeat(num_crops)
    targets = torch.stack([image, image + batch], dim=1)
    weights = like.new_full((num_crops, batch, 2), 1.0 / (2 * (num_crops - 1) * batch))
    for view in (0, 1):
        weights[view, :, view] = 0.0
    return targets, weights.flatten(0, 1)


def region_targets(
    student_features: torch.Tensor,
    teacher_features: torch.Tensor,
    layout: list[tuple[int, int]],
    batch: int,
    like: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    As [`view_targets`], for regions: each student region's best match in each global view of the same image.

    Args:
        student_features: `[sum of crops * batch * T, C]`, crop group after crop group.
        teacher_features: `[2 * batch * T_0, C]`.
        layout: crops and regions per crop of each group; group 0 holds the two global crops.
        like: a tensor of the type and on the device that the weights shall have.
    """
    num_crops = sum(crops for crops, _ in layout)
    num_regions = layout[0][1]
    views = teacher_features.view(2, batch, num_regions, -1)
    first_row = torch.arange(2 * batch, device=teacher_features.device).view(2, 1, batch, 1) * num_regions
    targets, weights = [], []
    for group, (crops, regions) in zip(
        student_features.split([crops * batch * regions for crops, regions in layout]), layout, strict=True
    ):
        by_image = group.view(crops, batch, regions, -1).transpose(0, 1).flatten(1, 2)  # [B, crops * T, C]
        matches = torch.stack([match_regions(by_image, view) for view in views])
        rows = matches.view(2, batch, crops, regions).transpose(1, 2) + first_row  # [2, crops, B, T]
        targets.append(rows.flatten(1).T)
        weights.append(like.new_full((crops, batch, regions, 2), 1.0 / (2 * (num_crops - 1) * batch * regions)))
    for view in (0, 1):
        weights[0][view, :, :, view] = 0.0
    return torch.cat(targets), torch.cat([weight.flatten(0, 2) for weight in weights])


def crop_layout(groups: list[torch.Tensor], batch: int, region_grid) -> list[tuple[int, int]]:
    """Crops, and regions per crop, of each group `[crops * batch, 3, h, w]`; `region_grid` as in [`EsViTConfig`]."""
    layout = []
    for group in groups:
        rows, columns = region_grid(*group.shape[-2:])
        layout.append((group.shape[0] // batch, rows * columns))
    return layout


def esvit_loss(
    student: EsViTForPreTrainingOutput,
    teacher: EsViTForPreTrainingOutput,
    layout: list[tuple[int, int]],
    *,
    view_center: torch.Tensor,
    region_center: torch.Tensor | None = None,
    teacher_temp: float,
    student_temp: float = 0.1,
    region_weight: float = 0.5,
) -> EsViTLoss:
    """
    (1 - region_weight) * view loss + region_weight * region loss, averaged over the 2 (n - 1) pairs of a global teacher
    view and another student view. The original's weights are 0.5 and 0.5; `region_weight=0` is the view task.

    Args:
        student: output for all n crops, in the groups that `layout` describes.
        teacher: output for the two global crops.
        layout: see [`crop_layout`]. Any number of groups, and crops of any shape.
        view_center, region_center: centres c of the teacher's logits `[K]`.
        teacher_temp, student_temp: temperatures tau_t and tau_s.

    Raises:
        LossInputError: the region task without region embeddings; a layout that does not begin with two global crops.
    """
    if not layout or layout[0][0] != 2:
        raise LossInputError(
            f"The first group must hold the two global crops, got the layout (crops, regions) {layout}."
        )
    batch = len(teacher.view_embeddings) // 2
    num_crops = sum(crops for crops, _ in layout)

    def cross_entropy(task: str, center: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor]):
        factors = [output[f"{task}_{name}"] for output in (student, teacher) for name in ("embeddings", "prototypes")]
        return PrototypeCrossEntropy.apply(*factors, center, *pairs, student_temp, teacher_temp)

    view_loss, entropy = cross_entropy("view", view_center, view_targets(num_crops, batch, view_center))
    if not region_weight:
        return EsViTLoss(view_loss, view_loss.detach(), None, entropy)
    if student.region_embeddings is None or region_center is None:
        raise LossInputError(
            f"region_weight is {region_weight}, but the model has no region head; use region_weight=0."
        )
    pairs = region_targets(student.region_features, teacher.region_features, layout, batch, region_center)
    region_loss, _ = cross_entropy("region", region_center, pairs)
    loss = (1 - region_weight) * view_loss + region_weight * region_loss
    return EsViTLoss(loss, view_loss.detach(), region_loss.detach(), entropy)


@torch.no_grad()
def update_center(
    center: torch.Tensor, teacher_z: torch.Tensor, teacher_w: torch.Tensor, momentum: float = 0.9
) -> None:
    """
    c <- momentum c + (1 - momentum) * mean of the teacher's logits over all rows of all processes, in place. The mean
    of W_t z_t is W_t times the mean of z_t, so that only a bottleneck vector and a count are reduced.
    """
    total = torch.cat([teacher_z.sum(dim=0), teacher_z.new_full((1,), len(teacher_z))])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    with torch.autocast(center.device.type, enabled=False):
        center.mul_(momentum).add_(teacher_w @ (total[:-1] / total[-1]), alpha=1 - momentum)


__all__ = ["EsViTLoss", "LossInputError", "crop_layout", "esvit_loss", "match_regions", "update_center"]
