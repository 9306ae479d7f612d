# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands that a user types on data as strangers have it, and writes such data."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import training.knn as knn
import training.linear_features as linear_features
import training.linear_probe as linear_probe
import training.transfer as transfer
from tests.helpers.commands import type_arguments
from tests.helpers.shard_server import picture
from tests.helpers.tiny_runs import tiny
from training.options.command import run_command
from training.pretrain import main


TINY = "--batch_size 2 --max_steps 1 --epochs 1 --warmup_epochs 0 --warmup_teacher_temp_epochs 0"


def pretrain(data, output: Path, changes: str = "") -> Path:
    """Takes a step on data, as the command does. What stands in its way ends it with a line."""
    main(tiny(data, output, f"{TINY} {changes}"))
    return output


def refuse(data, output: Path, changes: str = "") -> str:
    """Returns the line that the command ends with."""
    with pytest.raises(SystemExit) as end:
        pretrain(data, output, changes)
    message = str(end.value.code)
    assert "Traceback" not in message
    return message


def count_images(output: Path) -> int:
    """Returns the number of images that a run began with."""
    return json.loads((output / "data.json").read_text())["identity"]["images"]


def number(members: dict[str, bytes]) -> dict[str, bytes]:
    """Returns members with pictures in place of numbers."""
    return {name: picture(content) if isinstance(content, int) else content for name, content in members.items()}


MAINS = {"knn": knn, "linear_features": linear_features, "linear_probe": linear_probe, "transfer": transfer}


def evaluate(monkeypatch, command: str, model: Path, train, test, output: Path, *more: object) -> dict | str:
    """Returns the result of an evaluation command, or the line that it ends with."""
    output.mkdir(exist_ok=True)
    named = ["--train", train, "--test", test, "--features", output / "features"]
    result = ["--output", output / "result.json"]
    data = f"{str(train).rpartition(':')[0]}:train:test"
    given = {
        "knn": [*named, *result, "--k", 1],
        "linear_features": [*named, *result, "--l2", 0.01],
        "linear_probe": [*named, "--output", output, "--epochs", 1, "--n_last_blocks", 1],
        "transfer": ["--data", f"own={data}", *result],
    }[command]
    type_arguments(monkeypatch, f"training/{command}.py", model, *given, *more)
    try:
        run_command(MAINS[command].main)
    except SystemExit as end:
        if end.code != transfer.INCOMPLETE:
            return str(end.code)
    result = json.loads((output / "result.json").read_text())
    own = result["datasets"]["own"] if command == "transfer" else result
    return own.get("reason") or own


def write_rows(path: Path, labels: list, kind: pa.DataType) -> Path:
    path.parent.mkdir(exist_ok=True)
    images = [{"bytes": picture(index, 32), "path": None} for index in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": pa.array(labels, kind)}), path)
    return path
