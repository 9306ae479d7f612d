# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the options: defaults < recipe < command line, round trips, and what is refused."""

import re

import numpy as np
import pytest
import torch

from modeling_esvit.programs.parser import OldNameError
from training.options.errors import OptionError
from training.options.pretrain_options import (
    FREE_TO_CHANGE,
    RANGES,
    RECIPES,
    PretrainOptions,
    make_options,
    parse_options,
    read_options,
    save_options,
)


def test_the_command_line_goes_on_top_of_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "epochs: 40\nlr: 1e-3\ndepths: [1, 2]\nlocal_crops_scale: [0.1, 0.3]\ngradient_checkpointing: true\n"
    )
    options = parse_options(["--epochs", "50", "--recipe", str(recipe), "--batch_size=7"])
    assert (options.epochs, options.lr, options.depths, options.batch_size) == (50, 1e-3, [1, 2], 7)
    assert options.local_crops_scale == [0.1, 0.3] and options.gradient_checkpointing
    assert options.weight_decay == PretrainOptions().weight_decay


def test_saved_options_are_a_recipe(tmp_path):
    options = parse_options(["--data", "somewhere", "--num_heads", "1", "2", "--task", "view", "--max_steps", "3"])
    save_options(options, tmp_path / "options.yaml")
    assert parse_options(["--recipe", str(tmp_path / "options.yaml")]) == options


@pytest.mark.parametrize(
    ("given", "understood"),
    [(["--compile"], "on"), (["--compile", "True"], "on"), (["--compile", "false"], "off"), (["--compile=off"], "off")],
)
def test_compile_is_spelt_as_a_switch_too(given, understood, tmp_path):
    assert parse_options([]).compile == "auto" and parse_options(given).compile == understood
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"compile: {understood}\n")
    assert parse_options(["--recipe", str(recipe)]).compile == understood
    assert PretrainOptions(compile=understood == "on").compile == understood


def test_words_of_a_recipe_are_words(tmp_path):
    """YAML 1.1 takes no, off, on, yes and more for booleans, but only true and false are options' values."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("mixed_precision: no\ncompile: off\nstreaming: true\nlr: 1e-4\ntracker: [none]\n")
    options = parse_options(["--recipe", str(recipe)])
    assert (options.mixed_precision, options.compile, options.streaming, options.lr) == ("no", "off", True, 1e-4)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_is_valid(name):
    assert parse_options(["--recipe", name]) is not None


def test_only_options_that_change_the_result_differ():
    options, other = PretrainOptions(), {**vars(PretrainOptions()), "workers": 9, "lr": 1.0}
    assert options.differences(other) == {"lr": (1.0, options.lr)}
    assert set(FREE_TO_CHANGE) | set(RANGES) <= set(vars(options))


def test_another_name_of_a_folder_is_no_difference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photographs", "others"):
        (tmp_path / name).mkdir()
    before = vars(PretrainOptions(data="photographs"))
    for data in ("photographs/", "./photographs", str(tmp_path / "photographs")):
        assert PretrainOptions(data=data).differences(before) == {}
    for data in ("others", "org/photographs"):
        assert PretrainOptions(data=data).differences(before) == {"data": ("photographs", data)}
    assert "init_from" in PretrainOptions(data="photographs", init_from="others").differences(before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batchsize", "3"], "Unknown option 'batchsize'; did you mean 'batch_size'?"),
        (["--zzz=3"], "Unknown option 'zzz'; --help_all lists all"),
        (["--epoch", "3"], "did you mean 'epochs'?"),
        (["stray"], "'stray' is not the value of any option"),
        (["--warmup_epochs", "-1"], "warmup_epochs must be at least 0, got -1"),
        (["--global_crops_scale", "1.0", "0.2"], "global_crops_scale"),
        (["--global_crops_scale", "0.2"], "global_crops_scale"),
        (["--local_crop_sizes", "96", "64"], "one entry for each set"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--region_weight", "0"], "for none use --task view"),
        (["--knn_test", "x"], "knn_train and knn_test are for the k-NN evaluation: give knn_every"),
        (["--knn_train", "x"], "knn_train and knn_test are for the k-NN evaluation: give knn_every"),
        (["--max_steps", "-5"], "max_steps must be at least 0, got -5"),
        (["--seed", "-1"], "seed must be between 0 and 2147483647, got -1"),
        (["--lr", "inf"], "lr must be finite and at least 0, got inf"),
        (["--clip_grad", "-1"], "clip_grad must be at least 0, got -1.0"),
        (["--momentum_teacher", "3"], "momentum_teacher must be between 0 and 1, got 3.0"),
        (["--student_temp", "0"], "student_temp must be at least 0.001, got 0.0"),
        (["--augmentation", "deit", "--augment_on", "device"], "augmentation deit is done by the workers"),
        (["--mixup", "0.8"], "mixup and cutmix are for --task view (here view+region)"),
        (["--cutmix", "1", "--task", "view", "--batch_size", "5"], "an even batch_size (here 5)"),
        (["--recipe", "no_such"], "There is no recipe"),
        (["--recipe", "own_image_small"], "did you mean 'own_images_small'"),
        (["--global_crop_size", "0"], "global_crop_size must be between 1 and 1000000, got 0"),
        (["--local_crop_sizes", "-5"], "local_crop_sizes must be numbers from 1 on, got [-5]"),
        (["--local_crops_numbers", "-1"], "local_crops_numbers must be numbers from 0 on, got [-1]"),
        (["--num_prototypes", "1000000000000000"], "num_prototypes must be between 1 and 100000000"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(arguments, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_options(arguments)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"epohcs: 3", "did you mean 'epochs'"),
        (b"- 1", "must be a mapping"),
        (b"lr: [1", "is not valid YAML"),
        (b"data: \xff", "is not valid YAML"),
    ],
)
def test_refused_recipes(tmp_path, text, message):
    recipe = tmp_path / "bad.yaml"
    recipe.write_bytes(text)
    with pytest.raises(OptionError, match=message):
        parse_options(["--recipe", str(recipe)])


@pytest.mark.parametrize("name", ["output", "init_from", "knn_train", "cache", "revision", "push_to_hub"])
def test_empty_texts_are_refused(name):
    with pytest.raises(OptionError, match=f"{name} is empty: give a value, or leave the option out"):
        parse_options([f"--{name}", ""])


def test_paths_may_be_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    options = parse_options(["--data=~/photographs", "--output=~/run", "--knn_train=~/a:test", "--knn_every=1"])
    assert (options.data, options.output) == ("/home/ada/photographs", "/home/ada/run")
    assert options.knn_train == "/home/ada/a:test"


def test_values_may_begin_with_a_dash(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("output: -run\n")
    assert make_options(recipe, data="-photographs").data == "-photographs"
    assert parse_options(["--recipe", str(recipe)]).output == "-run"


def test_none_stands_for_the_default_whatever_the_recipe_says():
    assert make_options("demo").epochs != make_options("demo", epochs=None).epochs == PretrainOptions().epochs


@pytest.mark.parametrize("numbers", [range(2, 4), (2, 3), np.array([2, 3]), torch.tensor([2, 3])])
def test_lists_of_all_kinds(numbers):
    assert make_options(local_crops_numbers=numbers, lr=np.float32(0.5)).local_crops_numbers == [2, 3]


def test_several_values_of_an_option_that_takes_one(tmp_path):
    with pytest.raises(OptionError, match=re.escape("data takes one value, got ['a', 'b'].")):
        make_options(data=["a", "b"])
    (tmp_path / "mine.yaml").write_text("epochs: [1, 2]\n")
    with pytest.raises(OptionError, match=re.escape("epochs takes one value, got [1, 2].")):
        make_options(tmp_path / "mine.yaml")


def test_a_folder_of_images_is_no_recipe(tmp_path):
    with pytest.raises(OptionError, match="It is a folder; images are `data`"):
        make_options(tmp_path)


def test_an_empty_recipe_is_none_that_exists():
    with pytest.raises(OptionError, match="There is no recipe ''"):
        make_options("")


def test_values_of_the_wrong_type_end_the_command(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--epochs", "many"])
    assert "invalid int value: 'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--architecture auto", "auto and backbone go together"),
        ("--backbone some/model", "auto and backbone go together"),
        ("--architecture swin-tiny --backbone_weights", "needs a backbone"),
    ],
)
def test_options_that_contradict_each_other(given, message):
    with pytest.raises(OptionError, match=message):
        parse_options(given.split())


def test_help_is_one_screen_and_help_all_has_every_option(capsys):
    with pytest.raises(SystemExit):
        read_options(["--help"])
    first = capsys.readouterr().out.splitlines()
    assert len(first) < 50 and first[2].startswith("Pretrains") and "python training/pretrain.py" in first[4]
    with pytest.raises(SystemExit):
        read_options(["--help_all"])
    everything = capsys.readouterr().out
    assert all(f"  --{name}" in everything for name in vars(PretrainOptions()))
    assert "default: None" not in everything


def test_both_spellings_of_an_option():
    assert read_options(["--log-every", "3"]).log_every == read_options(["--log_every=3"]).log_every == 3


@pytest.mark.parametrize("old, new", [("num_" + "workers", "workers"), ("output_" + "dir", "output")])
def test_old_names_are_refused_everywhere_and_runs_of_before_continue(old, new, tmp_path, capsys):
    message = f"--{old} is called --{new} here"
    (tmp_path / "old.yaml").write_text(f"{old}: 2\n")
    for refused in (lambda: make_options(**{old: 2}), lambda: read_options(["--recipe", str(tmp_path / "old.yaml")])):
        with pytest.raises(OldNameError, match=message):
            refused()
    with pytest.raises(SystemExit):
        read_options([f"--{old}", "2"])
    assert message in capsys.readouterr().err
    before = {name: value for name, value in vars(PretrainOptions()).items() if name != new}
    assert PretrainOptions().differences(before | {old: 9}) == {}
