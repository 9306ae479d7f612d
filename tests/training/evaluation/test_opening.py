# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the folder of features, and what an evaluation opens."""

from argparse import Namespace

import pytest

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import DecodingOptions
from tests.helpers.tiny_runs import write_images, write_model
from training.evaluation.opening import open_evaluation, open_features_folder


def test_a_temporary_folder_is_deleted_and_a_given_one_stays(tmp_path):
    with open_features_folder(None) as folder:
        (folder / "x").write_text("x")
    assert not folder.exists()
    with open_features_folder(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


def test_model_and_features(tmp_path):
    model, images = write_model(tmp_path / "model"), tmp_path / "images"
    for split, count in (("train", 6), ("test", 3)):
        write_images(images / split, count, classes="ab")
    given = {"model": str(model), "device": "cpu", "revision": None, "trust_remote_code": False, "n_last_blocks": 1}
    given |= {
        "train": f"{images}:train",
        "test": f"{images}:test",
        "test_share": None,
        "streaming": False,
        "workers": 2,
    }
    given |= {"dtype": "float32", "compile": "off"}
    given |= {
        "label_column": None,
        "image_column": None,
        "config_name": None,
        "against": ["untrained"],
        **DecodingOptions().describe(),
    }
    arguments = Namespace(**given, features=tmp_path / "features", batch_size=4, part_size=8)
    with open_evaluation(arguments) as (frozen, banks, others):
        assert frozen.name == str(model) and [len(bank) for bank in banks] == [6, 3]
        assert banks[1].features().shape == (3, 16) and banks[1].labels.tolist() == [0, 0, 1]
        assert [len(bank) for bank in others["untrained"]] == [6, 3]
        assert others["untrained"][1].features().shape == (3, 16)
        assert not banks[1].features().equal(others["untrained"][1].features())
    arguments.test = arguments.train
    with pytest.raises(DataOptionError, match="are the same data"), open_evaluation(arguments):
        pytest.fail("nothing can be opened")
