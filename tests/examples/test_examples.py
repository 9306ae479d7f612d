# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the examples as their pages say, on the bundled photographs and a small model."""

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BertConfig,
    BertModel,
    EvalPrediction,
    pipeline,
)

import examples.continue_pretraining as continue_pretraining
import examples.correspondences as correspondences
import examples.finetune as finetune
import examples.match_photographs as match_photographs
import examples.segment as segment
import examples.similar_images as similar_images
from examples.photographs import write_photographs
from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.models import NoImageModelError
from modeling_esvit.images.transform import make_evaluation_transform
from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_runs import lead_index_away, write_images
from training.data.sources import open_source
from training.options.command import run_command
from training.state.checkpoints import ResumeError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = EsViTConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        num_prototypes=64,
        head_hidden_size=64,
        head_bottleneck_size=16,
    )
    path = tmp_path_factory.mktemp("model")
    EsViTForPreTraining(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Writes 6 training and 2 test patches of each of the 19 photographs."""
    path = tmp_path_factory.mktemp("data") / "photographs"
    write_photographs(path, patch_size=64, train_per_photograph=6, test_per_photograph=2, shards=1)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, package, advice",
    [
        ("similar_images.py", "faiss", ".[training,examples]'"),
        ("segment.py", "skimage", ".[training,examples]'"),
        ("photographs.py", "skimage", ".[training,examples]'"),
        ("finetune.py", "evaluate", ".[training,examples]'"),
        ("real_backbone.py lite0", "timm", ".[training,examples,demo]'"),
        ("app/app.py MODEL", "gradio", ".[app]'"),
        ("embed_with_ray.py MODEL photographs --output f.parquet", "ray", ".[embed]' 'ray[data]'"),
    ],
)
def test_a_missing_package_is_one_line(command, package, advice):
    page, *arguments = command.split()
    path = Path(similar_images.__file__).parent / page
    program = "import runpy, sys\nsys.modules[sys.argv[1]] = None\ndel sys.argv[:2]\n"
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    line = ["python", "-c", program, package, path, *arguments]
    shown = run_program(line, code=1, PYTHONPATH=str(path.parent)).stderr  # modules lie beside the app
    said = shown.splitlines()[-1]  # other packages may have warned of themselves
    assert said.startswith(f"error: this needs the package {package}") and said.endswith(f": pip install -e '{advice}")
    assert "Traceback" not in shown


@pytest.mark.slow
def test_similar_images(folder, tmp_path, capsys):
    """Finds a copy of the image first, then its brighter self, then noise; the image is no neighbour of itself."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 200, (6, 6, 3), dtype=np.uint8)).resize((80, 80))
    collection = tmp_path / "collection"
    collection.mkdir()
    for name in ("same.png", "copy.png"):
        coarse.save(collection / name)
    coarse.point(lambda value: min(255, value + 5)).save(collection / "brighter.png")
    for index in range(3):
        Image.fromarray(generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(collection / f"noise{index}.png")
    command = [folder, str(collection), "--query", str(collection / "same.png"), "--count", "3"]
    command += ["--features", str(tmp_path / "features.parquet"), "--output", str(tmp_path / "similar.png")]
    (collection / "broken.png").write_bytes(b"no image")
    (collection / "notes.txt").touch()
    said = (
        f"6 of 7 images: {tmp_path}/features.parquet",
        f"reuses the features of 6 of 7 images: {tmp_path}/features.parquet",
    )
    for first in said:  # the second time with the features that were kept
        similar_images.main(command)
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        assert lines[0] == first and "not read: 1 .txt" in lines
        assert "0/1" not in printed.err  # a bar of `datasets` that does not say of what
        found = [line.split() for line in lines if line.startswith("  ")]
        assert [name.rpartition("/")[2] for _, name in found][:2] == ["copy.png", "brighter.png"]
        assert float(found[0][0]) == pytest.approx(1, abs=1e-3)
    assert Image.open(tmp_path / "similar.png").width > 500
    (collection / "copy.png").unlink()
    with pytest.raises(SystemExit, match="features.parquet holds features of other images: copy.png is missing"):
        run_command(lambda: similar_images.main(command))
    with pytest.raises(SystemExit, match="is neither a file|There is no file or folder"):
        run_command(lambda: similar_images.main([folder, "nowhere", "--query", str(collection / "same.png")]))


def test_the_picture_of_a_search_shows_the_first_queries(folder, tmp_path, capsys, monkeypatch):
    """A picture of all of hundreds of queries would be longer than a picture can be."""
    monkeypatch.setattr(similar_images, "DRAWN", 1, raising=False)
    images, output = str(write_images(tmp_path / "images", 3)), tmp_path / "similar.png"
    similar_images.main([folder, images, "--query", images, "--count", "2", "--output", str(output)])
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: the first 1 of 3 queries and of 2 similar images"
    assert Image.open(output).size == (440, 330)


def test_match_photographs(folder, tmp_path):
    """Matches a photograph with itself: every region finds itself."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    match_photographs.main([folder, path, path, "--image_size", "320", "--output", str(tmp_path / "matches.png")])
    assert Image.open(tmp_path / "matches.png").size == (1400, 526)  # two of 3 : 2, side by side, below a title
    features = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    ours, theirs, similarity = match_photographs.match_mutually(features, features[order])
    assert torch.equal(order[theirs], ours) and len(ours) == 12
    torch.testing.assert_close(similarity, torch.ones(12))
    with pytest.raises(SystemExit, match="nothing.png"):
        run_command(lambda: match_photographs.main([folder, path, str(tmp_path / "nothing.png")]))


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (similar_images.main, "MODEL . --query a.png --features x.csv", "x.csv must end in one of"),
        (similar_images.main, "MODEL . --query a.png --output x.foo", None),
        (match_photographs.main, "MODEL a.png a.png --output x.foo", None),
        (match_photographs.main, "MODEL a.png a.png --max_pixels 9", "a.png: 256 x 256 pixels are more than the 9"),
        (match_photographs.main, "MODEL a.png a.png --image_size 0", None),
        (match_photographs.main, "MODEL a.png a.png --output a.png/x.png", None),
        (similar_images.main, "MODEL . --query a.png --output a.png/x/x.png", None),
        (correspondences.main, "MODEL --output x.foo", None),
        (correspondences.main, "text", "text is a BertModel, which takes text and no images"),
        (similar_images.main, "text . --query a.png", "text is a BertModel, which takes text and no images"),
        (match_photographs.main, "text a.png a.png", "text is a BertModel, which takes text and no images"),
        (correspondences.main, "none", "none holds no model: name a folder with a config.json"),
        (continue_pretraining.main, "text --data labelled --output x", "which takes text and no images"),
        (continue_pretraining.main, "none --data labelled --output x", "neither the folder of a model"),
        (segment.main, "text", "text is a model of type 'bert', not 'esvit'"),
        (segment.main, "MODEL --crops 7", None),
        (segment.main, "MODEL --lr nan", None),
        (finetune.main, "MODEL --data labelled --output x --epochs 0", None),
        (finetune.main, "MODEL --data labelled --output x --lr nan", None),
        (finetune.main, "MODEL --data labelled --output x --batch_size 0", None),
        (finetune.main, "MODEL --data labelled --output x --test_split test --test_share 0.5", None),
        (
            finetune.main,
            "MODEL --data labelled/train --output x --test_split val",
            "'labelled/train/train' is not a folder",
        ),
        (finetune.main, "MODEL --data labelled --output a.png", None),
        (segment.main, ".", ". holds no model: there are models below it, so name one"),
        (segment.main, "damaged", r"The weights of damaged are damaged: .*\. Copy or download them again"),
        (
            similar_images.main,
            "damaged . --query a.png",
            r"The weights of damaged are damaged: .*\. Copy or download them again",
        ),
        (segment.main, "swin", "is a model of type 'swin', not 'esvit'"),
        (continue_pretraining.main, "MODEL --data nowhere --output x", "'nowhere' does not exist"),
        (continue_pretraining.main, "MODEL --data . --output x", "'train' is not a folder. Name one; FOLDER:SPLIT"),
    ],
)
def test_wrong_arguments(folder, tmp_path, monkeypatch, main, arguments, message):
    """Checks that one line says what is wrong (None: it comes from the parser), and that nothing is written."""
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").save("a.png")
    (tmp_path / "swin").mkdir()
    (tmp_path / "swin" / "config.json").write_text('{"model_type": "swin"}')
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained("text")
    shutil.copy(Path(folder) / "preprocessor_config.json", "text")
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "none").mkdir()
    for split in ("train", "test"):
        write_images(tmp_path / "labelled" / split, 4, "ab")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=message) as error:
        run_command(lambda: main(arguments.replace("MODEL", folder).split()))
    assert message is None and error.value.code == 2 or str(error.value).startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (finetune.main, "MODEL --data x --output y --epochs 0", "positive and finite, got 0 and 0.0005"),
        (match_photographs.main, "MODEL a.png b.png --image_size 0", "--image_size must be at least 1, got 0"),
        (segment.main, "MODEL --crops 7", "--crops must be at least 8, got 7"),
        (segment.main, "MODEL --lr nan", "--lr must be positive and finite, got nan"),
    ],
)
def test_a_number_that_cannot_be_is_said(capsys, main, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "load", [lambda name: finetune.load_model(name, ["a", "b"]), lambda name: segment.build_segmenter(name, 2)]
)
def test_a_model_leads_to_no_other_place(load, tmp_path):
    fields = {"model_type": "esvit", "architecture": "auto", "backbone_config": str(tmp_path / "private")}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(NoImageModelError, match="backbone_config in its config.json names .*private, which is no part"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "load", [lambda name: finetune.load_model(name, ["a", "b"]), lambda name: segment.build_segmenter(name, 2)]
)
def test_an_index_names_files_of_the_model(load, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "model")
    lead_index_away(copy)
    with pytest.raises(NoImageModelError, match="names ../private.safetensors, which is no file of the model"):
        load(str(copy))


def test_finetune_says_what_it_cannot_train(folder, tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "one" / split, 4, "a")
        write_images(tmp_path / "two" / split, 4, "ab")
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path / "text")
    output = ["--output", str(tmp_path / "classifier")]
    with pytest.raises(NoImageModelError, match="text cannot be loaded as a model for images: Unrecognized config"):
        finetune.main([str(tmp_path / "text"), "--data", str(tmp_path / "two"), *output])
    with pytest.raises(DataOptionError, match="no column of two or more classes .*one/train/CLASS"):
        finetune.main([folder, "--data", str(tmp_path / "one"), *output])
    with pytest.raises(DataNotFoundError, match="two/val' is not a folder.* share of each class .* --test_share 0.2"):
        finetune.main([folder, "--data", str(tmp_path / "two"), "--test_split", "val", *output])
    shutil.copytree(folder, tmp_path / "lacking")
    weights = load_file(tmp_path / "lacking" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("patch_embed.norm.bias")}
    save_file(kept, tmp_path / "lacking" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NoImageModelError, match="lacking lacks weights .*: esvit.encoder.patch_embed.norm.bias.$"):
        finetune.main([str(tmp_path / "lacking"), "--data", str(tmp_path / "two"), *output])
    assert not (tmp_path / "classifier").exists()
    (tmp_path / "classifier" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(ResumeError, match="holds checkpoint-3 of an earlier fine-tuning"):  # before it opens the data
        finetune.main([folder, "--data", str(tmp_path / "nowhere"), *output])


def test_the_classifier_is_new(folder, tmp_path, capfd):
    """Takes a backbone, and a classifier of other classes in the place of one, without a report of missing weights."""
    finetune.load_model(folder, ["a", "b"])[0].save_pretrained(tmp_path)
    shutil.copy(Path(folder) / "preprocessor_config.json", tmp_path)
    model, _ = finetune.load_model(str(tmp_path), ["c", "d", "e"])
    assert model.classifier.weight.shape[0] == 3 and model.config.label2id == {"c": 0, "d": 1, "e": 2}
    assert "REPORT" not in capfd.readouterr().err


@pytest.mark.slow
def test_finetune(folder, patches, tmp_path, monkeypatch):
    evaluations, evaluate = [], finetune.Trainer.evaluate
    monkeypatch.setattr(
        finetune.Trainer, "evaluate", lambda *given, **more: evaluations.append(evaluate(*given, **more))
    )
    command = [folder, "--data", str(patches), "--output", str(tmp_path / "classifier")]
    output = tmp_path / "results" / "finetuned.json"
    options = ["--epochs", "15", "--batch_size", "16", "--lr", "2e-3", "--result", str(output)]
    metrics = finetune.main([*command, *options])
    written = json.loads(output.read_text())
    assert len(evaluations) == 15  # one of each epoch
    assert metrics["top5"] >= metrics["top1"] > 3 / 19 and metrics.items() <= written.items()
    shown = {figure["name"]: figure["value"] for figure in written["figures"]}
    assert shown == {"fine-tuning top-1": metrics["top1"], "fine-tuning top-5": metrics["top5"]}
    assert metrics["test"].endswith(":test") and f"| {metrics['top1']:.2%} |" in output.with_suffix(".md").read_text()
    assert [scores["epoch"] for scores in metrics["history"]] == list(range(1, 16))
    assert metrics["history"][-1]["top1"] == metrics["top1"] and output.with_suffix(".png").stat().st_size > 5000
    again = finetune.main([*command, *options, "--resume"])  # nothing was left to do
    assert (again["top1"], again["history"]) == (metrics["top1"], metrics["history"])
    with pytest.raises(ResumeError, match="holds checkpoint-.* of an earlier fine-tuning: --resume continues it"):
        finetune.main([*command, *options])
    with pytest.raises(ResumeError, match="holds a fine-tuning with other lr, seed. Repeat that command"):
        finetune.main([*command, *options, "--resume", "--lr", "0.1", "--seed", "5"])
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "classifier")
    assert model.config.id2label[0] == "astronaut"
    (best, *_) = pipeline("image-classification", model=str(tmp_path / "classifier"))(Image.new("RGB", (64, 64)))
    assert best["label"] in model.config.label2id


@pytest.mark.slow
def test_fine_tuning_is_its_seed_and_one_run_of_all_processes(folder, patches, tmp_path):
    """Trains twice the same classifier; two CPU processes train one together, on half of the images of a step each."""
    command = [folder, "--data", str(patches), "--epochs", "1", "--seed", "3"]
    for name in ("one", "same"):
        finetune.main([*command, "--batch_size", "16", "--output", str(tmp_path / name)])
    one, same = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "same"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    options = ["--batch_size", "8", "--output", tmp_path / "two"]
    done = run_program([*torchrun(2), "examples/finetune.py", *command, *options])
    assert done.stdout.count("| top-1 |") == 1
    states = (json.loads(next((tmp_path / name).glob("*/trainer_state.json")).read_text()) for name in ("one", "two"))
    assert len({state["max_steps"] for state in states}) == 1


@pytest.mark.slow
def test_fine_tuning_parts_one_folder(folder, tmp_path, capsys):
    images = write_images(tmp_path / "images", 20, classes="ab")
    command = [folder, "--data", str(images), "--output", str(tmp_path / "classifier"), "--epochs", "1"]
    found = finetune.main([*command, "--result", str(tmp_path / "r.json")])
    assert f"{images}: holds out 4 of 20 images, 20% of each class, for testing." in capsys.readouterr().out
    assert (found["train_images"], found["test_images"], found["test"], found["test_share"]) == (16, 4, None, 0.2)
    assert "top5" not in found
    assert json.loads((tmp_path / "r.json").read_text())["figures"][0]["split"] == "20% of each class"


def test_fine_tuning_sees_images_of_all_kinds(folder, tmp_path):
    """Decodes a grey ramp to the same image from 8 bits, 16 bits and floats; a line of pixels needs no large memory."""
    ramp = np.tile(np.arange(64), (48, 1)).astype(np.uint16) * 1024
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "gray.png")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tiff")
    Image.new("L", (1, 60_000)).save(tmp_path / "line.png")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"image": paths, "label": [0, 1, 0, 1]}, features=features)
    transform = make_evaluation_transform(AutoImageProcessor.from_pretrained(folder))
    images = finetune.SourceImages(open_source(rows), range(4), ["b", "a"], transform)
    deep, floats, gray, _ = (images[index]["pixel_values"] for index in range(4))
    assert (deep - gray).abs().max() < 0.03 and (floats - gray).abs().max() < 0.03
    assert [images[index]["labels"] for index in (1, 2)] == [0, 1]  # by name
    with pytest.raises(DataOptionError, match=r"\['b'\] are none of the training images'"):
        finetune.SourceImages(open_source(rows), range(4), ["a"], transform)


def test_accuracies_of_few_classes():
    prediction = EvalPrediction(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    assert finetune.compute_accuracy(prediction) == {"top1": 0.5}
    with pytest.raises(FeatureError, match="lower --lr"):
        finetune.compute_accuracy(EvalPrediction(np.array([[0.1, np.nan]]), np.array([1])))


@pytest.mark.slow
def test_segment(folder, tmp_path):
    score = segment.main([folder, "--crops", "64", "--epochs", "3", "--output", str(tmp_path / "coins.png")])
    _, labels = segment.load_test_part()
    trivial = segment.compute_mean_iou(torch.zeros_like(labels), labels, num_labels=2)
    assert score > trivial + 0.15
    assert Image.open(tmp_path / "coins.png").size == (900, 700)


def test_segmenter_of_two_stages(tmp_path):
    """As the demo's model has them: too few for the auxiliary head."""
    config = EsViTConfig(image_size=64, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4)
    EsViTModel(config).save_pretrained(tmp_path)
    output = segment.build_segmenter(str(tmp_path), num_labels=2).eval()(torch.zeros(1, 3, 64, 64))
    assert output.logits.shape == (1, 2, 64, 64)


@pytest.mark.slow
def test_continue_pretraining(folder, patches, tmp_path):
    sizes = ["--num_prototypes", "64", "--head_hidden_size", "64", "--head_bottleneck_size", "16"]
    crops = ["--global_crop_size", "64", "--local_crop_sizes", "32", "--local_crops_numbers", "2"]
    run = ["--batch_size", "16", "--workers", "0", "--tracker", "none", "--lr", "0.01", "--momentum_teacher", "0.9"]
    command = [folder, "--data", str(patches), "--output", str(tmp_path / "run"), "--epochs", "2", "--k", "5"]
    before, after = continue_pretraining.main([*command, *sizes, *crops, *run])
    assert before != after and min(before, after) > 1 / 19
    again = [str(tmp_path / "run"), *command[1:3], "--output", str(tmp_path / "more"), *command[5:]]
    assert continue_pretraining.main([*again, *sizes, *crops, *run])[0] == after  # a run goes on from its teacher
    assert EsViTForPreTraining.from_pretrained(tmp_path / "run" / "teacher").config.depths == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["save_model", "_save_checkpoint"])
def test_a_disk_that_is_full_is_said_with_the_folder(monkeypatch, tmp_path, name):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(finetune.Trainer, name, fail)
    trainer = object.__new__(finetune.NamingTrainer)
    trainer.args = SimpleNamespace(output_dir=str(tmp_path))
    with pytest.raises(SystemExit, match=f"^error: .*No space left on device: '{tmp_path}'$"):
        run_command(lambda: getattr(trainer, name)())
