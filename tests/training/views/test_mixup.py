# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Mixup and CutMix: draws, pixels, the loss against its plain form, and training steps."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from modeling_esvit.losses import LossInputError, esvit_loss
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput
from tests.helpers.tiny_runs import read_losses, tiny, train, write_images
from training.views.draw import CropBox, make_keyed_generator
from training.views.mixup import Mixing, draw_mixing, draw_mixings, mix


# -- draws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixup, cutmix, share_of_cutmix", [(0.8, 1.0, 0.5), (0.8, 0.0, 0.0), (0.0, 1.0, 1.0)])
def test_draws(mixup, cutmix, share_of_cutmix):
    drawn = [draw_mixing(make_keyed_generator(0, 0, p), (60, 40), mixup, cutmix) for p in range(3000)]
    boxes = [mixing for mixing in drawn if mixing.box is not None]
    shares = [mixing.share for mixing in drawn if mixing.box is None]
    assert stats.binomtest(len(boxes), len(drawn), share_of_cutmix).pvalue > 1e-3
    if shares:
        assert stats.kstest(shares, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    for share, (top, left, height, width) in boxes:
        assert 0 <= top <= top + height <= 60 and 0 <= left <= left + width <= 40
        assert share == 1 - height * width / 2400
    if boxes:  # uncut boxes have the area of a uniform share, those at the border less
        inside = [b.share for b in boxes if b.box.top > 0 and b.box.left > 0]
        assert min(inside) < 0.5 < np.mean([mixing.share for mixing in boxes]) < 0.8


def test_draws_are_a_function_of_the_key():
    groups = [torch.zeros(8, 3, 8, 8), torch.zeros(4, 3, 6, 6)]
    key = {"seed": 1, "epoch": 2, "position": 3, "mixup": 0.8, "cutmix": 1.0}
    drawn = draw_mixings(groups, 4, **key)
    assert drawn == draw_mixings(groups, 4, **key) and len(drawn) == 3 and len(set(drawn)) == 3
    for name in ("seed", "epoch", "position"):
        assert draw_mixings(groups, 4, **{**key, name: 9}) != drawn


# -- pixels ------------------------------------------------------------------------------------------------------------


def test_pixels():
    groups = [torch.randn(8, 3, 6, 6), torch.randn(4, 3, 4, 4)]
    before = [group.clone() for group in groups]
    box = CropBox(1, 2, 3, 2)
    mixed, shares = mix(groups, [Mixing(0.7, None), Mixing(5 / 6, box), Mixing(1.0, None)], 4)
    assert all(torch.equal(group, old) for group, old in zip(groups, before, strict=True))  # the teacher sees them
    torch.testing.assert_close(mixed[0][1], 0.7 * groups[0][1] + 0.3 * groups[0][2])
    expected = groups[0][4].clone()
    expected[:, 1:4, 2:4] = groups[0][7][:, 1:4, 2:4]
    assert torch.equal(mixed[0][4], expected)
    assert torch.equal(mixed[1], groups[1])
    torch.testing.assert_close(shares, torch.tensor([0.7, 5 / 6, 1.0]))


# -- loss --------------------------------------------------------------------------------------------------------------


LAYOUT, BATCH, K = [(2, 1), (3, 1)], 4, 12


def random_output(rows: int, seed: int) -> EsViTForPreTrainingOutput:
    generator = torch.Generator().manual_seed(seed)
    z, w = (torch.randn(number, 5, generator=generator, dtype=torch.float64) for number in (rows, K))
    return EsViTForPreTrainingOutput(
        view_embeddings=F.normalize(z, dim=-1).requires_grad_(), view_prototypes=w.requires_grad_(), region_features=z
    )


def test_the_loss_equals_its_plain_form():
    student, teacher = random_output(5 * BATCH, 0), random_output(2 * BATCH, 1)
    mixing = torch.tensor([0.9, 0.2, 1.0, 0.0, 0.6], dtype=torch.float64)
    center = torch.randn(K, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 10
    options = {"view_center": center, "teacher_temp": 0.05, "region_weight": 0.0}
    loss = esvit_loss(student, teacher, LAYOUT, **options, mixing=mixing).loss
    gradients = torch.autograd.grad(loss, [student.view_embeddings, student.view_prototypes])

    log_q = F.log_softmax(student.view_embeddings @ student.view_prototypes.T / 0.1, dim=-1).view(5, BATCH, K)
    p = F.softmax((teacher.view_embeddings @ teacher.view_prototypes.T - center) / 0.05, dim=-1).detach()
    targets = [torch.eye(BATCH) * share + torch.eye(BATCH).flip(0) * (1 - share) for share in mixing]
    plain = sum(
        -(targets[v] * (p.view(2, BATCH, K)[a] @ log_q[v].T)).sum(dim=1).mean()
        for a in range(2)
        for v in range(5)
        if v != a
    )
    expected = plain / 8
    torch.testing.assert_close(loss, expected)
    plain_gradients = torch.autograd.grad(expected, [student.view_embeddings, student.view_prototypes])
    torch.testing.assert_close(gradients, plain_gradients)
    whole = esvit_loss(student, teacher, LAYOUT, **options, mixing=torch.ones(5)).loss
    torch.testing.assert_close(whole, esvit_loss(student, teacher, LAYOUT, **options).loss)


@pytest.mark.parametrize("batch, region_weight", [(4, 0.5), (3, 0.0)])
def test_refusals(batch, region_weight):
    outputs = random_output(5 * batch, 0), random_output(2 * batch, 1)
    options = {"view_center": torch.zeros(K), "teacher_temp": 0.05, "region_weight": region_weight}
    with pytest.raises(LossInputError, match=f"mixing needs .* {region_weight} and {batch} images"):
        esvit_loss(*outputs, LAYOUT, **options, mixing=torch.ones(5))


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_mixed_views_continues_exactly(tmp_path):
    images = write_images(tmp_path / "images")

    def run(name: str, changes: str) -> list[float]:
        train(tiny(images, tmp_path / name, f"--task view --epochs 1 {changes}"))
        return read_losses(tmp_path / name)

    mixed = "--mixup 0.8 --cutmix 1"
    whole = run("whole", mixed)
    run("parts", f"{mixed} --max_steps 2")
    assert run("parts", mixed) == whole
    plain = run("plain", "")
    assert len(plain) == 3 and all(a != b for a, b in zip(plain, whole, strict=True))
