# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes a pretrained model as an image classifier, with the Trainer of transformers.

    python examples/finetune.py MODEL --data my/labelled --output_dir runs/classifier --epochs 20
    python examples/finetune.py MODEL --data my/labelled --output_dir runs/classifier --output results/finetuned.json
    torchrun --nproc_per_node 8 examples/finetune.py MODEL --data my/labelled --output_dir runs/classifier

`--data` is what `datasets.load_dataset` reads: a data set on the Hub, or a folder (`train/CLASS/*.jpg`, `test/...`,
parquet files, or one of `save_to_disk`) with a column of images and one of classes, which `--label_column` names. All
weights are trained; the classifier is new. The folder OUTPUT_DIR loads with `AutoModelForImageClassification` and with
`pipeline("image-classification")`. `--output` writes the accuracies of the last epoch as JSON, with a table and a
picture of all epochs beside it. `--resume` continues from the last complete epoch.
"""

import argparse
import math
import sys
from functools import partial
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BitImageProcessor,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from modeling_esvit.images.decoding import decode
from modeling_esvit.images.models import name_transformers_errors
from modeling_esvit.storage.paths import parse_name, parse_path


try:
    import datasets
    import evaluate
except ModuleNotFoundError as error:
    sys.exit(f"error: this needs the package {error.name}: pip install -e '.[training,examples]'")


from modeling_esvit.embed.engine import FeatureError
from training.data.columns import DataOptionError, ImageColumns
from training.data.sources import load_rows
from training.evaluation.arguments import add_column_arguments, check_output
from training.evaluation.results import format_table, make_card_values, write_result
from training.evaluation.scores import METRIC, TOP_K
from training.features.extraction import Transform, make_evaluation_transform
from training.figures.accuracy import draw_epochs
from training.options.command import run_command
from training.options.url_secrets import parse_data


def load_model(name: str, classes: list[str]) -> tuple[PreTrainedModel, BitImageProcessor]:
    """Loads the pretrained backbone with a new classifier of these classes, and its image processor.

    Raises:
        OSError: there is no such model, or it does not take images.
    """
    with name_transformers_errors(name):
        model = AutoModelForImageClassification.from_pretrained(
            name,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={label: number for number, label in enumerate(classes)},
        )
        return model, AutoImageProcessor.from_pretrained(name)


def make_training_transform(processor: BitImageProcessor) -> v2.Compose:
    """Builds random crops, flips and colours, at the size and with the statistics of the processor."""
    side = processor.crop_size if processor.do_center_crop else processor.size
    size = (side["height"], side["width"])
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(processor.image_mean, processor.image_std),
        ]
    )


def transform_rows(rows: dict[str, list], columns: ImageColumns, transform: Transform) -> dict[str, list]:
    """Decodes and transforms the images of rows. 16-bit and float images become RGB too.

    Raises:
        UnreadableImageError: an image cannot be decoded.
    """
    singly = (dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True))
    records = [columns.record(row) for row in singly]
    return {"pixel_values": [transform(decode(each)) for each in records], "labels": [each.label for each in records]}


def apply_transform(rows: datasets.Dataset, columns: ImageColumns, transform: Transform) -> datasets.Dataset:
    """Returns the rows with images as pixel values, which are made when a row is read."""
    return columns.select(rows).with_transform(partial(transform_rows, columns=columns, transform=transform))


def load_splits(options: argparse.Namespace) -> tuple[datasets.Dataset, datasets.Dataset, ImageColumns, list[str]]:
    """Loads training and test rows, and returns them with their columns and the names of the classes.

    Raises:
        DataOptionError: there is no such split, or not one column of images and one of two or more classes.
        OSError: there is no such data.
    """
    train, test = (
        load_rows(options.data, split=split, config_name=options.config_name) for split in ("train", options.test_split)
    )
    columns = ImageColumns.find(train.features, options.image_column, options.label_column, strings=True)
    columns = number_classes(train, columns.number_names(train))
    classes = columns.class_names or []
    if len(classes) < 2:
        raise DataOptionError(
            f"{options.data!r} has no column of two or more classes (--label_column), only {columns.described}. In a "
            f"folder, put the images of each class into one of their own: {options.data}/train/CLASS."
        )
    return train, test, columns, classes


def number_classes(train: datasets.Dataset, columns: ImageColumns) -> ImageColumns:
    """Returns the columns with a class for each number from 0 to the highest, if labels are numbers without names.

    Raises:
        DataOptionError: a label is no number of a class.
    """
    if columns.label is None or columns.class_names is not None:
        return columns
    numbers = train.unique(columns.label)
    if None in numbers or min(numbers, default=0) < 0:
        raise DataOptionError(f"label_column {columns.label!r} has rows without a class: leave them out.")
    return columns._replace(class_names=[str(number) for number in range(int(max(numbers, default=-1)) + 1)])


def compute_accuracy(prediction: Any) -> dict[str, float]:
    """Computes top-1 and top-5 accuracy (0..1). With five classes or fewer, top-5 is 1.

    Raises:
        FeatureError: a prediction is NaN or infinite.
    """
    if not np.isfinite(prediction.predictions).all():
        raise FeatureError(
            "the predictions are not finite: the model's weights are broken, or the training diverged (lower --lr)."
        )
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    ranking = (-prediction.predictions).argsort(axis=1)[:, : max(TOP_K)]
    ranking = np.pad(ranking, ((0, 0), (0, max(TOP_K) - ranking.shape[1])), constant_values=-1)
    return metric.compute(predictions=ranking, references=prediction.label_ids, top_k=TOP_K)


def finetune(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and saves the classifier, and returns its accuracies on the test split with the settings of the run."""
    train, test, columns, classes = load_splits(options)
    set_seed(options.seed)  # for the new classifier; the Trainer comes later
    model, processor = load_model(options.model, classes)
    arguments = TrainingArguments(
        output_dir=options.output_dir,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.lr,
        weight_decay=0.05,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=10,
        remove_unused_columns=False,
        report_to="none",
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),  # otherwise torchrun's processes on a CPU do not form one group
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=apply_transform(train, columns, make_training_transform(processor)),
        eval_dataset=apply_transform(test, columns, make_evaluation_transform(processor)),
        processing_class=processor,
        compute_metrics=compute_accuracy,
    )
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model()
    history = [
        {"epoch": row["epoch"], "top1": row["eval_top1"], "top5": row["eval_top5"]}
        for row in trainer.state.log_history
        if "eval_top1" in row
    ]
    about = {name: getattr(options, name) for name in ("model", "epochs", "batch_size", "lr", "seed")}
    data = {"train": f"{options.data}:train", "test": f"{options.data}:{options.test_split}"}
    counts = {"train_images": len(train), "test_images": len(test), "classes": len(classes)}
    scores = {name: history[-1][name] for name in ("top1", "top5")}
    return {**about, **data, **counts, **scores, "history": history}


def make_table(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    about = "{classes} classes, {train_images} training and {test_images} test images, {epochs} epochs.".format(
        **result
    )
    scores = [f"{result[name]:.2%}" for name in ("top1", "top5")]
    return "\n".join([about, "", *format_table(["top-1", "top-5"], [scores])])


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=parse_name, help="a model folder or the name of a model on the Hub")
    parser.add_argument("--data", type=parse_data, required=True, help="a labelled data set, by name or folder")
    parser.add_argument("--test_split", default="test", help="the split to evaluate on (default: %(default)s)")
    parser.add_argument("--output_dir", required=True, help="the folder for the classifier")
    parser.add_argument(
        "--output", type=parse_path, help="a JSON file for the result; beside it, a table and a picture"
    )
    parser.add_argument("--epochs", type=float, default=20, help="(default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="images a device (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add_column_arguments(parser)
    options = parser.parse_args(arguments)
    check_output(parser, options.output)
    if options.batch_size < 1 or not (0 < options.epochs < math.inf and 0 < options.lr < math.inf):
        parser.error("--epochs and --lr must be positive and finite, and --batch_size at least 1")
    result = finetune(options)
    figures = make_card_values({f"fine-tuning top-{k}": result[f"top{k}"] for k in TOP_K}, result["test"])
    write_result(result, f"Fine-tuning of {options.model}", make_table(result), options.output, figures, draw_epochs)
    return result


if __name__ == "__main__":
    run_command(main)
