# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the two ways of computing the cross-entropies, tile by tile and by whole rows, in several types."""

import pytest
import torch

from modeling_esvit import cross_entropy
from modeling_esvit.cross_entropy import Method, PrototypeCrossEntropy, compute_chunk


IMAGES, STUDENT_ROWS, TEACHER_ROWS, WIDTH, PROTOTYPES = 5, 6, 4, 16, 50
WHOLE_ROWS = Method(chunk=compute_chunk)


def draw_inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Draws student and teacher rows of unit length, prototypes, the centre and the pairs."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    student_z, teacher_z = normal(IMAGES, STUDENT_ROWS, WIDTH), normal(IMAGES, TEACHER_ROWS, WIDTH)
    student_w, teacher_w = normal(PROTOTYPES, WIDTH), normal(PROTOTYPES, WIDTH)
    rows = [torch.nn.functional.normalize(x, dim=-1) for x in (student_z, student_w, teacher_z, teacher_w)]
    pairs = torch.rand(IMAGES, STUDENT_ROWS, TEACHER_ROWS, generator=generator, dtype=dtype) / 100
    return [*rows, normal(PROTOTYPES) / 10, pairs]


def compute(method: Method, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Returns loss, entropy, and the gradients for the student's rows and prototypes."""
    student_z, student_w, *others = draw_inputs(dtype)
    leaves = student_z.requires_grad_(), student_w.requires_grad_()
    loss, entropy = PrototypeCrossEntropy.apply(*leaves, *others, 0.1, 0.04, method, True)
    loss.backward()
    return [loss.detach(), entropy, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("rows", [6, 12, 30])  # one image at a time; two, the last chunk filled up; all
def test_whole_rows_equal_tiles(rows, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_ROWS", rows)
    torch.testing.assert_close(
        compute(WHOLE_ROWS, torch.float64), compute(Method(), torch.float64), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(compute(WHOLE_ROWS), compute(Method()), rtol=1e-4, atol=1e-6)


def test_products_of_half_precision_are_summed_in_float32():
    half = compute(Method(chunk=compute_chunk, product_type=torch.bfloat16))
    exact = compute(Method())
    assert {result.dtype for result in half} == {torch.float32}
    assert not torch.equal(half[0], exact[0])
    for result, expected in zip(half, exact, strict=True):
        assert (result - expected).norm() < 0.01 * expected.norm()


def test_chunks_have_one_size(monkeypatch):
    """A compiler makes one form of a chunk."""
    monkeypatch.setattr(cross_entropy, "CHUNK_ROWS", 3 * STUDENT_ROWS)
    sizes = set()

    def count_images(rows, needs_entropy):
        sizes.add(len(rows.student_z))
        return compute_chunk(rows, needs_entropy)

    compute(Method(chunk=count_images))
    assert sizes == {3}
