# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The plain references of the benchmarks compute what we compute, and the tables are made from what was measured."""

import importlib
import json
import re

import pytest
import torch

import tests.benchmarks.bench_architectures as bench_architectures
import tests.benchmarks.bench_loss as bench_loss
import tests.benchmarks.bench_step as bench_step
import tests.benchmarks.count_step as count_step
import tests.benchmarks.harness as harness
import tests.benchmarks.report as report
from tests.helpers.commands import type_arguments


SMALL = {
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "num_prototypes": 64,
    "head_hidden_size": 16,
    "head_bottleneck_size": 8,
    "drop_path_rate": 0.0,
}


@pytest.mark.parametrize("compared", [{}, {"gradient_checkpointing": True}, {"attn_implementation": "eager"}])
def test_the_reference_step_equals_ours(compared, monkeypatch):
    check_step(monkeypatch, sizes=(64, 40), **SMALL, **compared)


def test_the_reference_step_of_a_vil_equals_ours(monkeypatch):
    """Sparse attention is the dense form of it."""
    small = {"architecture": "vil-tiny", "image_size": 64, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    check_step(monkeypatch, sizes=(64, 32), **{**SMALL, **small})


RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def test_the_reference_step_of_other_architectures_equals_ours(monkeypatch, tmp_path):
    vit = {"architecture": "deit-tiny", "depths": [2], "num_heads": [2]}
    check_step(monkeypatch, sizes=(64, 32), **{**SMALL, **vit})
    four = {
        "architecture": "cvt-tiny",
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
        "stage_dims": [8, 16, 24, 32],
    }
    check_step(monkeypatch, sizes=(64, 40), **{**SMALL, **four})
    file = tmp_path / "resnet.json"
    file.write_text(json.dumps(RESNET))
    heads = {name: value for name, value in SMALL.items() if name.startswith(("num_prototypes", "head"))}
    check_step(monkeypatch, sizes=(64, 32), architecture="auto", backbone=str(file), **heads)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("swin-tiny", {"embed_dim": 8, "num_heads": [1, 1, 2, 2]}),
        ("cvt-tiny", {"embed_dim": 8, "stage_dims": [8, 16, 24, 32], "num_heads": [1, 2, 2, 4]}),
        ("vil-tiny", {"embed_dim": 8, "num_heads": [1, 1, 2, 2], "image_size": 64}),
        ("deit-small", {"embed_dim": 8, "num_heads": [2]}),
        pytest.param("resnet-50", {}, marks=pytest.mark.slow),
    ],
)
def test_the_plain_forms_of_backbones_equal_ours(name, small):
    """Their regions of both sizes, in training, and the gradients."""
    torch.manual_seed(0)
    model = bench_architectures.build(name, **small)
    module, form = bench_architectures.plain_form(model)
    groups = bench_step.random_groups(2, (64, 32), bench_architectures.NUMBERS)
    ours, plain = model.esvit(groups).last_hidden_state[0], [form(group).flatten(0, 1) for group in groups]
    torch.testing.assert_close(ours, torch.cat(plain), rtol=1e-3, atol=1e-4)
    norms = []
    for parameters, output in ((model.esvit.parameters(), ours), (module.parameters(), torch.cat(plain))):
        gradients = torch.autograd.grad(output.sin().sum(), list(parameters), allow_unused=True)
        norms.append(torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm())
    torch.testing.assert_close(*norms, rtol=1e-3, atol=1e-4)


def check_step(monkeypatch, **options) -> None:
    # Clipping, decay and a moving average that show: with a recipe's own values they change less than the limit.
    strong = {"clip_grad": 1e-3, "weight_decay": 1.0, "lr": 1e-3, "momentum_teacher": 0.9}
    monkeypatch.setattr(bench_step, "SCHEDULES", {**bench_step.SCHEDULES, **strong})
    differences = bench_step.largest_difference(2, steps=3, numbers=(2, 3), **options)
    assert differences["loss"] < 1e-5 and differences["teacher"] < 1e-5 and differences["student"] < 1e-4


def test_the_plain_loss_equals_ours():
    ours, plain = (setup(2, 300)() for setup in (bench_loss.our_loss, bench_loss.plain_loss))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("bench_step", "--repeats 0", "argument --repeats: '0' is not a positive number"),
        ("count_step", "--batch 0", "argument --batch: '0' is not a positive number"),
        ("bench_checkpoint", "--step_seconds -1", "argument --step_seconds: '-1' is not a positive number"),
        ("count_step", "--recipe nonsense", "error: .*nonsense"),
        ("bench_vil", "--batch -1", "--batch -1 is no number of images"),
        pytest.param("bench_step", "--architecture swin-tyni", "error: .*swin-tyni", marks=pytest.mark.slow),
        pytest.param("bench_architectures", "swin-tyni", "error: .*swin-tyni", marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_refuses_bad_arguments_in_a_line(program, words, message, monkeypatch, capfd):
    type_arguments(monkeypatch, f"tests/benchmarks/{program}.py", *words.split())
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"tests.benchmarks.{program}").main()
    said = f"{ended.value.code}\n{capfd.readouterr().err}"
    assert re.search(message, said) and "Traceback" not in said


def test_figures_of_other_settings_do_not_take_the_place_of_those_that_lie_there(tmp_path):
    first = harness.write_json("step", {"batch": 4, "sizes": [64, 32]}, {"rows": [1]}, tmp_path)
    again = harness.write_json("step", {"batch": 4, "sizes": [64, 32], "threads": None}, {"rows": [2]}, tmp_path)
    other = harness.write_json("step", {"batch": 1, "sizes": [64, 32]}, {"rows": [3]}, tmp_path)
    assert first == again == tmp_path / "step.json" and other == tmp_path / "other" / "step.json"
    saved = [json.loads(path.read_text()) for path in (first, other)]
    assert [(each["batch"], each["rows"]) for each in saved] == [(4, [2]), (1, [3])]


def test_counts_of_a_recipe_of_ones_own_lie_beside_the_others():
    recipes = ("swin_tiny_w7", "vil_tiny_region", "/home/ada/mine.yaml")
    named = [count_step.name_result(recipe) for recipe in recipes]
    assert named == ["count_step", "count_step_vil_tiny_region", "count_step_mine"]


def test_a_title_of_the_report_is_that_of_its_figures(monkeypatch, tmp_path):
    saved = json.loads((report.RESULTS / "inference.json").read_text())
    (tmp_path / "inference.json").write_text(json.dumps(saved | {"size": 448, "batch": 1}))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert report.section("inference").startswith("## Feature extraction, Swin-T W7, 448 px, batch 1\n")
    assert report.section("step") == "## step\n\nNot measured."


def test_every_saved_figure_has_a_title():
    titles = {
        name: report.make_title(name, json.loads(path.read_text()))
        for name in report.SECTIONS
        if (path := report.RESULTS / f"{name}.json").exists()
    }
    assert len(titles) > 30 and not [title for title in titles.values() if "{" in title]
    assert titles["step_amx"] == "On a CPU with AMX: pretraining step, Swin-T W7, 2 x 224 + 8 x 96 px"


def test_the_page_is_made_from_the_notes_and_the_figures():
    """But for those with pictures, which are drawn anew with each table."""
    page, notes = ((report.FOLDER / name).read_text() for name in ("RESULTS.md", "NOTES.md"))
    assert page.startswith(notes.rstrip())
    named = [name for name in report.SECTIONS if not name.startswith("growth")]
    assert len(named) > 25 and not [name for name in named if report.section(name) not in page]


def test_the_counts_of_a_step_stand_in_a_table():
    section = report.section("count_step")
    saved = json.loads((report.RESULTS / "count_step.json").read_text())
    kernels = [saved["before"], {row["name"]: (row["kernels"],) for row in saved["rows"]}, saved["compiled"]]
    totals = [sum(part[0] for part in form.values()) for form in kernels]
    [together] = [line for line in section.splitlines() if line.startswith("| together")]
    assert [int(cell) for cell in together.split("|")[2:8:2]] == totals
    with_operations = saved | {"operations": {"_to_copy": (592, 44.3e9)}}
    assert "| `_to_copy` | 592 | 44.3 |" in count_step.report(with_operations)
