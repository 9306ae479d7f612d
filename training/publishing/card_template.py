# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills in `model_cards/template.md` under metadata that the Hub reads (huggingface_hub's card API).

Every figure is shown in percent with the name of those who measured it. Unless the publisher did, the metadata's
model-index names them as well.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from modeling_esvit import EsViTConfig
from modeling_esvit.backbone_probe import TIMM, find_built_size, name_backbone
from modeling_esvit.configuration_esvit import find_published_name
from modeling_esvit.conversion.original_families import join_numbers
from modeling_esvit.errors import EsViTError
from training.evaluation.results import CardValue
from training.publishing.licenses import License, find_license_problem


TEMPLATE = Path(__file__).resolve().parents[2] / "model_cards" / "template.md"
TAGS = ("esvit", "vision")
ESVIT_TAG = "self-supervised-learning"
# The Hub's tasks, and their names. Figures of one task and data share an entry of the model-index.
TASKS = {"image-classification": "Image classification", "image-feature-extraction": "Correspondence of regions"}


NEEDS = "They need torch and transformers; the pipeline also needs Pillow."
LIBRARIES = {TIMM: "timm", "dinat": "natten"}  # that a backbone of transformers needs beside it


class CardError(EsViTError, ValueError):
    """Raised when a card is not text, or the Hub would refuse its metadata."""


@dataclass
class Card:
    """Holds what a card says.

    Attributes:
        figures: Results of the model.
        source, source_url: Who measured them; None if the publisher of the repository did.
        datasets: Names on the Hub of the training data.
        facts: Further variables of the template.
    """

    repo_id: str
    license: License | None
    figures: list[CardValue] = field(default_factory=list)
    source: str | None = None
    source_url: str | None = None
    datasets: list[str] = field(default_factory=list)
    base_model: str | None = None
    library: str | None = "transformers"
    facts: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> ModelCardData:
        return ModelCardData(
            library_name=self.library,
            pipeline_tag="image-feature-extraction",
            **({} if self.license is None else self.license.describe()),
            datasets=self.datasets or None,
            base_model=self.base_model,
            tags=sorted([*TAGS, *([ESVIT_TAG] if self.facts["by_esvit"] else [])]),
            model_name=self.repo_id.rpartition("/")[2],
            eval_results=[self.eval_result(figure) for figure in self.figures] or None,
        )

    def eval_result(self, figure: CardValue) -> EvalResult:
        slug = figure.dataset if "/" in figure.dataset else figure.dataset.lower().replace(" ", "-")
        return EvalResult(
            task_type=figure.task,
            task_name=TASKS[figure.task],
            dataset_type=slug,
            dataset_name=figure.dataset,
            dataset_split=figure.split,
            metric_type=figure.metric,
            metric_name=f"{figure.name} (%)",
            metric_value=to_percent(figure.value),
            source_name=self.source,
            source_url=self.source_url,
        )

    def render(self) -> str:
        card = ModelCard.from_template(
            self.metadata(),
            template_path=str(TEMPLATE),
            repo_id=self.repo_id,
            figures=self.figures,
            source=self.source,
            compared={name for name in ("chance", "before") if any(getattr(each, name) for each in self.figures)},
            cell=format_cell,
            percent=to_percent,
            share=lambda value: "" if value is None else f"{to_percent(value)}%",
            **self.facts,
        )
        return str(card).rstrip() + "\n"


def to_percent(share: float) -> float:
    return round(100 * share, 2)


def format_cell(value: Any) -> str:
    """Returns a value as one cell of a Markdown table, whatever characters it has."""
    return " ".join(str(value).split()).replace("|", "\\|")


def format_code(text: str) -> str:
    """Returns a code span, also of text with backticks."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def describe_architecture(config: EsViTConfig) -> dict[str, Any]:
    """Returns the facts of a card that depend on the architecture alone."""
    wraps = config.family.wraps_backbone
    stages = "widths {}, depths {}, heads {}".format(
        *map(join_numbers, [config.stage_widths(), config.depths, config.num_heads])
    )
    published = find_published_name(config)
    side = config.image_size
    built = find_built_size(config.backbone_config) if wraps else (side, side) if isinstance(side, int) else side
    return {
        "architecture": published or name_architecture(config),
        "window": config.window_size if config.family.has_windows else None,
        "image_size": "{} x {}".format(*built) if built else None,
        "stages": None if wraps else stages,
        "feature_size": config.hidden_size,
        "sizes": "any size that the backbone takes" if wraps and not published else "any size",
        "needs": describe_needs(config),
    }


def describe_needs(config: EsViTConfig) -> str:
    """Says what the code of a published model needs."""
    library = LIBRARIES.get(config.backbone_config.model_type) if config.family.wraps_backbone else None
    return f"{NEEDS} This backbone also needs {library}: `pip install {library}`." if library else NEEDS


def name_architecture(config: EsViTConfig) -> str:
    """Returns what is known of a network that is none of the published ones."""
    if not config.family.wraps_backbone:
        return f"{config.family.name} of no published size"
    library = "timm" if config.backbone_config.model_type == TIMM else "transformers"
    return f"`{name_backbone(config.backbone_config)}` of {library}"


def check_card(text: str) -> None:
    """Checks what can be known of a card's validity without the Hub, which refuses a card after all else was sent.

    Raises:
        CardError: The header is missing, is not YAML, lacks a field, or has a model-index that cannot be parsed; it
            has a licence that the Hub does not know, or names a model or data set that has no name on the Hub.
    """
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(f"The card's metadata cannot be read: {error}") from error
    for name in ("pipeline_tag", "tags"):
        if not data.get(name):
            raise CardError(f"The card's metadata has no {name}. A card begins with `---`, YAML, `---`.")
    if problem := find_license_problem(data):
        raise CardError(f"The card's metadata cannot be published: {problem}")
    for field_name in ("base_model", "datasets"):
        entries = data.get(field_name) or []
        for name in [entries] if isinstance(entries, str) else entries:
            check_name(field_name, name)


def check_name(field_name: str, name: Any) -> None:
    """Checks that a card names a model or data set as the Hub does.

    Raises:
        CardError: It names a folder, or nothing that the Hub can have.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CardError(
            f"{field_name} {name!r} is no name on the Hub, such as organisation/name: name one, or leave it out."
        ) from error
    if Path(name).is_dir():
        raise CardError(f"{field_name} {name!r} is a folder of this machine: name one on the Hub, or leave it out.")
