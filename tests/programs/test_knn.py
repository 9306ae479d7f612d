# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""k-NN: the classifier against the original and against a plain form, the evaluation against what it must not disturb.

`fixtures/knn.safetensors` holds random features, and the accuracies that running the MIT-licensed original
microsoft/esvit (`eval_knn.py`) gave for them.
"""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoImageProcessor

import training.evaluation.knn as knn
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.engine import FeatureError
from tests.helpers.coloured_images import COLOURS, write_coloured_images
from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import FIXTURES, ROOT
from training.data.named_data import split_train_and_test
from training.data.sources import DataOptionError, open_source
from training.evaluation.scores import METRIC, align_labels
from training.features.extraction import (
    LabelledImages,
    UnlabelledDataError,
    evaluation_transform,
    process_items,
)


@pytest.fixture(scope="module")
def golden():
    return load_file(FIXTURES / "knn.safetensors")


@pytest.mark.parametrize("num_classes", [12, 1000])
@pytest.mark.parametrize("count", [200, 257])  # the original's chunks divide 200 only
def test_equals_the_original(golden, count, num_classes):
    labels = golden[f"n{count}.test_labels"]
    rankings = knn.knn_predict(
        golden["train_features"],
        golden["train_labels"],
        golden[f"n{count}.test_features"],
        k=[5, 20],
        num_classes=num_classes,
        chunk_size=64,
    )
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    for k in (5, 20):
        scores = metric.compute(predictions=rankings[k].numpy(), references=labels.numpy(), top_k=(1, 5))
        top1, top5 = golden[f"n{count}.k{k}.classes{num_classes}.top1_top5"].tolist()
        assert 100 * scores["top1"] == pytest.approx(top1, abs=1e-9)
        if k == 20:  # of 5 neighbours the original fills up the first five classes with ones nobody voted for
            assert 100 * scores["top5"] == pytest.approx(top5, abs=1e-9)


def test_chunks_change_nothing(golden, monkeypatch):
    features, labels, queries = golden["train_features"], golden["train_labels"], golden["n257.test_features"]
    options = {"k": [1, 3, 50, 360], "num_classes": 12}
    whole = knn.knn_predict(features, labels, queries, chunk_size=10**6, **options)
    monkeypatch.setattr(knn, "BANK_CHUNK", 17)  # less than k, and no divisor of the bank's 360 rows
    chunked = knn.knn_predict(features, labels, queries, chunk_size=10, **options)
    assert all(torch.equal(whole[k], chunked[k]) for k in options["k"])

    votes = (queries.double() @ features.double().T / 0.07).exp() @ torch.eye(12, dtype=torch.float64)[labels]
    assert torch.equal(whole[360], votes.topk(5).indices)  # with all neighbours, the plain form of the vote


def test_ties_are_decided_by_order():
    bank = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [5.0, 0.0]])  # three equal directions
    query = torch.tensor([[1.0, 0.0]])
    labels = torch.tensor([0, 3, 1, 2])
    rankings = knn.knn_predict(bank, labels, query, k=[1, 2, 3], num_classes=4)
    assert rankings[1].tolist() == [[3, -1, -1, -1, -1]]  # the earliest neighbour
    assert rankings[2].tolist() == [[1, 3, -1, -1, -1]]  # equal votes: the lower class
    assert rankings[3].tolist() == [[1, 2, 3, -1, -1]]


def test_any_temperature_is_finite():
    bank, query = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([[1.0, 0.1]])
    labels = torch.tensor([2, 1, 0])
    for temperature in (1e-6, 1e6):
        ranking = knn.knn_predict(bank, labels, query, k=[3], num_classes=3, temperature=temperature)[3]
        assert ranking[0, 0] == 2


@pytest.mark.parametrize("k", [[], [0], [5, 4]])
def test_impossible_neighbour_counts(k):
    features = torch.eye(4)
    with pytest.raises(knn.NeighbourCountError, match="from 1 to 4"):
        knn.knn_predict(features, torch.arange(4), features, k=k, num_classes=4)
    with pytest.raises(knn.TemperatureError):
        knn.knn_predict(features, torch.arange(4), features, k=[1], num_classes=4, temperature=0.0)


@pytest.mark.parametrize(("count", "processes"), [(10, 1), (10, 2), (9, 2), (9, 4), (1, 3), (24, 3)])
def test_shares_of_processes_are_all_rows_in_order(count, processes):
    images = LabelledImages(
        open_source(Dataset.from_dict({"image": [b""] * count, "label": [0] * count}), image_column="image"), None
    )
    shares = [
        list(process_items(images, SimpleNamespace(num_processes=processes, process_index=rank)))
        for rank in range(processes)
    ]
    assert [row for share in shares for row in share][:count] == list(range(count))
    assert {len(share) for share in shares} == {-(-count // processes)}


@pytest.fixture
def images(tmp_path):
    return write_coloured_images(tmp_path / "train", COLOURS, 5, 0), write_coloured_images(
        tmp_path / "test", COLOURS, 3, 1
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return EsViTModel(EsViTConfig(drop_path_rate=0.5, **sizes))


def pixel_values(image):
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 127.5 - 1


def evaluate_folders(model, train, test, **options):
    return knn.evaluate_knn(model, pixel_values, open_source(train), open_source(test), **options)


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_evaluation_leaves_training_as_it_was(model, images):
    model.train()
    model.encoder.norm.eval()  # a frozen part
    modes, states = [module.training for module in model.modules()], random_states()
    first = evaluate_folders(model, *images, k=[1, 15], batch_size=4)
    assert [module.training for module in model.modules()] == modes
    assert random_states() == states
    assert first == evaluate_folders(model, *images, k=[1, 15], batch_size=9, num_workers=1)  # drop path is off
    assert first["k1_top1"] == first["k15_top5"] == 1.0
    assert (first["train_images"], first["test_images"], first["classes"]) == (15, 9, 3)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_default_neighbours_are_those_that_fit(model, images):
    assert [name for name in evaluate_folders(model, *images) if name.startswith("k")] == ["k10_top1", "k10_top5"]
    with pytest.raises(knn.NeighbourCountError, match="from 1 to 15"):
        evaluate_folders(model, *images, k=[20])


def test_classes_are_compared_by_name(model, images, tmp_path):
    other = {"red": COLOURS["red"], "yellow": (230, 230, 30)}  # red is class 0 here and class 2 in the training data
    result = evaluate_folders(model, images[0], write_coloured_images(tmp_path / "other", other, 2, 2), k=[5])
    assert (result["k5_top1"], result["unknown_class_images"]) == (0.5, 2)


def test_unnamed_classes_are_compared_by_number():
    train, test = torch.tensor([7, 10**12, 7]), torch.tensor([10**12, 8, 7, 10**13])
    train_ids, test_ids, count = align_labels(train, test, None, ["a", "b"])
    assert (train_ids.tolist(), test_ids.tolist(), count) == ([0, 1, 0], [1, -1, 0, -1], 2)


def test_unreadable_images_are_left_out_and_named(model, images, caplog):
    (images[1] / "red" / "0.png").write_bytes(b"no image")
    result = evaluate_folders(model, *images, k=[5])
    assert (result["k5_top1"], result["test_images"]) == (1.0, 8)
    assert "red/0.png" in caplog.text


def test_data_that_cannot_be_evaluated(model, images):
    broken = EsViTModel(model.config)
    torch.nn.init.constant_(broken.encoder.norm.bias, torch.nan)
    with pytest.raises(FeatureError, match=r"blue/0\.png is not finite.* 14 more of 15"):
        evaluate_folders(broken, *images, k=[5])
    with pytest.raises(UnlabelledDataError):
        evaluate_folders(model, images[0], images[1] / "red", k=[5])
    with pytest.raises(DataOptionError, match="name a split"):
        split_train_and_test(f"{images[0]}", f"{images[0]}:red")


def run_knn(arguments, launcher, home) -> dict[str, float]:
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    done = run_program([*launcher, "training/knn.py", *arguments], **offline)
    assert done.stdout.count("top-1") == 1  # processes that do not know of each other would each print a table
    return json.loads(Path(arguments[-1]).read_text())


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(model, tmp_path):
    colours = {f"class {i}": (20 * i, 120, 250 - 20 * i) for i in range(12)}  # close enough for mistakes
    train, test = (
        write_coloured_images(tmp_path / "a", colours, 6, 3),
        write_coloured_images(tmp_path / "b", colours, 3, 4),
    )
    (test / "class 3" / "1.png").write_bytes(b"no image")
    model.save_pretrained(tmp_path / "model")
    options = ["--k", 3, 10, "--batch-size", 7, "--part_size", 10, "--device", "cpu"]
    arguments = [tmp_path / "model", "--train", train, "--test", test, *options]
    before = sorted((ROOT / "training" / "metrics").rglob("*"))

    one = run_knn([*arguments, "--output", tmp_path / "one.json"], ["python"], tmp_path / "home")
    two = run_knn([*arguments, "--output", tmp_path / "two.json"], torchrun(2), tmp_path / "home")

    assert one == two
    assert [figure["name"] for figure in one["figures"]][:2] == ["k-NN top-1, k = 3", "k-NN top-5, k = 3"]
    assert [figure["value"] for figure in one["figures"]] == [one[f"k{k}_top{top}"] for k in (3, 10) for top in (1, 5)]
    assert one["command"] == "python training/knn.py MODEL --train a --test b --k 3 10 --batch-size 7"
    assert one["test_images"] == 35 and 0.2 < one["k10_top1"] < 1.0
    transform = evaluation_transform(AutoImageProcessor.from_pretrained(tmp_path / "model"))
    library = knn.evaluate_knn(model, transform, open_source(train), open_source(test), k=[3, 10])
    assert library == {name: one[name] for name in library}
    assert sorted((ROOT / "training" / "metrics").rglob("*")) == before
