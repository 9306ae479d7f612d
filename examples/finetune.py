# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Fine-tune a pretrained model as an image classifier, with the Trainer of transformers.

    python examples/finetune.py MODEL --data my/labelled --output_dir runs/classifier --epochs 20

`--data` is what `datasets.load_dataset` reads: a data set on the Hub, or a folder (`train/CLASS/*.jpg`, `test/...`, or
parquet files) with a column of images and one of classes. All weights are trained, the new classifier from zero. The
folder OUTPUT_DIR loads with `AutoModelForImageClassification`, and with `pipeline("image-classification")`.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import evaluate
import torch
from torchvision.transforms import v2
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BitImageProcessor,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)


METRIC = Path(__file__).resolve().parents[1] / "training" / "metrics" / "top_k_accuracy"


def load_model(name: str, classes: list[str]) -> PreTrainedModel:
    """The pretrained backbone with a new classifier of these classes."""
    return AutoModelForImageClassification.from_pretrained(
        name,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={label: number for number, label in enumerate(classes)},
    )


def training_transform(processor: BitImageProcessor) -> v2.Compose:
    """Random crops, flips and colours, at the size and with the statistics of the processor."""
    size = (processor.crop_size["height"], processor.crop_size["width"])
    return v2.Compose(
        [
            v2.RGB(),
            v2.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(processor.image_mean, processor.image_std),
        ]
    )


def transform_rows(rows: dict[str, list], transform: Any, image: str, label: str) -> dict[str, list]:
    return {"pixel_values": [transform(picture) for picture in rows[image]], "labels": rows[label]}


def transformed(rows: datasets.Dataset, transform: Any) -> datasets.Dataset:
    """Images as pixel values, made when they are read."""
    (image,) = (name for name, kind in rows.features.items() if isinstance(kind, datasets.Image))
    (label,) = (name for name, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel))
    return rows.with_transform(partial(transform_rows, transform=transform, image=image, label=label))


def class_names(rows: datasets.Dataset) -> list[str]:
    (names,) = (kind.names for kind in rows.features.values() if isinstance(kind, datasets.ClassLabel))
    return names


def accuracy(prediction: Any) -> dict[str, float]:
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    ranking = (-prediction.predictions).argsort(axis=1)[:, :5]
    return metric.compute(predictions=ranking, references=prediction.label_ids, top_k=(1,))


def finetune(options: argparse.Namespace) -> dict[str, float]:
    """Train, save, and return the metrics of the test split."""
    splits = datasets.load_dataset(options.data)
    processor = AutoImageProcessor.from_pretrained(options.model)
    evaluation = partial(evaluation_pixels, processor=processor)
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
    )
    trainer = Trainer(
        load_model(options.model, class_names(splits["train"])),
        arguments,
        train_dataset=transformed(splits["train"], training_transform(processor)),
        eval_dataset=transformed(splits[options.test_split], evaluation),
        processing_class=processor,
        compute_metrics=accuracy,
    )
    trainer.train()
    trainer.save_model()
    return trainer.evaluate()


def evaluation_pixels(image: Any, processor: BitImageProcessor) -> torch.Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or the name of a model on the Hub")
    parser.add_argument("--data", required=True, help="a labelled data set, by name or folder")
    parser.add_argument("--test_split", default="test", help="its split for the evaluation (default: %(default)s)")
    parser.add_argument("--output_dir", required=True, help="folder of the result")
    parser.add_argument("--epochs", type=float, default=20, help="(default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="images a device (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    metrics = finetune(parser.parse_args(arguments))
    print(f"accuracy on the test split: {metrics['eval_top1']:.1%}")
    return metrics


if __name__ == "__main__":
    main()
