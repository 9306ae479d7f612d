# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the view loss and the region loss, with the region matching (arXiv 2106.09785, section 3.2, equations 1, 2).

Both are sums of cross-entropies over K prototypes, which `cross_entropy.py` computes from the bottleneck vectors.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .cross_entropy import DEFAULT_METHOD, Method, PrototypeCrossEntropy
from .errors import EsViTError
from .matmul_precision import exact_float32
from .model_outputs import EsViTForPreTrainingOutput


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


def match_regions(student_features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
    """Finds the most similar (cosine) teacher region of the same image for each student region, j*(i) of equation 2.

    Features `[B, T_s, C]` and `[B, T_t, C]` give indices `[B, T_s]`. Computes in float32 even under autocast: half
    precision would decide close matches by rounding.
    """
    with torch.no_grad(), torch.autocast(student_features.device.type, enabled=False), exact_float32():
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


def match_by_feature(
    student: EsViTForPreTrainingOutput, teacher: EsViTForPreTrainingOutput, layout: list[tuple[int, int]], batch: int
) -> torch.Tensor:
    """Returns the most similar region of each global view for each student region: `[B, S, 2]`."""
    features = order_by_image(student.region_features.detach(), layout, batch)
    views = order_by_image(teacher.region_features, layout[:1], batch).chunk(2, dim=1)
    return torch.stack([match_regions(features, view) for view in views], dim=-1)


def pair_regions(matches: torch.Tensor, weights: torch.Tensor, regions: int) -> torch.Tensor:
    """Gives each student region its weights with its matches in the two global views, and no weight with others.

    Args:
        matches: `[B, S, 2]`, any region where there is none; changed in place.
        weights: `[B, S, 2]`, 0 without a match.
        regions: T, of a global view.

    Returns: `[B, S, 2 T]`.
    """
    matches[..., 1] += regions
    pairs = weights.new_zeros(*matches.shape[:2], 2 * regions)
    return pairs.scatter_(2, matches, weights)


def weigh_matched(weights: torch.Tensor, matched: torch.Tensor, layout: list[tuple[int, int]]) -> torch.Tensor:
    """Drops pairs without a match, and scales the others of the same crop up to its full weight.

    A crop none of whose regions has a match does not count. It depends on nothing but the image, so that batches may
    be split in any way.

    Args:
        weights: `[S, 2]` of [`weigh_pairs`].
        matched: `[B, S, 2]`, whether a student region has a match in each global view.
    """
    rows, scaled = [crops * count for crops, count in layout], []
    for full, own, (crops, count) in zip(weights.split(rows), matched.split(rows, dim=1), layout, strict=True):
        full = full.view(crops, count, 2)
        kept = full * own.unflatten(1, (crops, count))  # [B, crops, count, 2]
        total = kept.sum(dim=(2, 3), keepdim=True)
        factor = torch.where(total > 0, full.sum(dim=(1, 2)).view(-1, 1, 1) / total, 0)
        scaled.append((kept * factor).flatten(1, 2))
    return torch.cat(scaled, dim=1)


def choose_pairs(
    student: EsViTForPreTrainingOutput,
    teacher: EsViTForPreTrainingOutput,
    layout: list[tuple[int, int]],
    batch: int,
    places: torch.Tensor | None,
    like: torch.Tensor,
) -> torch.Tensor:
    """Returns the weights `[B, S, 2 T]` of all pairs of regions, by their `places`, or by feature if these are None."""
    weights, regions = weigh_pairs(layout, batch, like), layout[0][1]
    if places is None:
        matches = match_by_feature(student, teacher, layout, batch)
        return pair_regions(matches, weights.expand(batch, -1, -1), regions)
    return pair_regions(places.clamp(min=0), weigh_matched(weights, places >= 0, layout), regions)


def make_crop_layout(groups: list[torch.Tensor], batch: int, region_grid) -> list[tuple[int, int]]:
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
    places: torch.Tensor | None = None,
    method: Method = DEFAULT_METHOD,
) -> EsViTLoss:
    """Computes (1 - region_weight) * view loss + region_weight * region loss.

    Both are averaged over the 2 (n - 1) pairs of a teacher's global view and a different view of the student. The
    original's weights are 0.5 and 0.5; `region_weight=0` is the view task.

    Args:
        student: Output for all n crops, in the groups that `layout` describes.
        teacher: Output for the two global crops.
        layout: See [`make_crop_layout`]. Any number of groups, of any number of crops, of any shape.
        view_center, region_center: Centres c of the teacher's logits, `[K]`.
        teacher_temp, student_temp: Temperatures tau_t and tau_s.
        mixing: For mixup, the coefficient lambda `[n]` of each crop, in which image i is mixed with image B - 1 - i.
            Only for the view task and an even batch.
        places: The regions of the two global views at the place of each region of the student's crops of an image,
            `[B, S, 2]`, -1 where a view does not show it: then these are the matches. None: the most similar ones are,
            as published.
        method: How the cross-entropies are computed; by default as suits the device, in float32.

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
        ours = (student_z, student[f"{task}_prototypes"])
        targets = (teacher_z, teacher[f"{task}_prototypes"])
        how = (student_temp, teacher_temp, method, task == "view")
        return PrototypeCrossEntropy.apply(*ours, *targets, center, pairs, *how)

    views = [(crops, 1) for crops, _ in layout]
    view_loss, entropy = cross_entropy("view", views, view_center, pair_views(views, batch, mixing, view_center))
    loss = (1 - region_weight) * view_loss
    parts = {"view_loss": view_loss.detach(), "region_loss": view_loss.new_zeros(())}
    if region_weight:
        if student.region_embeddings is None or region_center is None:
            raise LossInputError(
                f"region_weight is {region_weight}, but the model has no region head; use region_weight=0."
            )
        pairs = choose_pairs(student, teacher, layout, batch, places, region_center)
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
        with torch.autocast(self.center.device.type, enabled=False), exact_float32():
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


__all__ = [
    "CenterUpdate",
    "EsViTLoss",
    "LossInputError",
    "esvit_loss",
    "make_crop_layout",
    "match_regions",
    "update_center",
]
