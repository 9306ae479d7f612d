# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the model card of a published folder: usage, results and, if a run made the model, its recipe and data."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.storage.weights_record import RECORD
from training.data.held_out import SHARE
from training.evaluation.results import CardValue, make_knn_values, name_held_out
from training.options.public_options import UNKNOWN
from training.publishing.card_template import (
    Card,
    CardError,
    check_card,
    describe_architecture,
    format_code,
)
from training.publishing.eval_results import write_eval_results
from training.publishing.folder import CURVES, HEADS, OPTIONS
from training.publishing.history import describe_history, make_run_again, select_recipe
from training.publishing.licenses import License
from training.publishing.metrics import read_metrics
from training.publishing.project import describe_project
from training.publishing.source import Source


USE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}", trust_remote_code=True)
extract = pipeline("image-feature-extraction", model="{repo_id}", trust_remote_code=True)
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

`trust_remote_code=True` runs the code files of this repository. {needs} Where this project's package
`modeling_esvit` is installed, `import modeling_esvit` replaces `trust_remote_code`. Images may have {sizes}.
`model(pixel_values)` returns the features of the regions as `last_hidden_state`, and the view feature, that of the
whole image, as `pooler_output`."""
USE_HEADS = """

`AutoModelForPreTraining` also loads heads and centres; `pretrain.py --init_from {repo_id}` starts from all three."""
USE_NATIVE = """```python
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("{repo_id}")
extract = pipeline("image-feature-extraction", model="{repo_id}")
feature = extract("photo.jpg", pool=True, return_tensors=True)  # [1, {feature_size}]
```

This is transformers' own `swin` format, which needs no further code. It gives the features of the trained network for
images of {image_size} px only."""
FILES = {
    "model.safetensors": "the backbone",
    HEADS: "projection heads and centres, for continued pretraining",
    RECORD: "where the weights came from, for programs",
    OPTIONS: "the options of the run that decide the result, a recipe for `pretrain.py --recipe`",
}
Model = EsViTForPreTraining | EsViTModel


def build_card(
    folder: Path,
    source: Source,
    model: Model,
    repo_id: str,
    *,
    license: License | None,
    base_model: str | None,
    metrics: Sequence[Path],
    native: bool,
) -> Card:
    """Returns the card of a model.

    Args:
        folder: Holds everything else that is published.
        license: Of the weights; None: the card names none.
        base_model: What the model was trained from; None names the run's `init_from` if that is on the Hub.
        metrics: Results of evaluation commands (`--output`), whose values the card shows.
        native: Whether the folder has transformers' own format.

    Raises:
        SourceError: One of `metrics` is no result of an evaluation command, or one of another model.
    """
    options, files = source.public_options(), {path.name for path in folder.iterdir()}
    results = [*read_scores(source, repo_id), *(read_metrics(result, repo_id, source.model) for result in metrics)]
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
            **describe_history(source, base_model)._asdict(),
            "parameters": f"{count_parameters(model):,}",
            "usage": use.format(repo_id=repo_id, **architecture),
            "measured": "\n".join(f"* {how}" for how in dict.fromkeys(how for _, how in results)),
            "curves": CURVES if CURVES in files else None,
            "recipe": select_recipe(options),
            "command": make_run_again(source.options, source.provenances) if options else None,
            "files": "\n".join(f"* `{name}`: {what}" for name, what in FILES.items() if name in files),
        },
    )


def write_card(folder: Path, card: Card, own: Path | None, benchmarks: Mapping[str, str]) -> None:
    """Writes a card as the `README.md` of the folder of a model, and its results on benchmarks of the Hub.

    Args:
        own: A card to use instead, in which `org/STEM` becomes the name of the repository.
        benchmarks: See `write_eval_results`.

    Raises:
        CardError: The Hub would refuse the card.
    """
    text = card.render() if own is None else read_own_card(own, card.repo_id)
    check_card(text)
    (folder / "README.md").write_text(text, encoding="utf-8")
    write_eval_results(folder, card.figures, benchmarks, card.repo_id)


def read_own_card(path: Path, repo_id: str) -> str:
    try:
        return path.read_text(encoding="utf-8").replace(f"org/{path.stem}", repo_id)
    except UnicodeDecodeError as error:
        raise CardError(f"--card {path} is not text in UTF-8 ({error}).") from error
    except OSError as error:
        raise CardError(f"--card {path} cannot be read ({error.strerror}).") from error


def count_parameters(model: Model) -> int:
    """Returns the number of parameters of the backbone."""
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    return sum(parameter.numel() for parameter in backbone.parameters())


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
