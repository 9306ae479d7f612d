# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the chunked losses with their plain form, which makes all logits and takes every pair of views by itself."""

import math
from weakref import WeakSet

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_esvit import EsViTConfig, EsViTForPreTraining, cross_entropy
from modeling_esvit.cross_entropy import Method, PrototypeCrossEntropy, compute_chunk
from modeling_esvit.losses import (
    esvit_loss,
    make_crop_layout,
    match_regions,
    update_center,
)
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput


PROTOTYPES, BOTTLENECK, CHANNELS = 30, 6, 8
STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.05
LAYOUTS = {  # (crops, regions of each) a group
    "two sizes": [(2, 9), (8, 4)],
    "no local crops": [(2, 9)],
    "three sizes": [(2, 9), (2, 4), (3, 1)],
    "locals as large as globals": [(2, 9), (2, 9)],
    "locals larger than globals": [(2, 4), (1, 9)],
    "an empty group": [(2, 9), (0, 4), (3, 1)],
    "a last group that is empty": [(2, 9), (2, 4), (0, 4)],
}


def random_output(
    layout: list[tuple[int, int]], batch: int, seed: int, num_prototypes: int = PROTOTYPES
) -> EsViTForPreTrainingOutput:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    views = batch * sum(crops for crops, _ in layout)
    regions = batch * sum(crops * count for crops, count in layout)
    return EsViTForPreTrainingOutput(
        view_embeddings=F.normalize(normal(views, BOTTLENECK), dim=-1).requires_grad_(),
        view_prototypes=normal(num_prototypes, BOTTLENECK).requires_grad_(),
        region_features=normal(regions, CHANNELS).requires_grad_(),
        region_embeddings=F.normalize(normal(regions, BOTTLENECK), dim=-1).requires_grad_(),
        region_prototypes=normal(num_prototypes, BOTTLENECK).requires_grad_(),
    )


def random_case(layout: list[tuple[int, int]], batch: int = 2, num_prototypes: int = PROTOTYPES):
    """Returns student, teacher and centres."""
    student = random_output(layout, batch, 0, num_prototypes)
    teacher = random_output(layout[:1], batch, 1, num_prototypes)
    centers = torch.randn(2, num_prototypes, generator=torch.Generator().manual_seed(2)) / 10
    return student, teacher, {"view_center": centers[0], "region_center": centers[1]}


def chunked_loss(student, teacher, layout, centers, **options):
    return esvit_loss(
        student, teacher, layout, **centers, teacher_temp=TEACHER_TEMP, student_temp=STUDENT_TEMP, **options
    )


def log_student(output: EsViTForPreTrainingOutput, task: str) -> torch.Tensor:
    return F.log_softmax(output[f"{task}_embeddings"] @ output[f"{task}_prototypes"].T / STUDENT_TEMP, dim=-1)


def teacher_probabilities(output: EsViTForPreTrainingOutput, task: str, centers: dict[str, torch.Tensor]):
    logits = output[f"{task}_embeddings"] @ output[f"{task}_prototypes"].T
    return F.softmax((logits - centers[f"{task}_center"]) / TEACHER_TEMP, dim=-1).detach()


def plain_losses(student, teacher, layout, centers) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns view and region loss, over all pairs of a global teacher view and another student view (eq. 1, 2)."""
    batch = len(teacher.view_embeddings) // 2
    regions = [count for crops, count in layout for _ in range(crops)]
    rows = [batch * count for count in regions]
    q_view = log_student(student, "view").split(batch)
    p_view = teacher_probabilities(teacher, "view", centers).split(batch)
    q_region = log_student(student, "region").split(rows)
    p_region = teacher_probabilities(teacher, "region", centers).split(rows[:2])
    f_student, f_teacher = student.region_features.split(rows), teacher.region_features.split(rows[:2])
    views, matched = [], []
    for a in (0, 1):
        for v, count in enumerate(regions):
            if v == a:
                continue
            views.append(-(p_view[a] * q_view[v]).sum(dim=-1).mean())
            for image in range(batch):
                ours, theirs = (
                    slice(image * count, (image + 1) * count),
                    slice(image * regions[a], (image + 1) * regions[a]),
                )
                similarity = F.cosine_similarity(f_student[v][ours, None], f_teacher[a][None, theirs], dim=-1)
                target = p_region[a][theirs][similarity.argmax(dim=1)]
                matched.append(-(target * q_region[v][ours]).sum(dim=-1).mean())
    return torch.stack(views).mean(), torch.stack(matched).mean()


def to_double(output: EsViTForPreTrainingOutput) -> EsViTForPreTrainingOutput:
    return EsViTForPreTrainingOutput(
        **{key: value.detach().double().requires_grad_() for key, value in output.items() if value is not None}
    )


def assert_equals_plain_form(student, teacher, layout, centers, region_weight: float, **options) -> None:
    """Compares with the plain form in float64: losses to 1e-5, gradients to 1e-5 of their largest entry."""
    exact = to_double(student)
    view, region = plain_losses(exact, to_double(teacher), layout, {k: c.double() for k, c in centers.items()})
    expected = (1 - region_weight) * view + region_weight * region
    expected.backward()
    ours = chunked_loss(student, teacher, layout, centers, region_weight=region_weight, **options)
    ours.loss.backward()
    assert ours.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert ours.parts["view_loss"].item() == pytest.approx(view.item(), rel=1e-5)
    if region_weight:
        assert ours.parts["region_loss"].item() == pytest.approx(region.item(), rel=1e-5)
    else:
        assert ours.parts["region_loss"] == 0
    for key in student:
        expected_grad = exact[key].grad
        if expected_grad is None or not expected_grad.any():
            assert student[key].grad is None or not student[key].grad.any(), key
            continue
        atol = 1e-5 * expected_grad.abs().max().item() + 1e-7
        torch.testing.assert_close(student[key].grad.double(), expected_grad, rtol=0, atol=atol)


def random_places(layout: list[tuple[int, int]], batch: int) -> torch.Tensor:
    """Returns places of half of the regions; the second crop of the last image has none."""
    rows = [crops * count for crops, count in layout]
    places = torch.randint(
        -layout[0][1], layout[0][1], (batch, sum(rows), 2), generator=torch.Generator().manual_seed(3)
    )
    places[-1, layout[0][1] : 2 * layout[0][1]] = -1
    return places.clamp(min=-1)


def plain_location_loss(student, teacher, layout, centers, places: torch.Tensor) -> torch.Tensor:
    """Returns the region loss by location: a crop's pairs of regions at one place share its weight alike."""
    batch, regions = len(teacher.view_embeddings) // 2, [count for crops, count in layout for _ in range(crops)]
    q = log_student(student, "region").split([batch * count for count in regions])
    p = teacher_probabilities(teacher, "region", centers).split(batch * regions[0])
    loss = torch.zeros((), dtype=q[0].dtype)
    for image in range(batch):
        start = 0
        for crop, count in enumerate(regions):
            views = [view for view in (0, 1) if view != crop]
            terms = []
            for region in range(count):
                for view in views:
                    place = int(places[image, start + region, view])
                    if place >= 0:
                        target = p[view][image * regions[0] + place]
                        terms.append(-(target * q[crop][image * count + region]).sum())
            if terms:
                loss = loss + torch.stack(terms).mean() * len(views) / (2 * (len(regions) - 1) * batch)
            start += count
    return loss


@pytest.mark.parametrize("method", [Method(), Method(chunk=compute_chunk)], ids=["CPU", "accelerator"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_matches_by_location(layout, method):
    student, teacher, centers = random_case(layout, batch=3)
    places, exact = random_places(layout, 3), to_double(student)
    wide = {name: center.double() for name, center in centers.items()}
    expected = plain_location_loss(exact, to_double(teacher), layout, wide, places)
    expected.backward()
    ours = chunked_loss(student, teacher, layout, centers, region_weight=1.0, places=places, method=method)
    ours.loss.backward()
    assert ours.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for key in ("region_embeddings", "region_prototypes"):
        atol = 1e-5 * exact[key].grad.abs().max().item()
        torch.testing.assert_close(student[key].grad.double(), exact[key].grad, rtol=0, atol=atol)


def test_images_without_any_match_have_no_region_loss():
    layout = LAYOUTS["two sizes"]
    student, teacher, centers = random_case(layout)
    places = torch.full_like(random_places(layout, 2), -1)
    loss = chunked_loss(student, teacher, layout, centers, region_weight=1.0, places=places)
    loss.loss.backward()
    assert loss.loss == 0 and not student.region_embeddings.grad.any()


@pytest.mark.parametrize(("chunk_rows", "tile"), [(1, 7), (20, 30), (256, 4096)])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_equals_plain_form(layout, chunk_rows, tile, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CPU_CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(cross_entropy, "TILE", tile)
    student, teacher, centers = random_case(layout)
    assert_equals_plain_form(student, teacher, layout, centers, region_weight=0.5)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_whole_rows_equal_the_plain_form(layout):
    """As on other devices than a CPU, and compiled."""
    student, teacher, centers = random_case(layout)
    assert_equals_plain_form(student, teacher, layout, centers, region_weight=0.5, method=Method(chunk=compute_chunk))


@pytest.mark.parametrize("region_weight", [0.0, 0.3, 1.0])
def test_region_weight(region_weight):
    layout = LAYOUTS["two sizes"]
    student, teacher, centers = random_case(layout)
    assert_equals_plain_form(student, teacher, layout, centers, region_weight)


def test_batch_of_one_image():
    layout = LAYOUTS["three sizes"]
    student, teacher, centers = random_case(layout, batch=1)
    assert_equals_plain_form(student, teacher, layout, centers, region_weight=0.5)


def test_rectangular_crops_of_a_model():
    """Sends crops of three shapes, one of them odd, through real networks; gradients reach every parameter."""
    config = EsViTConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        drop_path_rate=0.0,
        num_prototypes=PROTOTYPES,
        head_hidden_size=16,
        head_bottleneck_size=BOTTLENECK,
        norm_last_layer=False,
    )
    torch.manual_seed(0)
    networks = EsViTForPreTraining(config), EsViTForPreTraining(config)
    groups = [torch.randn(4, 3, 40, 64), torch.randn(6, 3, 37, 21), torch.randn(2, 3, 24, 24)]
    layout = make_crop_layout(groups, 2, config.region_grid)
    assert layout == [(2, 5 * 8), (3, 5 * 3), (1, 3 * 3)]
    student, teacher = networks[0](groups), networks[1](groups[:1])
    assert len(student.region_features) == 2 * (2 * 40 + 3 * 15 + 9)
    centers = {"view_center": networks[1].view_center, "region_center": networks[1].region_center}
    view, region = plain_losses(student, teacher, layout, centers)
    loss = chunked_loss(student, teacher, layout, centers).loss
    assert loss.item() == pytest.approx((0.5 * view + 0.5 * region).item(), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in networks[0].parameters())


def test_gradient_is_scaled_by_what_follows():
    layout = LAYOUTS["two sizes"]
    once, teacher, centers = random_case(layout)
    thrice, _, _ = random_case(layout)
    chunked_loss(once, teacher, layout, centers).loss.backward()
    (3 * chunked_loss(thrice, teacher, layout, centers).loss).backward()
    for key in ("view_embeddings", "view_prototypes", "region_embeddings", "region_prototypes"):
        torch.testing.assert_close(thrice[key].grad, 3 * once[key].grad)


@pytest.mark.parametrize("method", [Method(), Method(chunk=compute_chunk)], ids=["tiles", "whole rows"])
def test_gradients_are_derivatives(method, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_ROWS", 8)
    monkeypatch.setattr(cross_entropy, "CPU_CHUNK_ROWS", 8)  # two images, then one
    monkeypatch.setattr(cross_entropy, "TILE", 3)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    teacher_z, teacher_w, center = normal(3, 2, 3), normal(7, 3), normal(7)
    pairs = normal(3, 4, 2).abs()

    def loss(student_z: torch.Tensor, student_w: torch.Tensor) -> torch.Tensor:
        return PrototypeCrossEntropy.apply(
            student_z, student_w, teacher_z, teacher_w, center, pairs, 0.5, 0.3, method, False
        )[0]

    inputs = normal(3, 4, 3).requires_grad_(), normal(7, 3).requires_grad_()
    value = 2.5 * loss(*inputs)
    gradients = torch.autograd.grad(value, inputs, retain_graph=True)
    for index, gradient in enumerate(gradients):
        direction = normal(*gradient.shape)
        step = [1e-6 * direction if index == other else torch.zeros(()) for other in (0, 1)]
        above, below = (
            2.5 * loss(*(x + sign * s for x, s in zip(inputs, step, strict=True))).item() for sign in (1, -1)
        )
        assert (gradient * direction).sum().item() == pytest.approx((above - below) / 2e-6, rel=1e-6)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(value, inputs)


def test_teacher_entropy():
    layout = LAYOUTS["two sizes"]
    student, teacher, centers = random_case(layout)
    p = teacher_probabilities(to_double(teacher), "view", centers)
    expected = -(p * p.log()).sum(dim=-1).mean()
    ours = chunked_loss(student, teacher, layout, centers).teacher_entropy
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5) and not ours.requires_grad
    uniform = {**centers, "view_center": (teacher.view_embeddings @ teacher.view_prototypes.T).detach()[0]}
    teacher.view_embeddings = teacher.view_embeddings[:1].expand(4, -1)
    ours = chunked_loss(student, teacher, layout, uniform).teacher_entropy
    assert ours.item() == pytest.approx(math.log(PROTOTYPES), rel=1e-5)


def test_matches_are_the_most_similar_of_the_same_image():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, count, CHANNELS, generator=generator) for count in (5, 7))
    # Lengths must not count, and a perfect match in another image must not either.
    teacher = teacher * torch.rand(3, 7, 1, generator=generator)
    teacher[1, 0] = student[0, 0]
    matches = match_regions(student, teacher)
    for image in range(3):
        similarity = F.cosine_similarity(student[image, :, None], teacher[image, None], dim=-1)
        assert torch.equal(matches[image], similarity.argmax(dim=1))


def test_matches_are_decided_in_float32_under_autocast():
    angles = torch.tensor([0.05, 0.04])  # cosines 0.99875 and 0.99920, one and the same in bfloat16
    student = torch.tensor([[[1.0, 0.0]]])
    teacher = torch.stack([angles.cos(), angles.sin()], dim=-1)[None]
    assert (student.bfloat16() @ teacher.bfloat16().transpose(1, 2)).argmax() == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert match_regions(student, teacher).item() == 1


def test_autocast_changes_nothing():
    layout = LAYOUTS["two sizes"]
    results = []
    for enabled in (False, True):
        student, teacher, centers = random_case(layout)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = chunked_loss(student, teacher, layout, centers).loss
            update_center(centers["view_center"], teacher.view_embeddings, teacher.view_prototypes)
        loss.backward()
        results.append((loss.detach(), student.region_prototypes.grad, centers["view_center"]))
    for plain, cast in zip(*results, strict=True):
        torch.testing.assert_close(cast, plain, rtol=0, atol=0)


class PeakMemory(TorchDispatchMode):
    """Measures the most bytes that tensors of the block held at once, and the elements of the largest of them."""

    def __init__(self):
        super().__init__()
        self.alive: WeakSet = WeakSet()
        self.peak = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.alive.add(tensor.untyped_storage())
                self.largest = max(self.largest, tensor.numel())
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.alive))
        return result


def test_memory_does_not_grow_with_rows_times_prototypes(monkeypatch):
    """Allows twice the bottleneck vectors for twice the images, but no further row of logits."""
    num_prototypes, layout = 4096, [(2, 9), (2, 4)]
    rows = 2 * 9 + 2 * 4  # of an image
    monkeypatch.setattr(cross_entropy, "CPU_CHUNK_ROWS", 2 * rows)
    peaks = []
    for batch in (4, 8):
        student, teacher, centers = random_case(layout, batch, num_prototypes)
        with PeakMemory() as memory:
            chunked_loss(student, teacher, layout, centers).loss.backward()
        assert memory.largest == 2 * rows * num_prototypes
        peaks.append(memory.peak)
    assert peaks[1] - peaks[0] < 4 * rows * num_prototypes * 4 / 20


def test_logits_far_apart_stay_finite(monkeypatch):
    """Makes one prototype so long that all others vanish against it."""
    monkeypatch.setattr(cross_entropy, "TILE", 10)
    layout = LAYOUTS["two sizes"]
    student, teacher, centers = random_case(layout)
    for output in (student, teacher):
        for task in ("view", "region"):
            with torch.no_grad():
                output[f"{task}_prototypes"][25] *= 300
    assert_equals_plain_form(student, teacher, layout, centers, region_weight=0.5)


def test_refuses_the_region_task_without_a_region_head():
    layout = LAYOUTS["two sizes"]
    student, teacher, centers = random_case(layout)
    student.region_embeddings = None
    with pytest.raises(ValueError, match="region_weight=0"):
        chunked_loss(student, teacher, layout, centers)


def test_refuses_an_empty_batch():
    student, teacher, centers = random_case(LAYOUTS["two sizes"])
    teacher.view_embeddings = teacher.view_embeddings[:0]
    with pytest.raises(ValueError, match="has no rows"):
        chunked_loss(student, teacher, LAYOUTS["two sizes"], centers)


@pytest.mark.parametrize("layout", [[], [(1, 9), (2, 4)]])
def test_refuses_a_layout_without_two_global_crops(layout):
    student, teacher, centers = random_case(LAYOUTS["two sizes"])
    with pytest.raises(ValueError, match="two global crops"):
        chunked_loss(student, teacher, layout, centers)


def update_center_on_rank(rank: int, store: str) -> None:
    """Plays one of two processes, with three and five rows: its centre must be that of all eight."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    generator = torch.Generator().manual_seed(0)
    rows, prototypes = torch.randn(8, 6, generator=generator), torch.randn(30, 6, generator=generator)
    center = torch.randn(30, generator=generator)
    expected = 0.9 * center + 0.1 * (rows @ prototypes.T).mean(dim=0)
    update_center(center, rows.split([3, 5])[rank], prototypes)
    torch.distributed.destroy_process_group()
    torch.testing.assert_close(center, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_center_of_two_processes(tmp_path):
    torch.multiprocessing.spawn(update_center_on_rank, args=(str(tmp_path / "store"),), nprocs=2)
