# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Model cards: `model_cards/template.md`, filled in, under metadata that the Hub reads (huggingface_hub's card API).

Figures are in percent. Who measured them is said wherever they stand: in the table, and as the source of each entry
of the metadata's model-index that is not the publisher's own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modeling_esvit import EsViTConfig
from modeling_esvit.configuration_esvit import find_published_name
from modeling_esvit.conversion.original_families import join_numbers
from modeling_esvit.errors import EsViTError


TEMPLATE = Path(__file__).resolve().parents[2] / "model_cards" / "template.md"
TAGS = ("esvit", "self-supervised-learning", "vision")
# What a figure is of: the task that the Hub knows, and its name. Figures of one task and data share an entry there.
TASKS = {"image-classification": "Image classification", "image-feature-extraction": "Correspondence of regions"}
# Options of a recipe that a reader of the card wants to see, in this order.
RECIPE = (
    *("task", "data", "split", "epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "lr", "min_lr"),
    *("warmup_epochs", "weight_decay", "weight_decay_end", "momentum_teacher", "clip_grad", "freeze_last_layer"),
    *("student_temp", "warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "num_prototypes"),
    *("norm_last_layer", "augmentation", "mixup", "cutmix", "global_crop_size", "global_crops_scale"),
    *("local_crop_sizes", "local_crops_numbers", "local_crops_scale", "drop_path_rate", "mixed_precision", "seed"),
    *("init_from",),
)


class CardError(EsViTError, ValueError):
    """A card whose metadata is not what the Hub takes."""


@dataclass
class Figure:
    """A share in percent: of what, on which data, by what command, who says so (None: whoever publishes it), and in which
    of TASKS.
    """

    name: str
    value: float
    dataset: str
    split: str | None = None
    how: str = ""
    source: str | None = None
    source_url: str | None = None
    metric: str = "accuracy"
    task: str = "image-classification"

    def result(self) -> EvalResult:
        slug = self.dataset if "/" in self.dataset else self.dataset.lower().replace(" ", "-")
        return EvalResult(
            task_type=self.task,
            task_name=TASKS[self.task],
            dataset_type=slug,
            dataset_name=self.dataset,
            dataset_split=self.split,
            metric_type=self.metric,
            metric_name=f"{self.name} (%)",
            metric_value=self.value,
            source_name=self.source,
            source_url=self.source_url,
        )


@dataclass
class Card:
    """What a card says. `facts` are the template's further variables."""

    repo_id: str
    license: str
    figures: list[Figure] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    base_model: str | None = None
    library: str | None = "transformers"
    facts: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> ModelCardData:
        return ModelCardData(
            library_name=self.library,
            pipeline_tag="image-feature-extraction",
            license=self.license,
            datasets=self.datasets or None,
            base_model=self.base_model,
            tags=list(TAGS),
            model_name=self.repo_id.rpartition("/")[2],
            eval_results=[figure.result() for figure in self.figures] or None,
        )

    def render(self) -> str:
        card = ModelCard.from_template(
            self.metadata(),
            template_path=str(TEMPLATE),
            repo_id=self.repo_id,
            figures=self.figures,
            cell=cell,
            **self.facts,
        )
        return str(card).rstrip() + "\n"


def cell(value: Any) -> str:
    """Names of data as they are, but one row of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def code(text: str) -> str:
    """A code span, also of text with backticks."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def describe(config: EsViTConfig) -> dict[str, Any]:
    """The architecture in words and numbers, as facts of a card."""
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    stages = "widths {}, depths {}, heads {}".format(
        *map(join_numbers, [config.stage_widths(), config.depths, config.num_heads])
    )
    name = f"{config.architecture} of no published size"
    if config.architecture == "auto":
        name, stages = f"{config.backbone_config.model_type.removeprefix('esvit_')} backbone of transformers", ""
    published = find_published_name(config)
    return {
        "architecture": published or name,
        "window": config.window_size if config.family.has_windows else "none",
        "image_size": f"{height} x {width}",
        "stages": stages,
        "feature_size": config.hidden_size,
        "sizes": "any size" if stages or published else "any size that the backbone takes",
    }


def knn_figures(scores: dict[str, Any], dataset: str, split: str | None, how: str) -> list[Figure]:
    """Figures from names as `knn.py` writes them, `k20_top1` and so on, in 0 to 1."""
    names = [name for name in scores if name.startswith("k") and name.endswith(("_top1", "_top5"))]
    figures = []
    for name in names:
        count, top = name[1:].split("_top")
        figures.append(Figure(f"k-NN top-{top}, k = {count}", round(100 * scores[name], 2), dataset, split, how))
    return figures


def recipe_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options that say how a model came about, without those that are off."""
    return {name: options[name] for name in RECIPE if options.get(name) not in (None, 0, 0.0, "", [])}


def check_card(text: str) -> None:
    """What can be known of a card's validity without the Hub.

    Raises:
        CardError: the header is missing, is not YAML, lacks a field, or has a model-index that cannot be parsed.
    """
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(f"The card's metadata cannot be read: {error}") from error
    for name in ("license", "pipeline_tag", "tags"):
        if not data.get(name):
            raise CardError(f"The card's metadata has no {name}; it begins with `---`, YAML, `---`.")
