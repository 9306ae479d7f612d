# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the view loss and the region loss, with the region matching (arXiv 2106.09785, section 3.2, equations 1, 2).

Both losses are cross-entropies of student rows against teacher rows over K prototypes. With s_i = W_s z_i / tau_s,
q_i = softmax(s_i), p_j = softmax((W_t z_j - c) / tau_t), the weights omega_ij of all pairs of one image and their row
sums w_i, and because every p sums to one,

    loss = sum_ij omega_ij CE(p_j, q_i),      g_i = d loss / d s_i = w_i q_i - sum_j omega_ij p_j,
    loss = sum_i w_i H(q_i) + sum_i g_i . s_i,      dz_i = W_s^T g_i / tau_s,      dW_s = sum_i g_i z_i^T / tau_s.

All pairs of a row meet in one matrix product of omega and p, whatever the number of crops. Probabilities of a few
images exist at a time, as `[K, rows]`: that way round the matrix products with K of tens of thousands are fastest.
Gradients are formed in the same pass, so that nothing of size (all rows) x K is ever stored.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .errors import EsViTError
from .modeling_esvit import EsViTForPreTrainingOutput


# Student rows whose probabilities exist at a time, if one image has not more: 64 or 256 MiB at K = 65536.
CPU_CHUNK_ROWS, CHUNK_ROWS = 256, 1024
TILE = 4096  # prototypes that are worked on at a time on a CPU, so that the passes over them stay in its cache


class LossInputError(EsViTError, ValueError):
    """Raised when outputs, layout and task do not belong together."""


@dataclass
class EsViTLoss:
    """Holds the losses of one batch, all 0-dim and in nats.

    Attributes:
        loss: The weighted sum of the parts, with gradient.
        parts: The losses by name, detached and before weighting: "view_loss" and "region_loss", which is 0 for the view
            task.
        teacher_entropy: Mean entropy of the teacher's view distributions; ln K means uniform. The view loss is this
            entropy plus the mean KL divergence of the student's distributions from the teacher's.
    """

    loss: torch.Tensor
    parts: dict[str, torch.Tensor]
    teacher_entropy: torch.Tensor

    def values(self) -> dict[str, torch.Tensor]:
        """Returns every value by its name in the log, without gradient."""
        return {"loss": self.loss.detach(), **self.parts, "teacher_entropy": self.teacher_entropy}


def prototype_tiles(weight: torch.Tensor) -> list[slice]:
    """Cuts the K prototypes into parts that fit into a CPU's cache; other devices take them whole."""
    step = TILE if weight.device.type == "cpu" else len(weight)
    return [slice(start, start + step) for start in range(0, len(weight), step)]


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
    for tile in prototype_tiles(weight):
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


class PrototypeCrossEntropy(torch.autograd.Function):
    """Sums pairs[b, i, j] * CE(p_bj, q_bi) over images b, student rows i and teacher rows j.

    Also returns the mean entropy of all p. Rows are ordered by image: student_z `[B, S, D]`, teacher_z `[B, T, D]`,
    pairs `[B, S, T]`, center `[K]`.
    """

    @staticmethod
    def forward(ctx, student_z, student_w, teacher_z, teacher_w, center, pairs, student_temp, teacher_temp):
        with torch.autocast(student_z.device.type, enabled=False):
            offset = center / -teacher_temp
            grad_z, grad_w = torch.empty_like(student_z), torch.empty_like(student_w)
            loss, entropy = student_z.new_zeros(()), student_z.new_zeros(())
            rows = CPU_CHUNK_ROWS if student_z.device.type == "cpu" else CHUNK_ROWS
            images = min(max(1, rows // student_z.shape[1]), len(student_z))
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
                for index, tile in enumerate(prototype_tiles(student_w)):
                    g[tile].mul_(q_scale[index]).addmm_(p[tile], p_scale[index, :, None] * omega, alpha=-1)
                    pulled.addmm_(g[tile].T, student_w[tile])
                    # Written, not added, by the first chunk: zeros would be a pass of their own over K x D entries.
                    grad_w[tile].addmm_(g[tile], scaled_z, beta=min(chunk.start, 1))
                loss += torch.dot(row_weight, q_entropy) + torch.dot(pulled.flatten(), scaled_z.flatten())
                entropy += p_entropy.sum()
                grad_z[chunk] = pulled.div_(student_temp).view_as(grad_z[chunk])
        ctx.save_for_backward(grad_z, grad_w)
        entropy = entropy / teacher_z.shape[:2].numel()
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _):
        grad_z, grad_w = ctx.saved_tensors
        # In place, because grad_w has K x D entries. Autograd notices, and refuses a second backward pass.
        return grad_z.mul_(grad_loss), grad_w.mul_(grad_loss), None, None, None, None, None, None


def match_regions(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """Finds the most similar (cosine) teacher region of the same image for each student region, j*(i) of equation 2.

    Features `[B, T_s, C]` and `[B, T_t, C]` give indices `[B, T_s]`. Computes in float32 even under autocast: half
    precision would decide close matches by rounding.
    """
    with torch.no_grad(), torch.autocast(student_features.device.type, enabled=False):
        student = F.normalize(student_features.to(torch.promote_types(student_features.dtype, torch.float32)), dim=-1)
        teacher = F.normalize(teacher_features.to(student.dtype), dim=-1)
        return (student @ teacher.transpose(1, 2)).argmax(dim=-1)


def order_by_image(rows: torch.Tensor, layout: list[tuple[int, int]], batch: int) -> torch.Tensor:
    """Orders rows by image: `[sum of crops * batch * rows of a crop, C]`, group by group, becomes `[batch, S, C]`."""
    groups = rows.split([crops * batch * count for crops, count in layout])
    return torch.cat(
        [
            group.view(crops, batch, count, rows.shape[1]).transpose(0, 1).flatten(1, 2)
            for group, (crops, count) in zip(groups, layout, strict=True)
        ],
        dim=1,
    )


def weigh_pairs(layout: list[tuple[int, int]], batch: int, like: torch.Tensor) -> torch.Tensor:
    """Returns the weight `[S, 2]` of each student row of an image, paired with each of the two global teacher views.

    A view is not compared with itself. The weights of a batch add up to one. Type and device are those of `like`.
    """
    num_crops = sum(crops for crops, _ in layout)
    weights = torch.cat(
        [
            like.new_full((crops * count, 2), 1.0 / (2 * (num_crops - 1) * batch * count))
            for crops, count in layout
            if crops
        ]
    )
    count = layout[0][1]
    for view in (0, 1):
        weights[view * count : (view + 1) * count, view] = 0.0
    return weights


def join_mixed_pairs(rows: torch.Tensor) -> torch.Tensor:
    """Joins the rows of image i and of image B - 1 - i: `[B, S, D]` becomes `[B / 2, 2 S, D]`."""
    first, second = rows.chunk(2)
    return torch.cat([first, second.flip(0)], dim=1)


def mix_weights(weights: torch.Tensor, mixing: torch.Tensor) -> torch.Tensor:
    """Shares the weights of a mixed view between the targets of its two images.

    The weights `[S, 2]` of [`weigh_pairs`] and the shares `[S]` give `[2 S, 4]`.
    """
    share = mixing.to(weights.dtype)[:, None]
    own, other = weights * share, weights * (1 - share)
    return torch.cat([torch.cat([own, other], dim=1), torch.cat([other, own], dim=1)])


def pair_views(
    layout: list[tuple[int, int]], batch: int, mixing: torch.Tensor | None, like: torch.Tensor
) -> torch.Tensor:
    """Returns the weights `[S, 2]` of [`weigh_pairs`] for each image, or for each two that are mixed: `[B, S, 2]`."""
    weights = weigh_pairs(layout, batch, like)
    if mixing is None:
        return weights.expand(batch, -1, -1)
    return mix_weights(weights, mixing).expand(batch // 2, -1, -1)


def pair_regions(
    student: EsViTForPreTrainingOutput,
    teacher: EsViTForPreTrainingOutput,
    layout: list[tuple[int, int]],
    batch: int,
    like: torch.Tensor,
) -> torch.Tensor:
    """Gives the weight of each student region to its best match in each of the two global views of the same image.

    Returns: `[B, S, 2 T]`, for S regions of the student's crops of an image and T regions of a global view.
    """
    student_features = order_by_image(student.region_features.detach(), layout, batch)
    views = order_by_image(teacher.region_features, layout[:1], batch).chunk(2, dim=1)
    matches = torch.stack([match_regions(student_features, view) for view in views], dim=-1)  # [B, S, 2]
    regions = views[0].shape[1]
    matches[..., 1] += regions
    weights = weigh_pairs(layout, batch, like)
    pairs = weights.new_zeros(*student_features.shape[:2], 2 * regions)
    return pairs.scatter_(2, matches, weights.expand(batch, -1, -1))


def crop_layout(groups: list[torch.Tensor], batch: int, region_grid) -> list[tuple[int, int]]:
    """Returns (crops, regions of a crop) for each group of images `[crops * batch, 3, h, w]`.

    A group may hold no crops. `region_grid` is that of [`EsViTConfig`].
    """
    layout = []
    for group in groups:
        rows, columns = region_grid(*group.shape[-2:])
        layout.append((group.shape[0] // batch, rows * columns))
    return layout


def check_loss_inputs(
    layout: list[tuple[int, int]], batch: int, region_weight: float, mixing: torch.Tensor | None
) -> None:
    """Checks the arguments of [`esvit_loss`].

    Raises:
        LossInputError: They do not belong together.
    """
    if not layout or layout[0][0] != 2:
        raise LossInputError(
            f"The first group must hold the two global crops, got the layout (crops, regions) {layout}."
        )
    if not batch:
        raise LossInputError("The teacher's output has no rows, so there are no images to average over.")
    if mixing is not None and (region_weight or batch % 2):
        raise LossInputError(
            f"mixing needs region_weight=0 and an even batch; they are {region_weight} and {batch} images."
        )


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
    mixing: torch.Tensor | None = None,
) -> EsViTLoss:
    """Computes (1 - region_weight) * view loss + region_weight * region loss.

    Both are averaged over the 2 (n - 1) pairs of a global teacher view and another student view. The original's weights
    are 0.5 and 0.5; `region_weight=0` is the view task.

    Args:
        student: Output for all n crops, in the groups that `layout` describes.
        teacher: Output for the two global crops.
        layout: See [`crop_layout`]. Any number of groups, of any number of crops, of any shape.
        view_center, region_center: Centres c of the teacher's logits, `[K]`.
        teacher_temp, student_temp: Temperatures tau_t and tau_s.
        mixing: For mixup, the share `[n]` of image i in the student's crop of it; the rest is of image B - 1 - i. Only
            for the view task and an even batch.

    Raises:
        LossInputError: The region task without region embeddings or with mixing; mixing of an odd batch; a layout that
            does not begin with two global crops; an empty batch.
    """
    batch = len(teacher.view_embeddings) // 2
    check_loss_inputs(layout, batch, region_weight, mixing)

    def cross_entropy(task: str, rows: list[tuple[int, int]], center: torch.Tensor, pairs: torch.Tensor):
        student_z = order_by_image(student[f"{task}_embeddings"], rows, batch)
        teacher_z = order_by_image(teacher[f"{task}_embeddings"], rows[:1], batch)
        if mixing is not None:
            student_z, teacher_z = join_mixed_pairs(student_z), join_mixed_pairs(teacher_z)
        prototypes = (student[f"{task}_prototypes"], teacher[f"{task}_prototypes"])
        return PrototypeCrossEntropy.apply(
            student_z, prototypes[0], teacher_z, prototypes[1], center, pairs, student_temp, teacher_temp
        )

    views = [(crops, 1) for crops, _ in layout]
    view_loss, entropy = cross_entropy("view", views, view_center, pair_views(views, batch, mixing, view_center))
    loss = (1 - region_weight) * view_loss
    parts = {"view_loss": view_loss.detach(), "region_loss": view_loss.new_zeros(())}
    if region_weight:
        if student.region_embeddings is None or region_center is None:
            raise LossInputError(
                f"region_weight is {region_weight}, but the model has no region head; use region_weight=0."
            )
        pairs = pair_regions(student, teacher, layout, batch, region_center)
        region_loss, _ = cross_entropy("region", layout, region_center, pairs)
        loss = loss + region_weight * region_loss
        parts["region_loss"] = region_loss.detach()
    return EsViTLoss(loss, parts, entropy)


class CenterUpdate:
    """Updates a centre once a step: c <- momentum c + (1 - momentum) * mean of the teacher's logits.

    The mean is over all rows of all processes: `add` the rows of each batch, `start` the sum over processes, do other
    work, and `finish`. The sum of W_t z_t is W_t times the sum of z_t, so no logits are formed.
    """

    def __init__(self, center: torch.Tensor, momentum: float = 0.9):
        self.center, self.momentum = center, momentum
        self.total = center.new_zeros(len(center) + 1)  # logits, and the number of rows
        self.work: torch.distributed.Work | None = None

    @torch.no_grad()
    def add(self, teacher_z: torch.Tensor, teacher_w: torch.Tensor) -> None:
        """Adds rows `[R, D]`, with the prototypes `[K, D]`."""
        with torch.autocast(self.center.device.type, enabled=False):
            self.total[:-1].addmv_(teacher_w, teacher_z.sum(dim=0))
        self.total[-1:].add_(len(teacher_z))

    def start(self) -> None:
        """Starts the sum over processes, without waiting for it."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.work = torch.distributed.all_reduce(self.total, async_op=True)

    def finish(self, skip: torch.Tensor | None = None) -> None:
        """Moves the centre. It stays as it is if `skip` (0-dim, on the device) is not zero, whatever the rows were."""
        if self.work is not None:
            self.work.wait()
        updated = self.center.lerp(self.total[:-1] / self.total[-1], 1 - self.momentum)
        self.center.copy_(updated if skip is None else torch.where(skip > 0, self.center, updated))


def update_center(
    center: torch.Tensor, teacher_z: torch.Tensor, teacher_w: torch.Tensor, momentum: float = 0.9
) -> None:
    """Updates a centre with the rows of one batch, see [`CenterUpdate`]."""
    update = CenterUpdate(center, momentum)
    update.add(teacher_z, teacher_w)
    update.start()
    update.finish()


__all__ = ["CenterUpdate", "EsViTLoss", "LossInputError", "crop_layout", "esvit_loss", "match_regions", "update_center"]
