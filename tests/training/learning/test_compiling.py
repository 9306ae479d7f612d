# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run compiles where it can, and that a compiler that is missing is found before it begins."""

import pytest
import torch

from modeling_esvit.embed.compiling import CompileError
from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import tiny, tiny_options, write_images
from training.learning import compiling
from training.learning.compiling import is_compiled
from training.options.pretrain_options import parse_options
from training.run.checks import check_run


FAULT = "The networks cannot be compiled here: No working C++ compiler found."


@pytest.fixture
def no_compiler(monkeypatch):
    """Lets compiled functions fail, and a run on the CPU compile by default, as one on a GPU does."""

    def fail(function, **options):
        def raise_error(pixels):
            raise RuntimeError("No working C++ compiler found\nand so on")

        return raise_error

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(compiling, "is_compiled", lambda options, device: options.compile != "off")


def test_networks_are_compiled_on_a_gpu(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(compiling, "has_triton", lambda: True)
    assert [is_compiled(parse_options([]), device) for device in (cpu, gpu)] == [False, True]
    assert [is_compiled(parse_options(["--compile", "on"]), device) for device in (cpu, gpu)] == [True, True]
    assert not is_compiled(parse_options(["--compile", "off"]), gpu)
    monkeypatch.setattr(compiling, "has_triton", lambda: False)  # a GPU that its compiler does not support
    assert not is_compiled(parse_options([]), gpu)


@pytest.mark.usefixtures("fresh_accelerate", "no_compiler")
def test_without_a_compiler_a_run_goes_on_eagerly(labelled_images, tmp_path, capsys):
    checked = check_run(tiny_options(labelled_images, tmp_path / "run", compile="auto"))
    assert (checked.options.compile, checked.given.compile) == ("off", "auto")
    assert f"Does not compile: {FAULT}\n" in capsys.readouterr().out
    assert check_run(tiny_options(labelled_images, tmp_path / "run", compile="off")).options.compile == "off"
    with pytest.raises(CompileError, match="compiler found. Leave out --compile on."):
        check_run(tiny_options(labelled_images, tmp_path / "run", compile="on"))


@pytest.mark.usefixtures("fresh_accelerate")
def test_all_processes_do_as_one_that_cannot_compile(labelled_images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compiling, "is_compiled", lambda options, device: True)
    monkeypatch.setattr(compiling, "try_compiler", lambda device: "")
    for other, choice in (((True, ""), "on"), ((False, ""), "off"), ((True, FAULT), "off")):
        monkeypatch.setattr(compiling, "gather_object", lambda answers, other=other: [*answers, other])
        assert check_run(tiny_options(labelled_images, tmp_path / "run")).options.compile == choice
    assert FAULT in capsys.readouterr().out
    with pytest.raises(CompileError, match="Leave out --compile on"):
        check_run(tiny_options(labelled_images, tmp_path / "run", compile="on"))


@pytest.mark.slow
def test_a_command_without_a_compiler_ends_with_a_line(tmp_path):
    words = tiny(write_images(tmp_path / "images"), tmp_path / "run", "--compile on")
    place = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = run_program(["python", "training/pretrain.py", *words], code=1, **place)
    assert "error: The networks cannot be compiled here: " in done.stderr and "no-such-compiler" in done.stderr
    assert "Leave out --compile on." in done.stderr and "Traceback" not in done.stderr
