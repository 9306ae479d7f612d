# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes a pretrained model as an image classifier, with the Trainer of transformers.

    python examples/finetune.py MODEL --data my/labelled --output runs/classifier --epochs 20
    python examples/finetune.py MODEL --data photographs --output runs/classifier     # photographs/CLASS/*.jpg alone
    python examples/finetune.py MODEL --data my/labelled --output runs/classifier --result results/finetuned.json
    torchrun --nproc_per_node 8 examples/finetune.py MODEL --data my/labelled --output runs/classifier

`--data` is a data set on the Hub, or a folder (`train/CLASS/*.jpg` and `test/CLASS/*.jpg`, parquet or zip files, or one
of `save_to_disk`) with a column of images and one of classes, which `--label_column` names. Of a folder without `train`
(`CLASS/*.jpg`), `--test_share` of each class is held out for testing. All weights are trained; the classifier is new.
The folder OUTPUT loads with `AutoModelForImageClassification` and with `pipeline("image-classification")`. Images that
cannot be read are found before training, named and left out, up to `--max_unreadable`. `--result` writes the accuracies
of the last epoch as JSON, with a table and a picture of all epochs beside it. `--resume` continues from the newest
checkpoint that is as it was written.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
import torch
from torch.utils.data import Dataset
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
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.decoding import decode
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.images.hub import find_reachable_model
from modeling_esvit.images.models import guard_weights, name_transformers_errors, read_fields, require_weights
from modeling_esvit.images.wording import show_number
from modeling_esvit.programs.packages import exit_without_package
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.weight_bars import hide_load_report, hide_weight_bars


with exit_without_package():
    import evaluate
    from accelerate import PartialState

    from examples.finetune_checkpoints import CheckpointRecorder, find_checkpoint, require_new

from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.images.transform import Transform, find_size, make_evaluation_transform
from modeling_esvit.storage.failed_writes import name_failed_write
from modeling_esvit.storage.url_secrets import parse_data
from training.data.held_out import SHARE
from training.data.identity import identify_source
from training.data.left_out import repeat_left_out
from training.data.named_data import open_held_out, open_named, refuse_output_in_data
from training.data.readable import find_readable
from training.data.shard_stream import ShardStream
from training.data.sources import (
    DatasetSource,
    FolderSource,
    ImageSource,
    describe_labels,
    is_image_folder,
    name_numbers,
)
from training.evaluation.arguments import add_column_arguments, check_folder, check_output, choose_columns
from training.evaluation.class_names import match_classes
from training.evaluation.results import find_test_data, format_table, make_card_values, write_result
from training.evaluation.scores import METRIC, TOP_K, find_tops, list_tops
from training.features.extraction import UnlabelledDataError
from training.figures.accuracy import draw_epochs
from training.monitoring.next_commands import describe_classifier
from training.options.command import parse_seed, run_command


def load_model(name: str, classes: list[str]) -> tuple[PreTrainedModel, BitImageProcessor]:
    """Loads the pretrained backbone with a new classifier of these classes, and its image processor.

    Raises:
        OSError: there is no such model, it does not take images, or it lacks weights of the backbone.
    """
    name = find_reachable_model(name)
    with name_transformers_errors(name), hide_weight_bars(), hide_load_report():
        read_fields(name)
        with guard_weights(name):
            model, loading = AutoModelForImageClassification.from_pretrained(
                name,
                id2label=dict(enumerate(classes)),
                label2id={label: number for number, label in enumerate(classes)},
                ignore_mismatched_sizes=True,  # of another classifier in its place
                output_loading_info=True,
            )
        require_weights(name, list_lacking(model, loading))
        return model, AutoImageProcessor.from_pretrained(name)


def list_lacking(model: PreTrainedModel, loading: dict[str, Any]) -> list[str]:
    """Returns the weights of the backbone that the files of a model lack, or have in another shape."""
    backbone = {name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")}
    return sorted(backbone & {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})


def make_training_transform(processor: BitImageProcessor) -> v2.Compose:
    """Builds random crops, flips and colours, at the size and with the statistics of the processor."""
    size = find_size(processor.to_dict())
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


class SourceImages(Dataset[dict[str, Any]]):
    """Reads labelled images of a source, as training and evaluation do, with the numbers of the classes in `classes`.

    Args:
        items: numbers of the images in the source, all of which can be read.

    Raises:
        UnreadableImageError: while reading: an image cannot be decoded any more.
        UnlabelledDataError: an image has no label.
        DataOptionError, ClassNameError: the source has a class that is none of `classes`.
    """

    def __init__(
        self, source: FolderSource | DatasetSource, items: Sequence[int], classes: list[str], transform: Transform
    ) -> None:
        self.source, self.items, self.transform = source, items, transform
        if not source.has_labels:
            raise UnlabelledDataError(f"fine-tuning needs labels of all images. {describe_labels(source)}")
        self.numbers, labels = match_classes(classes, source.class_names), source.list_labels()
        wrong = next((item for item in items if labels[item] not in self.numbers), None)
        if wrong is None:
            return
        name, label = source.read(wrong).identity(), labels[wrong]
        if label is None or label < 0:
            raise UnlabelledDataError(f"{name} has no label; fine-tuning needs one for each image.")
        raise DataOptionError(f"{name} has class {label}, which no training image has.")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source.read(self.items[index])
        return {"pixel_values": self.transform(decode(record)), "labels": self.numbers[record.label]}


def open_split(options: argparse.Namespace, split: str) -> FolderSource | DatasetSource:
    """Opens the images of a split.

    Raises:
        DataOptionError: they are a stream, as tar files are.
    """
    source = open_named(options.data, split, decoding=read_decoding_arguments(options), **choose_columns(options))
    if isinstance(source, ShardStream):
        raise DataOptionError(f"{options.data!r} is read as a stream; fine-tuning needs a folder or parquet files.")
    return source


def open_test_split(options: argparse.Namespace) -> FolderSource | DatasetSource:
    """Opens the test images; the error for those that cannot be opened names the other way to have some."""
    try:
        return open_split(options, options.test_split)
    except (DataNotFoundError, DataOptionError) as error:
        raise type(error)(f"{error} Or hold out a share of each class for testing: --test_share {SHARE}.") from error


Splits = tuple[FolderSource | DatasetSource, FolderSource | DatasetSource, list[str]]


def open_parts(options: argparse.Namespace) -> list[Any]:
    """Opens training and test images: two splits, or one whole of which a share of each class is held out."""
    if options.test_share is None:
        return [open_split(options, "train"), open_test_split(options)]
    decoding = read_decoding_arguments(options)
    return open_held_out(options.data, options.test_share, decoding=decoding, **choose_columns(options))


def name_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the entries of a result that name the data."""
    if options.test_share is None:
        return {"train": f"{options.data}:train", "test": f"{options.data}:{options.test_split}"}
    return {"train": options.data, "test": None, "test_share": options.test_share}


def is_unparted(options: argparse.Namespace) -> bool:
    """Returns whether the data are a folder of images without a subfolder for training."""
    return is_image_folder(options.data, options.image_column) and not Path(options.data, "train").is_dir()


def open_splits(options: argparse.Namespace) -> Splits:
    """Opens training and test images, and returns them with the names of the classes.

    Raises:
        DataOptionError: there is no such split, or not one column of images and one of two or more classes.
        DataNotFoundError, EmptySourceError: there is no such data, or no image in it.
    """
    train, test = open_parts(options)
    classes = train.class_names or name_numbers(train)
    if len(classes) < 2:
        raise DataOptionError(
            f"{options.data!r} has no column of two or more classes (--label_column). {describe_labels(train)} In a "
            f"folder, put the images of each class into one of their own: {options.data}/train/CLASS."
        )
    return train, test, classes


def compute_accuracy(prediction: Any) -> dict[str, float]:
    """Computes top-1 and, of more than five classes, top-5 accuracy (0..1).

    Raises:
        FeatureError: a prediction is NaN or infinite.
    """
    if not np.isfinite(prediction.predictions).all():
        raise FeatureError(
            "the predictions are not finite: the model's weights are broken, or the training diverged (lower --lr)."
        )
    metric, tops = evaluate.load(str(METRIC), keep_in_memory=True), list_tops(prediction.predictions.shape[1])
    ranking = (-prediction.predictions).argsort(axis=1)[:, : max(TOP_K)]
    ranking = np.pad(ranking, ((0, 0), (0, max(TOP_K) - ranking.shape[1])), constant_values=-1)
    return metric.compute(predictions=ranking, references=prediction.label_ids, top_k=tops)


class NamingTrainer(Trainer):
    """Names the folder of the output where it cannot be written, as on a full disk; the Trainer does not."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        with name_failed_write(Path(str(self.args.output_dir))):
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        with name_failed_write(Path(str(self.args.output_dir))):
            super()._save_checkpoint(*arguments, **options)


def describe_call(
    options: argparse.Namespace, train: ImageSource, test: ImageSource, classes: list[str]
) -> dict[str, Any]:
    """Returns by name what a fine-tuning that is continued has to keep; more epochs lengthen it."""
    named = {name: getattr(options, name) for name in ("model", "batch_size", "lr", "seed")}
    images = {name: identify_source(source).compute_key() for name, source in (("train", train), ("test", test))}
    return named | choose_columns(options) | read_decoding_arguments(options).describe() | images | {"classes": classes}


def make_training_arguments(options: argparse.Namespace) -> TrainingArguments:
    return TrainingArguments(
        output_dir=options.output,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.lr,
        weight_decay=0.05,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,  # one is whole while the other is written
        logging_steps=10,
        remove_unused_columns=False,
        report_to="none",
        seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),  # otherwise torchrun's processes on a CPU do not form one group
    )


def finetune(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and saves the classifier, and returns its accuracies on the test split with the settings of the run."""
    output = Path(options.output)
    if not options.resume:
        require_new(output)
    train, test, classes = open_splits(options)
    set_seed(options.seed)  # for the new classifier; the Trainer comes later
    model, processor = load_model(options.model, classes)
    arguments = make_training_arguments(options)
    data = name_parts(options)
    train_name, test_name = data["train"], data["test"] or data["train"]
    train_items, train_skipped = find_readable(train, options.max_unreadable, f"checking {train_name}")
    test_items, test_skipped = find_readable(test, options.max_unreadable, f"checking {test_name}")
    train_skipped.warn()
    test_skipped.warn()
    call = describe_call(options, train, test, classes)
    checkpoint = find_checkpoint(output, call) if options.resume else None
    trainer = NamingTrainer(
        model,
        arguments,
        train_dataset=SourceImages(train, train_items, classes, make_training_transform(processor)),
        eval_dataset=SourceImages(test, test_items, classes, make_evaluation_transform(processor)),
        processing_class=processor,
        compute_metrics=compute_accuracy,
        callbacks=[CheckpointRecorder(output, call)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    tops = [f"top{k}" for k in list_tops(len(classes))]
    history = [
        {"epoch": row["epoch"], **{top: row[f"eval_{top}"] for top in tops}}
        for row in trainer.state.log_history
        if "eval_top1" in row
    ]
    about = {name: getattr(options, name) for name in ("model", "epochs", "batch_size", "lr", "seed")}
    counts = {"train_images": len(train_items), "test_images": len(test_items), "classes": len(classes)}
    counts["unreadable_images"] = len(train_skipped.skipped) + len(test_skipped.skipped)
    repeat_left_out(train_name, train, train_skipped)
    repeat_left_out(test_name, test, test_skipped)
    scores = {top: history[-1][top] for top in tops}
    return {**about, **data, **counts, **scores, "history": history}


def make_table(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    about = "{classes} classes, {train_images} training and {test_images} test images, {epochs:g} epochs.".format(
        **result
    )
    if unreadable := result["unreadable_images"]:
        about += f" Left out: {show_number(unreadable, 'unreadable images')}."
    tops = find_tops(result)
    scores = [f"{result[f'top{top}']:.2%}" for top in tops]
    return "\n".join([about, "", *format_table([f"top-{top}" for top in tops], [scores])])


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses options that cannot be, before any image is read; sets which of them are for testing.

    Raises:
        DataOptionError: the result would lie among the images.
    """
    check_output(parser, options.result, "--result")
    check_folder(parser, options.output)
    check_counts(parser, options, "batch_size")
    if not (0 < options.epochs < math.inf and 0 < options.lr < math.inf):
        parser.error(f"--epochs and --lr must be positive and finite, got {options.epochs:g} and {options.lr:g}")
    if not 0 <= options.max_unreadable <= 1:
        parser.error(f"--max_unreadable must lie in 0 .. 1, got {options.max_unreadable}")
    if options.test_share is not None and not 0 < options.test_share < 1:
        parser.error(f"--test_share must lie between 0 and 1, got {options.test_share}")
    if options.test_share is not None and options.test_split is not None:
        parser.error("--test_share holds images of --data out for testing, and --test_split names others: give one.")
    if options.test_share is None and options.test_split is None and is_unparted(options):
        options.test_share = SHARE
    options.test_split = options.test_split or "test"
    if options.result is not None and options.test_share is not None:
        refuse_output_in_data(options.result, options.data)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = ProgramParser(__doc__, first="result epochs batch_size lr test_split resume label_column")
    parser.add_argument("model", type=parse_name, help="a model folder or the name of a model on the Hub")
    parser.add_argument("--data", type=parse_data, required=True, help="a labelled data set, by name or folder")
    parser.add_argument("--test_split", help="the split to evaluate on (default: test)")
    parser.add_argument(
        "--test_share",
        type=float,
        help=f"share of each class of DATA to hold out for testing, without splits (default: {SHARE} of a folder that "
        "has no subfolder train)",
    )
    parser.add_argument("--output", type=parse_path, required=True, help="the folder for the classifier")
    parser.add_argument(
        "--result", type=parse_path, help="a JSON file for the result; beside it, a table and a picture"
    )
    parser.add_argument("--epochs", type=float, default=20, help="epochs of training")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch of each process")
    parser.add_argument("--lr", type=float, default=5e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=parse_seed, default=0, help="seed of the classifier, order and views")
    parser.add_argument(
        "--max_unreadable",
        type=float,
        default=0.01,
        help="share, 0..1, of the images of a split that may be unreadable; ten always may, unless it is 0",
    )
    add_decoding_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT")
    add_column_arguments(parser)
    options = parser.parse_args(arguments)
    check_options(parser, options)
    result = finetune(options)
    values = {f"fine-tuning top-{k}": result[f"top{k}"] for k in find_tops(result)}
    figures = make_card_values(values, find_test_data(result))
    write_result(result, f"Fine-tuning of {options.model}", make_table(result), options.result, figures, draw_epochs)
    if PartialState().is_main_process:
        print(describe_classifier(options.output))
    return result


if __name__ == "__main__":
    run_command(main)
