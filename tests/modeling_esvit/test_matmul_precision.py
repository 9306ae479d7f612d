# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that what must be exact is computed in float32, whatever precision the program allows."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_esvit.losses import CenterUpdate, match_regions
from modeling_esvit.matmul_precision import exact_float32
from training.evaluation.knn import Neighbours


PRODUCTS = {"mm", "bmm", "addmm", "addmv_", "addmv", "mv"}


class Precisions(TorchDispatchMode):
    """Collects, as a context, the precision that is allowed at each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in PRODUCTS:
            self.found.append(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def allow_less():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def compare_neighbours():
    Neighbours(torch.randn(3, 4), k=2).add_chunk(torch.randn(5, 4), 0)


def update_a_center():
    CenterUpdate(torch.zeros(7)).add(torch.randn(5, 4), torch.randn(7, 4))


@pytest.mark.parametrize(
    "compute",
    [lambda: match_regions(torch.randn(2, 3, 4), torch.randn(2, 5, 4)), update_a_center, compare_neighbours],
    ids=["matching", "centres", "k-NN"],
)
def test_products_are_exact(compute):
    with Precisions() as precisions:
        compute()
    assert precisions.found == ["highest"]
    assert torch.get_float32_matmul_precision() == "medium"


def test_an_error_restores_the_precision():
    with pytest.raises(KeyError), exact_float32():
        raise KeyError
    assert torch.get_float32_matmul_precision() == "medium"
