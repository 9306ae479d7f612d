# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the model card of a published folder: usage, results and, if a run made the model, its recipe and data."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_esvit import EsViTForPreTraining, EsViTModel
from training.data.held_out import SHARE
from training.evaluation.results import CardValue, make_knn_values, name_held_out
from training.options.public_options import UNKNOWN
from training.publishing.card_template import (
    TASKS,
    Card,
    CardError,
    check_card,
    describe_architecture,
    format_code,
)
from training.publishing.eval_results import write_eval_results
from training.publishing.folder import CURVES, HEADS, OPTIONS
from training.publishing.licenses import License
from training.publishing.project import describe_project
from training.publishing.source import Source, SourceError


USE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}", trust_remote_code=True)
extract = pipeline("image-feature-extraction", model="{repo_id}", trust_remote_code=True)
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

`trust_remote_code=True` runs the code files of this repository, which need only torch and transformers; after
`import modeling_esvit` it is not needed. Images may have {sizes}. `model(pixel_values)` returns the features of the
regions as `last_hidden_state` and the view feature as `pooler_output`."""
USE_HEADS = """

`AutoModelForPreTraining` also loads heads and centres; `pretrain.py --init_from {repo_id}` starts from all three."""
USE_NATIVE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}")
extract = pipeline("image-feature-extraction", model="{repo_id}")
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

This is transformers' own `swin` format, which needs no further code. The model equals the pretrained network at
{image_size} px only."""
FILES = {
    "model.safetensors": "the backbone",
    HEADS: "projection heads and centres, for continued pretraining",
    OPTIONS: "the options of the run that decide the result, a recipe for `pretrain.py --recipe`",
}
# Options that a reader of the card wants to see, in this order.
RECIPE = (
    *("task", "data", "split", "epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "lr", "min_lr"),
    *("warmup_epochs", "weight_decay", "weight_decay_end", "momentum_teacher", "clip_grad", "freeze_last_layer"),
    *("freeze_backbone_epochs", "freeze_batch_norm", "layer_decay"),
    *("student_temp", "warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "num_prototypes"),
    *("norm_last_layer", "augmentation", "mixup", "cutmix", "global_crop_size", "global_crops_scale"),
    *("local_crop_sizes", "local_crops_numbers", "local_crops_scale", "drop_path_rate", "mixed_precision", "seed"),
    *("init_from",),
)
Model = EsViTForPreTraining | EsViTModel


def write_card(
    folder: Path,
    source: Source,
    model: Model,
    repo_id: str,
    *,
    license: License | None,
    base_model: str | None,
    metrics: Sequence[Path],
    native: bool,
    own: Path | None,
    benchmarks: Mapping[str, str],
) -> None:
    """Writes `README.md` into the folder of a model, and its results on benchmarks of the Hub.

    Args:
        folder: Holds everything else that is published.
        license: Of the weights; None: the card names none.
        base_model: What the model was trained from; None names the run's `init_from` if that is on the Hub.
        metrics: Results of evaluation commands (`--output`), whose values the card shows.
        native: Whether the folder has transformers' own format.
        own: A card to use instead, in which `org/STEM` becomes `repo_id`.
        benchmarks: See `write_eval_results`.

    Raises:
        SourceError: One of `metrics` is no result of an evaluation command.
        CardError: The Hub would refuse the card.
    """
    card = build_card(
        source,
        model,
        repo_id,
        license=license,
        base_model=base_model,
        metrics=metrics,
        native=native,
        files={path.name for path in folder.iterdir()},
    )
    text = card.render() if own is None else read_own_card(own, repo_id)
    check_card(text)
    (folder / "README.md").write_text(text, encoding="utf-8")
    write_eval_results(folder, card.figures, benchmarks, repo_id)


def read_own_card(path: Path, repo_id: str) -> str:
    try:
        return path.read_text(encoding="utf-8").replace(f"org/{path.stem}", repo_id)
    except UnicodeDecodeError as error:
        raise CardError(f"--card {path} is not text in UTF-8 ({error}).") from error


def build_card(
    source: Source,
    model: Model,
    repo_id: str,
    *,
    license: License | None,
    base_model: str | None,
    metrics: Sequence[Path],
    native: bool,
    files: set[str],
) -> Card:
    """Returns the card of a folder with these files: see [`write_card`]."""
    options = source.public_options()
    results = [*read_scores(source, repo_id), *(read_metrics(result, repo_id) for result in metrics)]
    architecture = describe_architecture(model.config)
    use = USE_NATIVE if native else USE + (USE_HEADS if HEADS in files else "")
    return Card(
        repo_id,
        license,
        figures=[figure for figures, _ in results for figure in figures],
        datasets=[name for name in [source.find_name("data")] if name],
        base_model=base_model or source.find_base_model(),
        facts={
            **architecture,
            "project": describe_project(),
            "summary": describe_model(options),
            "parameters": f"{count_parameters(model):,}",
            "usage": use.format(repo_id=repo_id, **architecture),
            "measured": "\n".join(f"* {how}" for how in dict.fromkeys(how for _, how in results)),
            "curves": CURVES if CURVES in files else None,
            "training": describe_training(source),
            "recipe": select_recipe(options),
            "command": f"python training/pretrain.py --recipe {OPTIONS} --data DATA --output runs/again"
            if options
            else None,
            "files": "\n".join(f"* `{name}`: {what}" for name, what in FILES.items() if name in files),
            "data": options["data"] if options else "its training images",
        },
    )


def count_parameters(model: Model) -> int:
    """Returns the number of parameters of the backbone."""
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    return sum(parameter.numel() for parameter in backbone.parameters())


def describe_model(options: dict[str, Any]) -> str:
    if not options:
        return "An image backbone of the EsViT family, pretrained without labels."
    return f"An image backbone pretrained without labels on {options['data']}, task {options['task']}."


def describe_training(source: Source) -> str:
    if not source.options:
        return "This repository does not record how the model was trained."
    steps = ""
    if source.step is not None:
        where = f", in {source.processes} processes" if source.processes != 1 else ""
        steps = f"{source.step} steps of {source.images_per_step} images{where}. {describe_matches(source)}"
    return f"Pretrained on images without labels. {steps}These are the main options; `{OPTIONS}` has all:"


def describe_matches(source: Source) -> str:
    """Says how many regions found their own place while training; nothing if that was not measured."""
    measured = [record for record in source.records if record.get("region_match_accuracy") is not None]
    if not measured:
        return ""
    right, chance, distinct = (measured[-1][f"region_match_{name}"] for name in ("accuracy", "chance", "distinct"))
    return (
        f"At the end, the most similar region of another view was at the same place for {right:.1%} of the regions "
        f"(chance {chance:.1%}), and {distinct:.0%} of the regions were chosen. "
    )


def select_recipe(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that say how a model came about, without those that are off."""
    return {name: options[name] for name in RECIPE if options.get(name) not in (None, 0, 0.0, "", [])}


def read_scores(source: Source, repo_id: str) -> list[tuple[list[CardValue], str]]:
    """Returns the k-NN accuracy that was measured while training, if any, and the command that measures it again."""
    scores = {name.removeprefix("knn_"): value for name, value in source.scores().items() if name.startswith("knn_")}
    if not scores:
        return []
    learnt_from = "data" if source.options.get("knn_train") is None else "knn_train"
    train, test = (source.provenances.get(name, UNKNOWN) for name in (learnt_from, "knn_test"))
    words = ["python", "training/knn.py", repo_id, "--train", train.word]
    if source.options.get("knn_test") is None:
        test = name_held_out(train, SHARE)
    else:
        words += ["--test", test.word]
    words += ["--k", *map(str, source.options["knn_k"])]
    return [(make_knn_values(scores, test, source.start), f"{format_code(shlex.join(words))}, while training")]


def read_metrics(result: Path, repo_id: str) -> tuple[list[CardValue], str]:
    """Returns the values that an evaluation command wrote into its result, and that command.

    Raises:
        SourceError: The file is no such result.
    """
    try:
        content = json.loads(result.read_text(encoding="utf-8"))
        figures = [CardValue(**figure) for figure in content["figures"]]
        command = content["command"].replace(" MODEL ", f" {repo_id} ")
        if not figures or not all(map(is_valid, figures)):
            raise ValueError("no figures, or one that is not a share from 0 to 1 of a known task")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"--metrics: {result} has no figures for a card ({error!r}). Name a file that --output of knn.py, "
            "linear_probe.py or another evaluation command wrote; see training/README.md."
        ) from error
    return figures, format_code(command)


def is_valid(figure: CardValue) -> bool:
    shares = [figure.value, *(share for share in (figure.chance, figure.before) if share is not None)]
    return figure.task in TASKS and all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
