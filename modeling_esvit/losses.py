# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Region matching, the view loss and the region loss (arXiv 2106.09785, section 3.2, equations 1 and 2).

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
    """Outputs, layout and task that do not belong together."""


@dataclass
class EsViTLoss:
    """loss: scalar with gradient. view_loss, region_loss: its two parts, detached, before weighting (region_loss is None
    for the view task). teacher_entropy: mean entropy of the teacher's view distributions, in nats; ln K means uniform.
    The view loss is it and the mean KL divergence of the student's distributions from the teacher's.
    """

    loss: torch.Tensor
    view_loss: torch.Tensor
    region_loss: torch.Tensor | None
    teacher_entropy: torch.Tensor


def prototype_tiles(weight: torch.Tensor) -> list[slice]:
    """The K prototypes in parts that fit into a CPU's cache; other devices take them whole."""
    step = TILE if weight.device.type == "cpu" else len(weight)
    return [slice(start, start + step) for start in range(0, len(weight), step)]


def softmax_over_prototypes(
    weight: torch.Tensor, scaled_z: torch.Tensor, offset: torch.Tensor | None, memory: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The softmax over prototypes of `weight @ scaled_z.T + offset[:, None]`, for prototypes `[K, D]` and rows `[R, D]`.

    Each tile of prototypes is shifted by its own peak, so that no second look at the logits is needed.

    Returns: `[K, R]` of exponentials, in `memory` (K x R elements or more); `[tiles, R]`, what each tile is to be
    multiplied with; the entropies `[R]`.
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
    """Sum over images b, student rows i and teacher rows j of pairs[b, i, j] * CE(p_bj, q_bi), and the mean entropy of all
    p. Rows are ordered by image: student_z `[B, S, D]`, teacher_z `[B, T, D]`, pairs `[B, S, T]`, center `[K]`.
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
    """For each student region the most similar (cosine) teacher region of the same image, j*(i) of equation 2: features
    `[B, T_s, C]` and `[B, T_t, C]` -> indices `[B, T_s]`. In float32 even under autocast: half precision would decide
    close matches by rounding.
    """
    with torch.no_grad(), torch.autocast(student_features.device.type, enabled=False):
        student = F.normalize(student_features.to(torch.promote_types(student_features.dtype, torch.float32)), dim=-1)
        teacher = F.normalize(teacher_features.to(student.dtype), dim=-1)
        return (student @ teacher.transpose(1, 2)).argmax(dim=-1)


def by_image(rows: torch.Tensor, layout: list[tuple[int, int]], batch: int) -> torch.Tensor:
    """Rows `[sum of crops * batch * rows of a crop, C]`, crop group after crop group, to `[batch, S, C]`."""
    groups = rows.split([crops * batch * count for crops, count in layout])
    return torch.cat(
        [
            group.view(crops, batch, count, -1).transpose(0, 1).flatten(1, 2)
            for group, (crops, count) in zip(groups, layout, strict=True)
        ],
        dim=1,
    )


def pair_weights(layout: list[tuple[int, int]], batch: int, like: torch.Tensor) -> torch.Tensor:
    """Weight of the pair of each student row of an image and each of the two global teacher views: `[S, 2]`. A view is not
    compared with itself. All pairs of a batch add up to one. The type and the device are those of `like`.
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


def by_mixed_pair(rows: torch.Tensor) -> torch.Tensor:
    """Rows by image `[B, S, D]` to `[B / 2, 2 S, D]`: those of image i, then those of image B - 1 - i."""
    first, second = rows.chunk(2)
    return torch.cat([first, second.flip(0)], dim=1)


def mixed_weights(weights: torch.Tensor, mixing: torch.Tensor) -> torch.Tensor:
    """`[S, 2]` of [`pair_weights`] and shares `[S]` to `[2 S, 4]`: a mixed view has targets of both its images."""
    share = mixing.to(weights.dtype)[:, None]
    own, other = weights * share, weights * (1 - share)
    return torch.cat([torch.cat([own, other], dim=1), torch.cat([other, own], dim=1)])


def view_pairs(weights: torch.Tensor, batch: int, mixing: torch.Tensor | None) -> torch.Tensor:
    """`[S, 2]` of [`pair_weights`] for each image, or for each two images that are mixed: `[B, S, 2]`."""
    if mixing is None:
        return weights.expand(batch, -1, -1)
    return mixed_weights(weights, mixing).expand(batch // 2, -1, -1)


def region_pairs(student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each student region's weight goes to its best match in each of the two global views of the same image.

    Args:
        student, teacher: features by image, `[B, S, C]` and `[B, 2 T, C]`.
        weights: see [`pair_weights`].

    Returns: `[B, S, 2 T]`.
    """
    views = teacher.chunk(2, dim=1)
    matches = torch.stack([match_regions(student, view) for view in views], dim=-1)  # [B, S, 2]
    matches[..., 1] += views[0].shape[1]
    pairs = weights.new_zeros(*student.shape[:2], teacher.shape[1])
    return pairs.scatter_(2, matches, weights.expand(len(student), -1, -1))


def crop_layout(groups: list[torch.Tensor], batch: int, region_grid) -> list[tuple[int, int]]:
    """Crops, and regions per crop, of each group `[crops * batch, 3, h, w]`; `region_grid` as in [`EsViTConfig`]."""
    layout = []
    for group in groups:
        rows, columns = region_grid(*group.shape[-2:])
        layout.append((group.shape[0] // batch, rows * columns))
    return layout


def check_loss_inputs(
    layout: list[tuple[int, int]], batch: int, region_weight: float, mixing: torch.Tensor | None
) -> None:
    """Raises:
    LossInputError: see [`esvit_loss`].
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
    """(1 - region_weight) * view loss + region_weight * region loss, averaged over the 2 (n - 1) pairs of a global teacher
    view and another student view. The original's weights are 0.5 and 0.5; `region_weight=0` is the view task.

    Args:
        student: output for all n crops, in the groups that `layout` describes.
        teacher: output for the two global crops.
        layout: see [`crop_layout`]. Any number of groups, and crops of any shape.
        view_center, region_center: centres c of the teacher's logits `[K]`.
        teacher_temp, student_temp: temperatures tau_t and tau_s.
        mixing: for mixup, the share `[n]` of image i in the student's crop of it; the rest is of image B - 1 - i. Only
            for the view task and an even batch.

    Raises:
        LossInputError: the region task without region embeddings or with mixing; mixing of an odd batch; a layout that
            does not begin with two global crops; an empty batch.
    """
    batch = len(teacher.view_embeddings) // 2
    check_loss_inputs(layout, batch, region_weight, mixing)

    def cross_entropy(task: str, rows: list[tuple[int, int]], center: torch.Tensor, pairs: torch.Tensor):
        student_z = by_image(student[f"{task}_embeddings"], rows, batch)
        teacher_z = by_image(teacher[f"{task}_embeddings"], rows[:1], batch)
        if mixing is not None:
            student_z, teacher_z = by_mixed_pair(student_z), by_mixed_pair(teacher_z)
        prototypes = (student[f"{task}_prototypes"], teacher[f"{task}_prototypes"])
        return PrototypeCrossEntropy.apply(
            student_z, prototypes[0], teacher_z, prototypes[1], center, pairs, student_temp, teacher_temp
        )

    views = [(crops, 1) for crops, _ in layout]
    pairs = view_pairs(pair_weights(views, batch, view_center), batch, mixing)
    view_loss, entropy = cross_entropy("view", views, view_center, pairs)
    if not region_weight:
        return EsViTLoss(view_loss, view_loss.detach(), None, entropy)
    if student.region_embeddings is None or region_center is None:
        raise LossInputError(
            f"region_weight is {region_weight}, but the model has no region head; use region_weight=0."
        )
    pairs = region_pairs(
        by_image(student.region_features.detach(), layout, batch),
        by_image(teacher.region_features, layout[:1], batch),
        pair_weights(layout, batch, region_center),
    )
    region_loss, _ = cross_entropy("region", layout, region_center, pairs)
    loss = (1 - region_weight) * view_loss + region_weight * region_loss
    return EsViTLoss(loss, view_loss.detach(), region_loss.detach(), entropy)


class CenterUpdate:
    """c <- momentum c + (1 - momentum) * mean of the teacher's logits over all rows of all processes, once a step: `add`
    the rows of each batch, `start` the sum over processes, do other work, `finish`. The sum of W_t z_t is W_t times the
    sum of z_t, so that no logits are formed.
    """

    def __init__(self, center: torch.Tensor, momentum: float = 0.9):
        self.center, self.momentum = center, momentum
        self.total = center.new_zeros(len(center) + 1)  # logits, and the number of rows
        self.work: torch.distributed.Work | None = None

    @torch.no_grad()
    def add(self, teacher_z: torch.Tensor, teacher_w: torch.Tensor) -> None:
        """Rows `[R, D]` and prototypes `[K, D]`."""
        with torch.autocast(self.center.device.type, enabled=False):
            self.total[:-1].addmv_(teacher_w, teacher_z.sum(dim=0))
        self.total[-1:].add_(len(teacher_z))

    def start(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.work = torch.distributed.all_reduce(self.total, async_op=True)

    def finish(self, skip: torch.Tensor | None = None) -> None:
        """With `skip` (0-dim, on the device) not zero, the centre stays as it is, whatever the rows were."""
        if self.work is not None:
            self.work.wait()
        updated = self.center.lerp(self.total[:-1] / self.total[-1], 1 - self.momentum)
        self.center.copy_(updated if skip is None else torch.where(skip > 0, self.center, updated))


def update_center(
    center: torch.Tensor, teacher_z: torch.Tensor, teacher_w: torch.Tensor, momentum: float = 0.9
) -> None:
    """[`CenterUpdate`] with the rows of one batch, at once."""
    update = CenterUpdate(center, momentum)
    update.add(teacher_z, teacher_w)
    update.start()
    update.finish()


__all__ = ["CenterUpdate", "EsViTLoss", "LossInputError", "crop_layout", "esvit_loss", "match_regions", "update_center"]
