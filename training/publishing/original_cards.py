# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the model cards of the authors' checkpoints, and their overview, from `model_cards/published.yaml`."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from modeling_esvit import EsViTConfig
from training.evaluation.results import CardValue, format_table
from training.publishing.card import USE
from training.publishing.card_template import Card, check_card, describe_architecture
from training.publishing.history import PUBLISHED, TASKS
from training.publishing.licenses import License
from training.publishing.project import describe_project


CARDS = Path(__file__).resolve().parents[2] / "model_cards"
TABLE = CARDS / "published.yaml"
AUTHORS = "the authors of EsViT (README of microsoft/esvit)"
AUTHORS_URL = "https://github.com/microsoft/esvit"
IMAGENET = "ILSVRC/imagenet-1k"
MEASURED = f"""**These are the authors' own numbers**, copied from the README of [microsoft/esvit]({AUTHORS_URL}); they
were not measured again. Linear: a linear classifier on frozen features. k-NN: a vote of the nearest training images,
whose number is not stated. Both are measured on the validation images of ImageNet-1K."""
CONVERT = """The checkpoint is the authors' (MIT licence). This command converts it:

```bash
{command}
```
"""
NATIVE = """
For images of 224 x 224 px it can also be converted to transformers' own format, which needs no further code:

```bash
{command} --native
```
"""
NO_CONVERSION = """The checkpoint is the authors' (MIT licence). `modeling_esvit` has no {network}, so it can
neither convert nor run it; the code of [microsoft/esvit]({url}) can."""
OVERVIEW = """# Published EsViT checkpoints

These are the authors' checkpoints, each with a model card. **All accuracies are the authors' own** (ImageNet-1K top-1,
from the README of [microsoft/esvit](https://github.com/microsoft/esvit)); this project measured none of them. The
authors' download links no longer work. If you hold a checkpoint, convert and publish it with

```bash
python -m modeling_esvit.convert_original checkpoint_best.pth NAME
python training/publish.py NAME --repo_id org/NAME --card model_cards/NAME.md --license mit
```

{table}

`python training/published_cards.py` writes the cards and this page from `published.yaml` and `template.md`. For other
models `training/publish.py` fills in the same template.
"""


@dataclass
class Published:
    """Holds a row of the table, which explains the fields."""

    name: str
    network: str
    parameters: str
    task: str
    batch: int
    data: str
    training: str
    linear: float
    knn: float
    architecture: str | None = None
    window: int | None = None
    recipes: list[str] = field(default_factory=list)
    paper: dict[str, float] = field(default_factory=dict)

    @property
    def config(self) -> EsViTConfig | None:
        if self.architecture is None:
            return None
        return EsViTConfig.from_architecture(self.architecture, window_size=self.window)

    @property
    def is_native(self) -> bool:
        """Returns whether transformers' own Swin can carry it."""
        return self.architecture is not None and self.architecture.startswith("swin") and self.window == 7


def read_table() -> list[Published]:
    return [Published(**row) for row in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def build_figures(row: Published) -> list[CardValue]:
    values = {"linear top-1": row.linear, "k-NN top-1": row.knn}
    return [CardValue(name, percent / 100, "accuracy", IMAGENET, "validation") for name, percent in values.items()]


def describe_measurement(row: Published) -> str:
    names = {"linear": "linear", "knn": "k-NN"}
    others = " and ".join(f"{names[name]} {value}" for name, value in row.paper.items())
    return MEASURED + (f" The paper reports {others} instead." if others else "")


def describe_conversion(row: Published) -> str:
    if row.architecture is None:
        return NO_CONVERSION.format(network=row.network, url=AUTHORS_URL)
    command = f"python -m modeling_esvit.convert_original checkpoint_best.pth {row.name}"
    return CONVERT.format(command=command) + (NATIVE.format(command=command) if row.is_native else "")


def describe_training(row: Published) -> str:
    text = (
        f"Pretrained by the authors on {row.data} without labels, with {row.batch} images per step. "
        f"Schedule: {row.training}"
    )
    names = " and then ".join(f"`training/recipes/{name}.yaml`" for name in row.recipes)
    if not names:
        return text
    batch = f", for a batch of 512 instead of {row.batch}" if row.is_native and row.batch != 512 else ""
    return (
        f"{text} What is known of their options is in {names}{batch}; see the comments there. To train with "
        "them in this project:"
    )


def build_pretraining_command(row: Published) -> str | None:
    """Returns the commands of all stages; each starts from the weights of the one before it (`--init_from`)."""
    lines = []
    for number, name in enumerate(row.recipes):
        start = f" --init_from runs/{row.recipes[number - 1]}" if number else ""
        lines.append(f"accelerate launch training/pretrain.py --recipe {name} --output runs/{name}{start}")
    return "\n".join(lines) or None


def build_card(row: Published) -> Card:
    repo_id = f"org/{row.name}"
    architecture = (
        describe_architecture(row.config) if row.config else {"architecture": row.network, "window": row.window}
    )
    return Card(
        repo_id,
        License("mit"),
        figures=build_figures(row),
        source=AUTHORS,
        source_url=AUTHORS_URL,
        datasets=[IMAGENET] if row.data == "ImageNet-1K" else [],
        library="transformers" if row.config else None,
        facts={
            **architecture,
            "project": describe_project(),
            "summary": f"{row.network}, pretrained by the authors of EsViT on {row.data} without labels, with "
            f"{TASKS[row.task]}.",
            "parameters": f"{row.parameters} (the authors' count)",
            "usage": USE.format(repo_id=repo_id, **architecture)
            if row.config
            else "Only the authors' code can use it.",
            "measured": describe_measurement(row),
            "training": describe_training(row),
            "command": build_pretraining_command(row),
            "files": describe_conversion(row),
            "by_esvit": True,
            "is_teacher": True,
            "images": row.data,
            "views": PUBLISHED,
            "recoloured": True,
        },
    )


def render_overview(rows: list[Published]) -> str:
    header = ["card", "network", "window", "parameters", "data", "task", "batch", "linear", "k-NN", "converts"]
    lines = []
    for row in rows:
        cells = [row.network, row.window or "-", row.parameters, row.data, row.task, row.batch, row.linear, row.knn]
        link, converts = f"[{row.name}]({row.name}.md)", "yes" if row.architecture else "no"
        lines.append([link, *map(str, cells), converts])
    return OVERVIEW.format(table="\n".join(format_table(header, lines)))


def render_pages() -> dict[str, str]:
    """Returns the content of each file of `model_cards/` by its name.

    Raises:
        CardError: The Hub would refuse the metadata of a card.
    """
    rows = read_table()
    cards = {f"{row.name}.md": build_card(row).render() for row in rows}
    for text in cards.values():
        check_card(text)
    return {**cards, "README.md": render_overview(rows)}
