# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what a card says of a run, of results and of names of any characters."""

import json
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_esvit.storage.atomic import rewrite_recorded
from modeling_esvit.storage.manifest import list_names
from modeling_esvit.storage.run_log import format_record
from modeling_esvit.storage.weights_record import WeightsRecord, write_weights_record
from tests.helpers.tiny_models import save_with_heads
from tests.hub.uploads import card_problems
from training.publish import main
from training.publishing.folder import CURVES, OPTIONS
from training.state.provenance_record import write_provenances


def test_card_of_a_run(run, published):
    text = (published / "README.md").read_text()
    assert card_problems(text) == ([], [])
    card = ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-feature-extraction")
    assert (card.data.license, card.data.model_name, card.data.datasets) == (None, "tiny", None)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    measured = [record["knn_k3_top1"] for record in log if "knn_k3_top1" in record]
    (result,) = card.data.eval_results
    assert len(measured) == 2 and result.metric_value == round(100 * measured[-1], 2)
    before = next(record["start_k3_top1"] for record in log if "start_k3_top1" in record)
    shares = [f"{round(100 * share, 2)}%" for share in (measured[-1], before)]
    row = f"| k-NN top-1, k = 3 | {shares[0]} | 50.0% | {shares[1]} | a folder of images |"
    assert "| | result | chance | before training | data | measured by |\n| --- | --- | --- | --- | --- | --- |" in text
    assert row in text and "made with EsViT for the Hugging Face ecosystem, which trains" in text.replace("[", "")
    assert "pretrained without labels on a folder of images" in text and "This model is the teacher." in text
    assert "self-supervised-learning" in card.data.tags and "The run started from random weights." in text
    assert "| epochs | 2 |" in text and "6 steps of 8 images" in text and f"]({CURVES})" in text
    assert "knn.py ada/tiny --train FOLDER --test FOLDER --k 3`, while training" in text
    assert "{{" not in text and "None" not in text


def test_a_card_names_the_share_that_was_held_out(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    options = yaml.safe_load((run / "options.yaml").read_text()) | {"knn_train": "org/birds:train", "knn_test": None}
    rewrite_recorded(tmp_path / "run" / "options.yaml", yaml.safe_dump(options))
    write_provenances(tmp_path / "run", options)
    main([str(tmp_path / "run"), "--repo_id", "ada/x", "--dry_run"])
    text = (tmp_path / "run-hub" / "README.md").read_text()
    assert "| org/birds (20% of each class of train) |" in text and card_problems(text) == ([], [])
    assert "knn.py ada/x --train org/birds:train --k 3`, while training" in text


def test_a_card_says_what_training_was_worth(run, tmp_path):
    """Reads from the log what the model gave before training, also for a checkpoint of before its last line."""
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write(format_record({"step": 6, "start_k3_top1": 0.25}))
    for which in ("best", "final"):
        main([str(tmp_path / "run"), "--repo_id", "ada/x", "--dry_run", "--checkpoint", which])
        text = (tmp_path / "run-hub" / "README.md").read_text()
        assert "| | result | chance | before training | data |" in text and "% | 50.0% | 25.0% | a folder" in text


def test_a_card_holds_names_of_any_characters(run, tmp_path):
    """Keeps the name of a figure, its data or a split in one cell, one code span and one word of the command."""
    shutil.copytree(run, tmp_path / "run")
    options = yaml.safe_load((run / "options.yaml").read_text()) | {"data": "org/photos:my `best` | ones"}
    options |= {"knn_train": None, "split": "a | b"}
    rewrite_recorded(tmp_path / "run" / "options.yaml", yaml.safe_dump(options))
    write_provenances(tmp_path / "run", options)
    figure = {"name": "a|b\n# c", "value": 0.5, "metric": "accuracy", "dataset": "x | y", "split": "t|u"}
    (tmp_path / "x.json").write_text(json.dumps({"command": "python `x` MODEL ", "figures": [figure]}))
    main([str(tmp_path / "run"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")])
    text = (tmp_path / "run-hub" / "README.md").read_text()
    assert "\n| a\\|b # c | 50.0% |  |  | x \\| y (t\\|u) | the publisher of this repository |\n" in text
    assert "\n| data | org/photos |\n" in text and "\n| split | a \\| b |\n" in text
    assert (
        "* `` python training/knn.py ada/x --train 'org/photos:my `best` | ones' --test FOLDER --k 3 ``, while" in text
    )
    assert card_problems(text) == ([], [])


def test_model_folder_metrics_licence_and_dry_run(tmp_path, capsys):
    save_with_heads(tmp_path / "model")
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
    for name in list_names(folder):
        assert f"{(folder / name).stat().st_size:,}  {name}" in printed
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


def test_results_on_a_benchmark_are_in_the_form_of_the_hub(tmp_path, capsys):
    save_with_heads(tmp_path / "model")
    figure = {"name": "top-1", "value": 0.5, "metric": "accuracy", "dataset": "org/birds", "split": "test"}
    (tmp_path / "x.json").write_text(json.dumps({"command": "python x MODEL ", "figures": [figure]}))
    command = [str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")]
    main([*command, "--benchmark", "org/birds=default"])
    names = list_names(tmp_path / "model-hub")
    assert ".eval_results/esvit-org-birds-top-1.yaml" in names
    assert ".eval_results/esvit-org-birds-top-1.yaml" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--benchmark org/cats: the card has no result on it; measured was org/birds"):
        main([*command, "--benchmark", "org/cats=default"])
    with pytest.raises(SystemExit):
        main([*command, "--benchmark", "org/birds"])
    assert "--benchmark org/birds must be DATASET=TASK" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"figures": []}', '{"command": "x", "figures": [{"name": "a", "value": 1}]}']
    + [json.dumps({"command": "x", "figures": [dict(name="a", metric="m", dataset="d", split=None, **fields)]})
       for fields in ({"value": 87.5}, {"value": "0.5"}, {"value": None}, {"value": 0.5, "task": "guessing"})],
)  # fmt: skip
def test_metrics_that_are_none(tmp_path, content):
    save_with_heads(tmp_path / "model")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit, match="x.json has no figures for a card"):
        main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")])


def test_own_card(tmp_path):
    save_with_heads(tmp_path / "model")
    card = tmp_path / "own.md"
    command = [str(tmp_path / "model"), "--repo_id", "ada/own", "--dry_run", "--card", str(card)]
    header = "license: mit\npipeline_tag: image-feature-extraction\ntags: [a]"
    card.write_text(f"---\n{header}\n---\n# org/own is mine\n")
    main(command)
    assert "# ada/own is mine" in (tmp_path / "model-hub" / "README.md").read_text()
    card.write_text("# no header\n")
    with pytest.raises(SystemExit, match="error: The card's metadata has no pipeline_tag"):
        main(command)
    with pytest.raises(SystemExit, match="error: --card .*none.md cannot be read"):
        main([*command[:-1], str(tmp_path / "none.md")])
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(SystemExit, match="error: --card .*own.md is not text in UTF-8"):
        main(command)
    assert "# ada/own is mine" in (tmp_path / "model-hub" / "README.md").read_text()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "options, said",
    [
        # huggingface_hub issue 1927, transformers issues 13528 and 32212: the Hub says so after everything was sent
        ("--license not-a-licence", "the Hub knows no license 'not-a-licence'"),
        ("--license other", "a license 'other' needs a license_name"),
        ("--license other --license_name x --license_link https://ada:p/w@h/l", "license_link has a login in it"),
        ("--license_name lab-2026", "--license_name and --license_link describe a licence"),
        ("--base_model ./runs/x", "--base_model ./runs/x is no name on the Hub"),
        ("--base_model /home/ada/teacher", "--base_model /home/ada/teacher is no name on the Hub"),
    ],
)
def test_what_the_hub_would_refuse_is_said_in_a_dry_run(tmp_path, options, said, capsys):
    save_with_heads(tmp_path / "model")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", *options.split()])
    assert said in f"{ended.value}{capsys.readouterr().err}"
    assert not (tmp_path / "model-hub").exists()


def test_a_model_without_a_record_is_not_said_to_be_trained_in_any_way(tmp_path, capsys):
    save_with_heads(tmp_path / "model")
    main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--base_model", "org/base"])
    card = ModelCard.load(tmp_path / "model-hub" / "README.md")
    for claim in ("without labels", "teacher", "colour jitter", "Citation", "learnt", "EsViT ("):
        assert claim not in card.text, claim
    assert (
        card.text.count("not recorded") == 1 and "names `org/base` as the model that it was trained from" in card.text
    )
    assert card.data.tags == ["esvit", "vision"] and "names no licence" in capsys.readouterr().out


def test_the_licence_that_is_recorded_with_weights(tmp_path, capsys):
    """It is taken unless another is given, which is remarked."""
    save_with_heads(tmp_path / "model")
    write_weights_record(tmp_path / "model", WeightsRecord("the package x", license="apache-2.0"))
    command = [str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run"]
    for given, named, remark in (
        ([], "apache-2.0", "The card names the licence apache-2.0, which is recorded with the weights"),
        (["--license", "mit"], "mit", "Note: the card names the licence mit, but the weights have apache-2.0"),
        (["--license", "apache-2.0"], "apache-2.0", ""),
    ):
        main([*command, *given])
        out = capsys.readouterr().out
        assert remark in out and ("the licence" in out) == bool(remark)
        assert ModelCard.load(tmp_path / "model-hub" / "README.md").data.license == named
    assert (tmp_path / "model-hub" / "provenance.json").is_file()


def test_a_licence_of_ones_own(tmp_path):
    save_with_heads(tmp_path / "model")
    named = ["--license", "other", "--license_name", "lab-2026", "--license_link", "https://lab.org/licence"]
    main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", *named])
    card = ModelCard.load(tmp_path / "model-hub" / "README.md")
    assert (card.data.license, card.data.license_name, card.data.license_link) == (*named[1::2],)
    assert card_problems(str(card)) == ([], [])


def test_a_folder_is_no_base_model(tmp_path, monkeypatch, capsys):
    """Not even one whose path has the form of a name."""
    save_with_heads(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    with pytest.raises(SystemExit):
        main(["model", "--repo_id", "ada/x", "--dry_run", "--base_model", "runs/x"])
    assert "--base_model runs/x" in capsys.readouterr().err
