# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder that `publish.py` writes: complete, loadable by every class, silent about the machine it was made on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModel, AutoModelForPreTraining, SwinModel

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from tests.helpers.tiny_models import CODE, PVT, small_config
from tests.helpers.tiny_runs import tiny, train, write_labelled_images
from tests.hub.uploads import card_problems
from training.evaluation.public_names import public_command, public_name
from training.learning.init_from import initialise
from training.learning.optimizer import group_parameters
from training.options.pretrain_options import parse_options
from training.publish import main
from training.publishing.card_template import describe_architecture
from training.publishing.folder import CURVES, HEADS, OPTIONS
from training.publishing.source import SourceError, find_source


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run, evaluated after each of its two epochs."""
    folder = tmp_path_factory.mktemp("secret_place")
    train(tiny(folder / "train", folder / "run", write_labelled_images(folder)))
    return folder / "run"


@pytest.fixture(scope="module")
def published(run) -> Path:
    main([str(run), "--repo_id", "ada/tiny", "--dry_run"])
    return run.with_name("run-hub")


def with_heads(folder: Path, **fields) -> EsViTForPreTraining:
    torch.manual_seed(1)
    model = EsViTForPreTraining(small_config(norm_last_layer=False, **fields)).eval()
    torch.nn.init.normal_(model.view_center)
    torch.nn.init.normal_(model.region_center)
    model.save_pretrained(folder)
    return model


def test_files_of_a_run(published):
    own = [HEADS, OPTIONS, CURVES, "README.md", "model.safetensors.index.pretraining.json"]
    saved = ["config.json", "model.safetensors", "preprocessor_config.json", *CODE]
    assert sorted(path.name for path in published.iterdir()) == sorted([*own, *saved])
    with safe_open(published / "model.safetensors", "pt") as weights:
        assert all(name.startswith("encoder.") for name in weights.keys())
    with safe_open(published / HEADS, "pt") as weights:
        assert {name.split(".")[0] for name in weights.keys()} == {
            "view_head",
            "region_head",
            "view_center",
            "region_center",
        }
    assert (published / CURVES).read_bytes().startswith(b"\x89PNG")


def test_it_loads_as_backbone_and_with_heads(run, published):
    source = EsViTForPreTraining.from_pretrained(run / "teacher")
    backbone, report = AutoModel.from_pretrained(published, output_loading_info=True)
    assert type(backbone) is EsViTModel and not any(report.values())
    model, report = AutoModelForPreTraining.from_pretrained(published, output_loading_info=True)
    assert type(model) is EsViTForPreTraining and not any(report.values())
    assert model.view_center.abs().max() > 0
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
        if name.startswith("esvit."):
            assert torch.equal(backbone.state_dict()[name.removeprefix("esvit.")], tensor)


def test_pretraining_goes_on_from_it(run, published):
    torch.manual_seed(7)
    source = EsViTForPreTraining.from_pretrained(run / "teacher")
    student, teacher = (EsViTForPreTraining(source.config) for _ in range(2))
    report = initialise(str(published), student, teacher, torch.optim.AdamW(group_parameters(student), lr=0.0))
    assert "view head and centre: kept" in report and "region head and centre: kept" in report
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_a_saved_copy_is_one_file_again(published, tmp_path):
    model = EsViTForPreTraining.from_pretrained(published)
    model.save_pretrained(tmp_path)
    again = EsViTForPreTraining.from_pretrained(tmp_path)
    assert not (tmp_path / HEADS).exists()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_options_tell_nothing_of_the_machine(run, published):
    assert not any(b"secret_place" in path.read_bytes() for path in published.iterdir())
    options = yaml.safe_load((published / OPTIONS).read_text())
    assert options["data"] == "train" and options["embed_dim"] == 8 and "output_dir" not in options
    again = parse_options(["--recipe", str(published / OPTIONS), "--data", "mine", "--output_dir", "again"])
    saved = yaml.safe_load((run / "options.yaml").read_text())
    different = again.differences(saved)
    assert set(different) == {"data"}


@pytest.mark.parametrize(
    ("data", "public"),
    [
        ("/home/ada/photographs", "photographs"),
        ("photographs:test", "photographs:test"),
        ("timm/imagenet-1k-wds", "timm/imagenet-1k-wds"),
        ("ILSVRC/imagenet-1k:validation", "ILSVRC/imagenet-1k:validation"),
        ("https://ada:word@example.org:8443/shards/0.tar?key=word", "https://example.org/shards/0.tar"),
    ],
)
def test_public_names(data, public):
    assert public_name(data) == public


def test_public_command(tmp_path):
    """Neither folders nor what only this machine has; the model has the name that it will be published by."""
    (tmp_path / "birds").mkdir()
    data = f"--train={tmp_path}/birds:train --test {tmp_path}/birds:test --shots 1% 5"
    words = f"/a/training/linear_features.py runs/mine {data} --features /a/b --output=/a/c.json --seeds 0"
    shown = "python training/linear_features.py MODEL --train=birds:train --test birds:test --shots 1% 5 --seeds 0"
    assert public_command(words.split(), "runs/mine") == shown


def test_card_of_a_run(run, published):
    text = (published / "README.md").read_text()
    assert card_problems(text) == ([], [])
    card = ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-feature-extraction")
    assert (card.data.license, card.data.model_name, card.data.datasets) == ("apache-2.0", "tiny", None)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    measured = [record["knn_k3_top1"] for record in log if "knn_k3_top1" in record]
    result = next(r for r in card.data.eval_results if "top-1" in r.metric_name)
    assert len(measured) == 2 and result.metric_value == round(100 * measured[-1], 2)
    assert "| epochs | 2 |" in text and "6 steps of 8 images" in text and f"]({CURVES})" in text
    assert "knn.py ada/tiny --train train --test test --k 3`, while training" in text
    assert "{{" not in text and "None" not in text


def test_a_card_holds_names_of_any_characters(run, tmp_path):
    """Of a folder, and of a result's figure: one row of the table, one code span, one word of the command."""
    shutil.copytree(run, tmp_path / "run")
    options = yaml.safe_load((run / "options.yaml").read_text()) | {"data": "my `best` | photos", "knn_train": None}
    (tmp_path / "run" / "options.yaml").write_text(yaml.safe_dump(options))
    figure = {"name": "a|b\n# c", "value": 0.5, "metric": "accuracy", "dataset": "x | y", "split": "t|u"}
    (tmp_path / "x.json").write_text(json.dumps({"command": "python `x` MODEL ", "figures": [figure]}))
    main([str(tmp_path / "run"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")])
    text = (tmp_path / "run-hub" / "README.md").read_text()
    assert "\n| a\\|b # c | 50.0% | x \\| y (t\\|u) | the publisher of this repository |\n" in text
    assert "\n| data | my `best` \\| photos |\n" in text and "without labels on `` my `best` | photos ``, task" in text
    assert "* `` python training/knn.py ada/x --train 'my `best` | photos' --test test --k 3 ``, while" in text
    assert card_problems(text) == ([], [])


def test_a_card_says_whose_sizes_an_unknown_backbone_takes():
    sizes = {"swin-tiny": "any size", "resnet-50": "any size"}
    assert {name: describe_architecture(EsViTConfig.from_architecture(name))["sizes"] for name in sizes} == sizes
    assert (
        describe_architecture(EsViTConfig(architecture="auto", backbone_config=PVT))["sizes"]
        == "any size that the backbone takes"
    )


def test_a_run_whose_log_or_options_are_damaged(run, tmp_path):
    """A process that is killed may leave half a line."""
    for name in ("whole", "damaged"):
        shutil.copytree(run, tmp_path / name)
    with (tmp_path / "whole" / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    assert find_source(tmp_path / "whole").records == find_source(run).records
    for text, message in ((": [", "options.yaml is damaged"), ("- a", "options.yaml holds no options")):
        (tmp_path / "damaged" / "options.yaml").write_text(text)
        with pytest.raises(SourceError, match=message):
            find_source(tmp_path / "damaged")


def test_best_checkpoint(run, tmp_path):
    """Its model, its steps, its figures, and the log up to it."""
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    source = find_source(run, "best")
    assert source.step == int(best["checkpoint"].removeprefix("step-")) == source.records[-1]["step"]
    assert source.scores()["knn_k3_top1"] == best["score"]
    main([str(run), "--repo_id", "ada/tiny", "--dry_run", "--checkpoint", "best", "--folder", str(tmp_path / "out")])
    published = AutoModel.from_pretrained(tmp_path / "out")
    trained = AutoModel.from_pretrained(run / "checkpoints" / "best" / "teacher")
    assert all(torch.equal(published.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_model_folder_metrics_licence_and_dry_run(tmp_path, capsys):
    with_heads(tmp_path / "model")
    tasks = ({}, {"task": "image-feature-extraction"})
    for number, (name, value) in enumerate({"k-NN top-1, k = 20": 0.875, "crops": 0.9}.items()):
        figure = {
            "name": name,
            "value": value,
            "metric": "accuracy",
            "dataset": "birds",
            "split": "test",
            **tasks[number],
        }
        result = {"command": f"python training/x{number}.py MODEL --test birds:test", "figures": [figure]}
        (tmp_path / f"{number}.json").write_text(json.dumps(result))
    arguments = ["--license", "mit", "--base_model", "org/base"]
    arguments += ["--metrics", str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    main([str(tmp_path / "model"), "--repo_id", "ada/birds", "--dry_run", *arguments])
    folder = tmp_path / "model-hub"
    printed = capsys.readouterr().out
    for path in folder.iterdir():
        assert f"{path.stat().st_size:,}  {path.name}" in printed
    assert "Nothing was sent" in printed
    card = ModelCard.load(folder / "README.md")
    shown = [(r.metric_name, r.dataset_name, r.dataset_split, r.metric_value) for r in card.data.eval_results]
    assert shown == [("k-NN top-1, k = 20 (%)", "birds", "test", 87.5), ("crops (%)", "birds", "test", 90.0)]
    names = [result.task_name for result in card.data.eval_results]
    assert names == ["Image classification", "Correspondence of regions"]
    assert (card.data.license, card.data.base_model) == ("mit", "org/base")
    for number in (0, 1):
        assert f"`python training/x{number}.py ada/birds --test birds:test`" in card.text
    assert not (folder / OPTIONS).exists() and not (folder / CURVES).exists() and card_problems(str(card)) == ([], [])


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"figures": []}', '{"command": "x", "figures": [{"name": "a", "value": 1}]}']
    + [json.dumps({"command": "x", "figures": [dict(name="a", metric="m", dataset="d", split=None, **fields)]})
       for fields in ({"value": 87.5}, {"value": "0.5"}, {"value": None}, {"value": 0.5, "task": "guessing"})],
)  # fmt: skip
def test_metrics_that_are_none(tmp_path, content):
    with_heads(tmp_path / "model")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit, match="x.json has no figures for a card"):
        main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")])


def test_publishing_is_repeatable(run, published):
    """What did not change has the same bytes, so the Hub need not be sent it again."""
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    main([str(run), "--repo_id", "ada/tiny", "--dry_run"])
    assert before == {path.name: path.read_bytes() for path in published.iterdir()}


def test_publication_can_be_published_again(published, tmp_path):
    """From a folder that was published: same weights and heads."""
    folder = shutil.copytree(published, tmp_path / "copy")
    main([str(folder), "--repo_id", "ada/again", "--dry_run"])
    for name in ("model.safetensors", HEADS):
        assert (tmp_path / "copy-hub" / name).read_bytes() == (published / name).read_bytes()


def test_native(tmp_path):
    torch.manual_seed(0)
    config = small_config(image_size=224, window_size=7, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    EsViTModel(config).save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), "--repo_id", "ada/native", "--dry_run", "--native"])
    folder = tmp_path / "model-native"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    )
    assert type(AutoModel.from_pretrained(folder)) is SwinModel
    text = (folder / "README.md").read_text()
    assert "trust_remote_code" not in text and "224 x 224 px only" in text and card_problems(text) == ([], [])


def test_own_card(tmp_path):
    with_heads(tmp_path / "model")
    card = tmp_path / "own.md"
    command = [str(tmp_path / "model"), "--repo_id", "ada/own", "--dry_run", "--card", str(card)]
    header = "license: mit\npipeline_tag: image-feature-extraction\ntags: [a]"
    card.write_text(f"---\n{header}\n---\n# org/own is mine\n")
    main(command)
    assert "# ada/own is mine" in (tmp_path / "model-hub" / "README.md").read_text()
    card.write_text("# no header\n")
    with pytest.raises(SystemExit, match="error: The card's metadata has no license"):
        main(command)
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(SystemExit, match="error: --card .*own.md is not text in UTF-8"):
        main(command)
    assert "# ada/own is mine" in (tmp_path / "model-hub" / "README.md").read_text()
    assert not list(tmp_path.glob("*.partial"))


def broken(tmp_path: Path, what: str) -> list[str]:
    """Arguments that cannot work."""
    folder = tmp_path / "model"
    if what == "no model":
        folder.mkdir()
    elif what == "checkpoint file":
        folder.write_bytes(b"")
    elif what == "other model":
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "swin"}')
    elif what == "damaged":
        with_heads(folder)
        (folder / "model.safetensors").write_bytes(b"damaged")
    elif what == "not native":
        with_heads(folder, window_size=8)
        return [str(folder), "--native"]
    elif what == "occupied":
        with_heads(folder)
        (tmp_path / "model-hub").mkdir()
        (tmp_path / "model-hub" / "thesis.txt").write_text("")
    elif what == "no checkpoints":
        with_heads(folder)
        return [str(folder), "--checkpoint", "best"]
    return [str(folder)]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "does not exist; name the folder of a run"),
        ("no model", "is neither a run nor a model folder"),
        ("checkpoint file", r"convert_original .*model FOLDER`; then publish FOLDER"),
        ("other model", "of type 'swin', not 'esvit'"),
        ("damaged", "The weights in .*model are damaged: .*[Hh]eader"),
        ("not native", "cannot carry this model"),
        ("occupied", "model-hub holds other files"),
        ("no checkpoints", "has no checkpoints to choose from"),
    ],
)
def test_refusals(tmp_path, what, message):
    arguments = broken(tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([*arguments, "--repo_id", "ada/x", "--dry_run"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["nameless", "a/b/c", "ada/wrong name", "ada/-x"])
def test_names_are_checked_before_anything_is_done(tmp_path, name, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--repo_id", name])
    assert "--repo_id" in capsys.readouterr().err


def test_run_without_a_model(tmp_path, run):
    (tmp_path / "run").mkdir()
    shutil.copy(run / "options.yaml", tmp_path / "run")
    with pytest.raises(SourceError, match="has no finished model; it has none yet"):
        find_source(tmp_path / "run")
    with pytest.raises(SourceError, match="has no last model"):
        find_source(tmp_path / "run", "last")
