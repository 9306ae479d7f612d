# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run is opened and checked at once, and that every problem is in one message."""

from dataclasses import replace

import pytest
from accelerate import PartialState

from modeling_esvit import EsViTArchitectureError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from tests.helpers.tiny_runs import tiny_options, train, write_images
from training.run.checks import PreparationError, Problems, check_run, examine_run


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_a_checked_run_has_all_that_it_needs(labelled_images, tmp_path):
    test = write_images(tmp_path / "test", 8, classes="ab")
    checked = check_run(tiny_options(labelled_images, tmp_path / "run", knn_every=1, knn_test=str(test), knn_k=[3]))
    assert (len(checked.source), checked.plan.steps_per_epoch, checked.found) == (26, 3, None)
    assert [len(source) for source in checked.knn_data] == [26, 8]
    assert "1,234 parameters with heads" in checked.describe(1234) and not (tmp_path / "run").exists()


def test_without_test_data_a_share_of_the_training_data_is_held_out(labelled_images, tmp_path, capsys):
    options = tiny_options(labelled_images, tmp_path / "run", knn_every=1, knn_k=[3])
    checked = check_run(options)
    train, test = checked.knn_data
    assert (len(checked.source), len(train), len(test)) == (26, 20, 6)
    assert "images, 20% of each class, for testing." in capsys.readouterr().out
    again = check_run(replace(options, knn_train=str(labelled_images))).knn_data
    assert again[1].list_names() == test.list_names() and not set(train.list_names()) & set(test.list_names())


def test_it_finds_the_checkpoint_of_a_stopped_run(labelled_images, tmp_path):
    options = tiny_options(labelled_images, tmp_path / "run", max_steps=2)
    train(options)
    folder, progress = check_run(replace(options, max_steps=0)).found
    assert folder == tmp_path / "run" / "checkpoints" / "step-00000002" and progress.step == 2


def test_one_problem_is_its_own_error_and_several_are_one(labelled_images, tmp_path):
    with pytest.raises(EsViTArchitectureError, match="num_heads"):
        check_run(tiny_options(labelled_images, tmp_path / "run", num_heads=[3, 3]))
    with pytest.raises(PreparationError) as error:
        check_run(tiny_options(tmp_path / "nowhere", tmp_path / "run", num_heads=[3, 3], tracker=["foo"]))
    for problem in ("num_heads", "There is no tracker 'foo'", "nowhere' does not exist"):
        assert str(error.value).count(problem) == 1, error.value


def test_a_run_among_its_own_images_is_refused(labelled_images, tmp_path):
    """Its views.png and curves.png were images of it when it was to be continued."""
    images = write_images(tmp_path / "images", 8, classes="ab")
    own = tiny_options(images, images / "run")
    for options in (own, replace(own, data=str(labelled_images), knn_every=1, knn_test=str(images), knn_k=[1])):
        with pytest.raises(DataOptionError, match="lies in .*/images', whose images are read"):
            check_run(options)
    assert not (images / "run").exists()


def test_an_epoch_of_a_folder_has_no_other_number_of_images(labelled_images, tmp_path):
    with pytest.raises(DataOptionError, match="samples_per_epoch is for streams, and .*/images' is none"):
        check_run(tiny_options(labelled_images, tmp_path / "run", samples_per_epoch=8))


def test_what_can_be_opened_is_there_beside_the_problems(labelled_images, tmp_path):
    examined = examine_run(
        tiny_options(labelled_images, tmp_path / "run", tracker=["foo"], knn_every=1, knn_test="nowhere")
    )
    assert len(examined.source) == 26 and examined.plan.num_steps == 6 and len(examined.knn_data) == 1
    assert len(examined.problems) == 2 and isinstance(examined.problems[1], DataNotFoundError)


def test_a_fault_of_the_program_is_no_problem_of_the_user():
    problems = Problems()
    for error in (KeyError("name"), OSError("Something broke.")):
        with pytest.raises(type(error)), problems.collect():
            raise error
    with problems.collect():
        raise FileNotFoundError(2, "No such file or directory", "photographs")
    assert len(problems) == 1
    with pytest.raises(FileNotFoundError):
        problems.refuse(PartialState())
    Problems().refuse(PartialState())
