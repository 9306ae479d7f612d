# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks operations on a device: neutral draws change nothing, and views of a batch do not depend on each other."""

from dataclasses import replace

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.views.draw import CropBox, CropParameters, Jitter, ViewKey, ViewOptions, draw_views
from training.views.on_device import augment, make_statistics, pack_parameters
from training.views.pixels import IMAGENET_MEAN, IMAGENET_STD, write_views


OPTIONS = ViewOptions(global_crop_size=32, local_crop_sizes=(16,), local_crops_numbers=(3,))
STATISTICS = make_statistics("cpu")


def test_views_of_a_batch_do_not_depend_on_each_other(image):
    drawn = [draw_views(ViewKey(0, 0, position), image.size, OPTIONS)[1] for position in range(8)]
    views = torch.empty(8, 3, 32, 32, dtype=torch.uint8)
    for crop, slot in zip(drawn, views, strict=True):
        write_views(image, image.size, [crop], [slot])
    rows = pack_parameters(drawn)
    together = augment(views, rows, STATISTICS)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(augment(views[order], rows[order], STATISTICS), together[order], rtol=0, atol=1e-5)


def test_neutral_draws_change_nothing_and_each_operation_its_own_view():
    plain = CropParameters((4, 4), CropBox(0, 0, 4, 4), False, (), False, 0.0, False)
    changes = [{}, {"grayscale": True}, {"solarize": True}, {"jitter": ((Jitter.BRIGHTNESS, 0.5),)}]
    rows = pack_parameters([replace(plain, **change) for change in changes])
    assert rows.shape == (4, 11)
    colour = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 4, 4)
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels = (augment(colour, rows, STATISTICS) * std + mean)[:, :, 2, 2]
    expected = [[200, 100, 50], [124, 124, 124], [55, 100, 50], [100, 50, 25]]
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float32))


class HostCopies(TorchDispatchMode):
    """Counts the operations, as a context, that move a tensor of the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs, outputs = (
            {leaf.device.type for leaf in tree_leaves(each) if isinstance(leaf, torch.Tensor)}
            for each in ((args, kwargs), result)
        )
        self.count += "cpu" in inputs and "cuda" in outputs
        return result


def test_nothing_is_copied_from_the_host():
    """Runs on tensors of a GPU that have no values; each copy from pageable memory would let the host wait."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        views = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device="cuda")
        rows, statistics = torch.empty(8, 11, device="cuda"), torch.empty(2, 3, 1, 1, device="cuda")
        with HostCopies() as copies:
            augment(views, rows, statistics)
            assert copies.count == 0
            views.float() - torch.empty(3, 1, 1).to("cuda")
        assert copies.count == 1
