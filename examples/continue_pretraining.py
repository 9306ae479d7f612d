# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Continues the pretraining of a published model on your own images, and measures what that is worth.

    python examples/continue_pretraining.py MODEL --data my/labelled --output runs/mine
    python examples/continue_pretraining.py MODEL --data my/labelled --output runs/more --epochs 50 --batch_size 16

`--data` has the splits `train` and `test` with classes. The classes serve only to measure k-NN accuracy, of MODEL as it
is and after the run. Without labels, `python training/pretrain.py --init_from MODEL --data my/images` does the same
training. The network is that of MODEL, and its heads are kept where they have the sizes asked for. The learning rate is
a fifth of that of a run from scratch, so that the run does not first lose what MODEL has learnt. All other options go
to pretrain.py.
"""

from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from examples.checkout import run_program
from modeling_esvit.images.models import load_image_model
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_name
from training.data.named_data import open_train_and_test
from training.evaluation.arguments import add_column_arguments, choose_columns
from training.evaluation.knn import evaluate_knn
from training.learning.init_from import find_origin
from training.options.command import run_command


def measure_accuracy(model: str, data: str, k: int, columns: dict[str, Any]) -> float:
    """Measures k-NN top-1 accuracy (0..1) of the test split against the training split."""
    train, test = open_train_and_test(f"{data}:train", f"{data}:test", **columns)
    network, processor = load_image_model(model)
    return evaluate_knn(network, make_evaluation_transform(processor), train, test, k=[k])[f"k{k}_top1"]


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder, a run, or the name of a model on the Hub")
    parser.add_argument("--data", type=parse_name, required=True, help="labelled images with the splits train and test")
    parser.add_argument("--output", type=parse_name, required=True, help="the folder of the run")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the run")
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate for 256 images a step")
    parser.add_argument("--k", type=int, default=20, help="number of neighbours")
    add_column_arguments(parser)
    options, rest = parser.parse_known_args(arguments)
    columns = choose_columns(options)
    command = ["--init_from", options.model, "--data", options.data, "--split", "train", "--output", options.output]
    command += ["--epochs", str(options.epochs), "--warmup_epochs", str(options.epochs // 10)]
    command += ["--warmup_teacher_temp_epochs", "0", "--warmup_teacher_temp", "0.07", "--lr", str(options.lr)]
    named = {name: value for name, value in columns.items() if value is not None and name != "label_column"}
    command += [f"--{name}={value}" for name, value in named.items()]
    before = measure_accuracy(find_origin(options.model).teacher, options.data, options.k, columns)
    print(f"{options.model}: k-NN {before:.1%}", flush=True)
    run_program("training/pretrain.py", *command, *rest)
    teacher = str(Path(options.output) / "teacher")
    after = measure_accuracy(teacher, options.data, options.k, columns)
    print(f"{options.model}: k-NN {before:.1%}; {teacher}: {after:.1%}")
    return before, after


if __name__ == "__main__":
    run_command(main)
