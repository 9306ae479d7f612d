# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The model card of what is published: a run's model, with recipe, figures and data, or that of a folder."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling_esvit import EsViTForPreTraining, EsViTModel
from training.evaluation.command import CardFigure
from training.evaluation.public_names import on_hub
from training.publishing.model_card import TASKS, Card, Figure, code, describe, knn_figures, recipe_of
from training.publishing.publication import CURVES, HEADS, OPTIONS, Source, SourceError, public_options


USE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}", trust_remote_code=True)
extract = pipeline("image-feature-extraction", model="{repo_id}", trust_remote_code=True)
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

`trust_remote_code` runs the code files of this repository, which need only torch and transformers. Where
`modeling_esvit` is installed and imported it is not needed. Images may have {sizes}; `model(pixel_values)` gives the
regions as `last_hidden_state` and the view feature as `pooler_output`."""
USE_HEADS = """

`AutoModelForPreTraining` also loads heads and centres, and `pretrain.py --init_from {repo_id}` goes on from them."""
USE_NATIVE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}")
extract = pipeline("image-feature-extraction", model="{repo_id}")
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

This is transformers' own `swin` format: no further code is needed. It is equal to the pretrained network at
{image_size} px only."""
NO_FIGURES = "{} has no figures for a card; give what --output of knn.py and the like writes, see training/README.md."
FILES = {
    "model.safetensors": "the backbone",
    HEADS: "projection heads and centres, for continued pretraining",
    OPTIONS: "the options of the run that decide the result, a recipe for `pretrain.py --recipe`",
}


def card_of(
    source: Source,
    model: EsViTForPreTraining | EsViTModel,
    repo_id: str,
    *,
    license: str,
    base_model: str | None = None,
    metrics: Sequence[Path] = (),
    native: bool = False,
    files: dict[str, int],
) -> Card:
    """The card of `model`, which `source` names, for a folder of `files`.

    Raises:
        SourceError: one of `metrics` is no result of an evaluation command.
    """
    options = public_options(source.options)
    figures = figures_of_run(source, options, repo_id)
    figures += [figure for result in metrics for figure in figures_of_file(result, repo_id)]
    data = str(source.options["data"]) if options else None
    start = source.options.get("init_from")
    architecture = describe(model.config)
    use = USE_NATIVE if native else USE + (USE_HEADS if HEADS in files else "")
    return Card(
        repo_id,
        license,
        figures=figures,
        datasets=[data] if data and on_hub(data) else [],
        base_model=base_model or (start if start and on_hub(start) else None),
        facts={
            **architecture,
            **{"summary": summary(options), "network": "the teacher, the network of the two that is published"},
            "parameters": f"{backbone_parameters(model):,}",
            "usage": use.format(repo_id=repo_id, **architecture),
            "measured": "\n".join(f"* {how}" for how in dict.fromkeys(figure.how for figure in figures)),
            "curves": CURVES if CURVES in files else None,
            "training": training(source),
            "recipe": recipe_of(options),
            "command": f"python training/pretrain.py --recipe {OPTIONS} --data DATA --output_dir runs/again"
            if options
            else None,
            "files": "\n".join(f"* `{name}`: {what}" for name, what in FILES.items() if name in files),
            "data": code(options["data"]) if options else "its training images",
        },
    )


def backbone_parameters(model: EsViTForPreTraining | EsViTModel) -> int:
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    return sum(parameter.numel() for parameter in backbone.parameters())


def summary(options: dict[str, Any]) -> str:
    if not options:
        return "An image backbone pretrained without labels, of the EsViT family."
    return f"An image backbone pretrained without labels on {code(options['data'])}, task {options['task']}."


def training(source: Source) -> str:
    if not source.options:
        return "It is not recorded in this repository how the model was trained."
    processes = source.processes or 1
    images = processes * source.options["batch_size"] * source.options["gradient_accumulation_steps"]
    where = f", in {processes} processes" if processes > 1 else ""
    steps = "" if source.step is None else f"{source.step} steps of {images} images{where}. "
    return f"Pretrained on images alone, no labels: {steps}The most important options; `{OPTIONS}` has all:"


def figures_of_run(source: Source, options: dict[str, Any], repo_id: str) -> list[Figure]:
    """k-NN accuracy as it was measured while training."""
    scores = {name.removeprefix("knn_"): value for name, value in source.scores().items() if name.startswith("knn_k")}
    if not scores:
        return []
    train, test = options.get("knn_train") or options["data"], options["knn_test"]
    words = ["python", "training/knn.py", repo_id, "--train", train, "--test", test, "--k", *map(str, options["knn_k"])]
    how = f"{code(shlex.join(words))}, while training"
    name, _, split = test.partition(":")
    return knn_figures(scores, name, split or None, how)


def figures_of_file(result: Path, repo_id: str) -> list[Figure]:
    """What an evaluation command wrote as its result: see `evaluation.write_result`.

    Raises:
        SourceError: it is no such file.
    """
    try:
        content = json.loads(result.read_text())
        found = [CardFigure(**figure) for figure in content["figures"]]
        valid = found and all(isinstance(f.value, int | float) and 0 <= f.value <= 1 and f.task in TASKS for f in found)
        command = content["command"].replace(" MODEL ", f" {repo_id} ")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"--metrics: {NO_FIGURES.format(result)} ({error!r})") from error
    if not valid:
        raise SourceError(f"--metrics: {NO_FIGURES.format(result)}")
    how = code(command)
    return [
        Figure(f.name, round(100 * f.value, 2), f.dataset, f.split, how, metric=f.metric, task=f.task) for f in found
    ]
