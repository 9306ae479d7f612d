# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`modeling_esvit.embed.compiling`: when a model is compiled, for which batches, what is said, and that features agree.

Where the decision is tested, seconds are given and the graph is run as it is; the last tests compile for real.
"""

from functools import partial

import pytest
import torch
from torch._inductor import config as inductor

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed import compiling
from modeling_esvit.embed.compiling import (
    BatchForward,
    CompileError,
    Forecast,
    choose_compiler_options,
    estimate_gain,
)
from modeling_esvit.embed.embedder import compute_features
from tests.helpers.commands import run_program
from tests.helpers.tiny_models import CVT, RESNET, VIL, VIT, auto_config, small_config


FAMILIES = {
    "swin": small_config(),
    "vit": EsViTConfig(**VIT),
    "cvt": EsViTConfig(**CVT),
    "vil": EsViTConfig(**VIL),
    "auto": auto_config(RESNET, image_size=32),
}
TOLERANCE = 2e-6  # of features compiled and eager, in float32, beside the largest feature


def make_forward(mode: str, family: str = "vit") -> BatchForward:
    torch.manual_seed(0)
    model = EsViTModel(FAMILIES[family]).eval()
    return BatchForward(model, partial(compute_features, model, True), mode)


@pytest.fixture
def graphs(monkeypatch) -> list[tuple[int, ...]]:
    """Runs compiled graphs as they are; returns the shape of the pixels of each graph."""
    made: list[tuple[int, ...]] = []

    def backend(graph, inputs):
        made.append(next(tuple(each.shape) for each in inputs if each.ndim == 4 and each.shape[1] == 3))
        return graph

    compile_for = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic, options: compile_for(function, dynamic=dynamic, backend=backend)
    )
    return made


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(compiling, "announce", said.append)
    return said


def give_seconds(monkeypatch, eager: float, compiled: float) -> None:
    """Makes every batch take these seconds."""

    def time_call(function, pixels):
        return function(pixels), eager if isinstance(function, partial) else compiled

    monkeypatch.setattr(compiling, "time_call", time_call)
    monkeypatch.setattr(compiling, "estimate_seconds", lambda model: 100.0)
    monkeypatch.setattr(compiling, "estimate_gain", lambda device, dtype: 2.0)


def compute(forward: BatchForward, sizes: list[int], side: int = 32) -> None:
    """Computes batches, and checks each against the eager model."""
    for size in sizes:
        pixels = torch.randn(size, 3, side, side)
        with torch.no_grad():
            expected = forward.compute(pixels)
        for found, each in zip(forward(pixels), expected, strict=True):
            assert not found.requires_grad
            torch.testing.assert_close(found, each, atol=TOLERANCE * each.abs().max().item(), rtol=0)


def test_few_images_do_not_repay_it(graphs, lines, monkeypatch):
    give_seconds(monkeypatch, eager=1, compiled=0.5)  # saves 1/8 s an image: repaid after 800 of them
    forward = make_forward("auto")
    for images in (812, 20):  # the second time, nothing more is said
        forward.expect(images, 4)
        compute(forward, [4] * 5)
    assert graphs == []
    assert lines == [
        "Does not compile: the 800 images that are left are too few to repay about 100 s, which takes about 800."
    ]


def test_after_the_last_image_there_is_nothing_to_decide(graphs, lines, monkeypatch):
    give_seconds(monkeypatch, eager=1, compiled=0.5)
    forward = make_forward("auto")
    forward.expect(11, 4)
    compute(forward, [4, 4, 3])
    assert graphs == [] and lines == []


def test_many_images_repay_it(graphs, lines, monkeypatch):
    give_seconds(monkeypatch, eager=1, compiled=0.5)
    forward = make_forward("auto")
    forward.expect(1_200_000, 4)
    compute(forward, [4] * 3)
    assert graphs == []
    compute(forward, [4] * 5)
    assert lines == [
        "Compiles the model: about 100 s, repaid after about 800 of 1,199,988 images that are left.",
        "Compiled the model in 0 s.",
    ]
    assert forward.run is forward.compiled
    forward.expect(20, 4)  # fewer images go on with what is there
    compute(forward, [4])
    assert graphs == [(4, 3, 32, 32)]


def test_a_graph_is_made_for_one_shape(graphs, lines):
    """A last, smaller batch is filled up or computed eagerly, as are images of another size."""
    forward = make_forward("on")
    compute(forward, [3])  # nothing was announced
    assert graphs == []
    forward.expect(100, 4)
    compute(forward, [3, 4, 2, 1, 4, 5])
    compute(forward, [4], side=48)
    assert graphs == [(4, 3, 32, 32)] and lines == []


def test_a_compiled_model_that_is_slower_is_left(graphs, lines, monkeypatch):
    give_seconds(monkeypatch, eager=1, compiled=1.25)
    forward = make_forward("auto")
    forward.expect(10_000, 4)
    compute(forward, [4] * 8)
    assert lines[-1] == "Goes on without compiling: a batch takes 1.25 s compiled and 1 s as it is."
    forward.expect(10_000, 4)
    compute(forward, [4] * 4)
    assert len(graphs) == 1 and len(lines) == 3


def test_a_model_that_cannot_be_compiled(lines, monkeypatch):
    give_seconds(monkeypatch, eager=1, compiled=0.5)

    def fail(function, **options):
        def raise_error(pixels):
            raise RuntimeError("No working C++ compiler found\nand so on")

        return raise_error

    monkeypatch.setattr(torch, "compile", fail)
    forward = make_forward("auto")
    forward.expect(10_000, 4)
    compute(forward, [4] * 6)
    assert lines[1:] == ["Does not compile: EsViTModel cannot be compiled here: No working C++ compiler found."]
    forward = make_forward("on")
    forward.expect(10_000, 4)
    with pytest.raises(CompileError, match="EsViTModel cannot be compiled here: No .* found. Leave out --compile on"):
        compute(forward, [4])


def test_a_forecast_says_what_it_weighs():
    assert Forecast(seconds=90, saved=0.0225, images=1_200_000).describe() == (
        "Compiles the model: about 90 s, repaid after about 4,000 of 1,200,000 images that are left."
    )
    assert not Forecast(seconds=90, saved=0.0225, images=300).is_repaid
    nothing = Forecast(seconds=90, saved=0.0, images=1_200_000)
    assert not nothing.is_repaid and nothing.describe().startswith("Does not compile: on this CPU")


@pytest.mark.parametrize(
    ("instruction", "dtype", "gain"),
    [("amx_bf16", torch.bfloat16, 1.22), ("amx_bf16", torch.float32, 1.12), ("avx512_bf16", torch.bfloat16, 1.0)],
)
def test_only_cpus_with_amx_gain_by_freezing(monkeypatch, instruction, dtype, gain):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    device = torch.device("cpu")
    assert estimate_gain(device, dtype) == gain
    assert choose_compiler_options(device) == ({"freezing": True} if instruction == "amx_bf16" else None)
    assert choose_compiler_options(torch.device("cuda")) is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_and_frozen_features_agree(family, dtype, lines, monkeypatch):
    """In float32 to TOLERANCE of the largest feature; in bfloat16, which has 8 bits, to 3%."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "has_amx", lambda: True)
    forward = make_forward("on", family)
    forward.model.to(dtype)
    forward.expect(100, 4)
    pixels = torch.randn(4, 3, 32, 32, dtype=dtype)
    with torch.no_grad():
        expected = forward.compute(pixels)
    limit = TOLERANCE if dtype is torch.float32 else 0.03
    for batch in (pixels, pixels[:3]):
        for found, each in zip(forward(batch), expected, strict=True):
            torch.testing.assert_close(found, each[: len(batch)], atol=limit * each.abs().max().item(), rtol=0)
    assert forward.run is forward.compiled and not inductor.freezing


SCRIPT = """
import torch
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed import compiling
from modeling_esvit.embed.embedder import compute_features
from functools import partial
from tests.helpers.tiny_models import VIT

compiling.estimate_seconds = lambda model: 0.0
model = EsViTModel(EsViTConfig(**VIT)).eval()
forward = compiling.BatchForward(model, partial(compute_features, model, True), "auto")
forward.expect(10_000, 4)
for _ in range(5):
    view, regions = forward(torch.randn(4, 3, 32, 32))
print(tuple(view.shape))
"""


@pytest.mark.slow
def test_without_a_compiler_it_goes_on_eagerly(tmp_path):
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = run_program(["python", "-c", SCRIPT], CXX="no-such-compiler", **cache)
    assert "Does not compile: EsViTModel cannot be compiled here: " in done.stderr
    assert "no-such-compiler" in done.stderr and "Traceback" not in done.stderr
    assert "(4, 16)" in done.stdout
