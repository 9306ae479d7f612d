# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what a trained backbone sees, then pretrains, measures and loads a model of your own, in minutes on a CPU.

    pip install -e ".[training,examples,demo]"
    python examples/demo.py demo

The program begins with a backbone that has ImageNet weights (`first_look.py`): region colours and region matches. Then
it makes collages of bundled photographs (`collages.py`) and pretrains a small EsViT on them
(`training/pretrain.py --recipe demo_collages`). It measures k-NN accuracy and region matches, beside the untrained
model and plain pixels, and draws the matches of both models. Finally it loads the model in a fresh process, with
AutoModel and with the pipeline. Everything is written below the given folder, and finished parts are reused.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from transformers.utils import logging as transformers_logging

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training,examples,demo]'"):
    import datasets
    from accelerate.utils import set_seed
    from matplotlib.figure import Figure

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from examples.checkout import run_program
from examples.collages import write_collages
from examples.first_look import look
from examples.photographs import measure_baselines
from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from training.data.sources import open_source
from training.evaluation.knn import evaluate_knn
from training.evaluation.result_files import read_result_file, write_result_file
from training.evaluation.results import format_table
from training.features.frozen_models import load_frozen
from training.figures.matching import draw_pairs
from training.learning.networks import build_networks
from training.matching.evaluation import choose_side, measure_source
from training.matching.over_images import Measured, PairImages, RegionMatcher
from training.matching.pairs import MIRRORED, RECOLOURED
from training.matching.top_matches import PICTURED, find_top_matches, pick_images
from training.options.command import run_command
from training.options.pretrain_options import parse_options
from training.state.figure_files import save_figure
from training.state.files import save_model_folder


K = 20
LOAD_ELSEWHERE = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
import torch, modeling_esvit
from PIL import Image
from transformers import AutoModel, pipeline
folder, photograph = sys.argv[1:]
model = AutoModel.from_pretrained(folder)
extract = pipeline("image-feature-extraction", model=folder)
feature = extract(Image.open(photograph), pool=True, return_tensors=True)
print(f"AutoModel: {type(model).__name__}; pipeline: a feature of shape {tuple(feature.shape)}")
"""


class OtherSettingsError(EsViTError, ValueError):
    """Raised when a folder has parts that another command has made."""


def keep_settings(output: Path, options: Sequence[str], **others: Any) -> None:
    """Writes what the parts of an output depend on; a repeated command, which takes those that are there, has the same.

    Args:
        options: Further ones of `pretrain.py`.

    Raises:
        OtherSettingsError: It has not.
        OptionError: There is no such option.
    """
    parse_options([*options])
    file, settings = output / "settings.json", {**others, "options": [*options]}
    before = read_result_file(file) if file.exists() else settings
    changes = [
        f"{name} was {before.get(name)} and is {value}" for name, value in settings.items() if before.get(name) != value
    ]
    if changes:
        raise OtherSettingsError(
            f"{output} has parts of another comparison ({'; '.join(changes)}): name another folder, or remove it first."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_result_file(file, settings)


def pretrain(data: Path, output: Path, seed: int, recipe: str = "demo_collages", options: Sequence[str] = ()) -> Path:
    """Makes the untrained and the trained model of one run, and returns its folder. A finished run is not repeated.

    `options` are further ones of `pretrain.py`.
    """
    arguments = ["--recipe", recipe, "--data", str(data), "--output", str(output)]
    arguments += ["--seed", str(seed), *options]
    if not (output / "untrained").exists():
        set_seed(seed)
        save_model_folder(build_networks(parse_options(arguments), torch.device("cpu"))[1], output / "untrained")
    if not (output / "teacher").exists():
        run_program("training/pretrain.py", *arguments)
    return output


def measure(folder: Path, data: Path) -> dict[str, float]:
    """Measures k-NN top-1 on the test images, and how many of their regions find themselves in two kinds of pairs."""
    model = load_frozen(str(folder))
    train, test = open_source(str(data), split="train"), open_source(str(data), split="test")
    knn = evaluate_knn(model.model, model.transform, train, test, k=[K])
    measured = Measured((MIRRORED, RECOLOURED), choose_side(model), seed=0, batch_size=32)
    found, images = measure_source(model, test, measured, folder.with_name(f"{folder.name}-matches"), threads=2)
    images.parts.delete()
    return {"knn": knn[f"k{K}_top1"], MIRRORED: found[MIRRORED]["accuracy"], RECOLOURED: found[RECOLOURED]["exact"]}


def draw_models(
    models: dict[str, Path], data: Path, found: dict[str, float] | None = None, count: int = PICTURED
) -> Figure:
    """Draws each model's ten most similar pairs of regions between the same images and their mirrored, grey selves.

    `found` is the share of right ones of each model, in all test images, for the titles.
    """
    source, columns = open_source(str(data), split="test"), {}
    for name, folder in models.items():
        model = load_frozen(str(folder))
        measured = Measured((MIRRORED,), choose_side(model), seed=0, batch_size=1)
        matcher = RegionMatcher(model, measured.side)
        images = pick_images(PairImages(source, measured), count)
        title = name if found is None else f"{name}: {found[name]:.1%} right in all test images"
        columns[title] = [find_top_matches(MIRRORED, image.pixels[0], matcher) for image in images]
    return draw_pairs(columns)


def load_elsewhere(model_path: Path, photograph: Path) -> None:
    """Loads the folder in a new process, as its users will."""
    subprocess.run([sys.executable, "-c", LOAD_ELSEWHERE, str(model_path), str(photograph)], check=True)


def make_table(results: dict[str, dict[str, float]]) -> str:
    columns = {
        "knn": f"k-NN top-1, k = {K}",
        MIRRORED: "mirrored regions found",
        RECOLOURED: "recoloured regions found",
    }
    rows = [
        [name, *(f"{scores[measure]:.1%}" if measure in scores else "" for measure in columns)]
        for name, scores in results.items()
    ]
    return "\n".join(format_table(["model", *columns.values()], rows))


def name_python() -> str:
    """Returns how a shell calls this interpreter: `python` if its environment is active, as after `make` it is not."""
    return "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)


def describe_next(backbone: Path) -> str:
    """Returns three commands that a newcomer may want next, each with its aim."""
    python, model = name_python(), shlex.quote(str(backbone))
    own = "--recipe own_images_small --data my/photographs --output runs/mine --dry_run"
    return "\n".join(
        (
            f"  {python} examples/similar_images.py {model} my/photographs --query mine.jpg   # search yours",
            f"  {python} training/pretrain.py {own}   # plan a run on them",
            f"  {python} examples/app/app.py {model}   # a page: {python} -m pip install -e '.[app]'",
        )
    )


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder for data, run, table and pictures")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()

    backbone = look(arguments.output / "first-look")
    data = arguments.output / "collages"
    if not data.exists():
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_collages(data, train=1024, test=400)
    train, test = (datasets.load_dataset(str(data), split=split) for split in ("train", "test"))
    scenes = train.features["label"].num_classes
    print(f"{data}: {len(train)} training and {len(test)} test collages of {scenes} scenes")

    results = {
        name.replace("_", " "): {"knn": accuracy} for name, accuracy in measure_baselines(train, test, k=K).items()
    }
    run = pretrain(data, arguments.output / "view+region-seed0", seed=0)
    models = {"untrained": run / "untrained", "trained": run / "teacher"}
    results |= {name: measure(folder, data) for name, folder in models.items()}
    shares = {name: results[name][MIRRORED] for name in models}
    save_figure(draw_models(models, data, shares), run / "matches.png")

    collage = arguments.output / "collage.png"
    test[0]["image"].save(collage)
    load_elsewhere(run / "teacher", collage)
    text = make_table(results)
    (arguments.output / "results.md").write_text(text + "\n", encoding="utf-8")
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\n{text}\n\nThe model is {run / 'teacher'}; its region matches are in {run / 'matches.png'}.")
    print(f"A backbone with ImageNet weights is {backbone}; its pictures lie beside it. Next:")
    print(describe_next(backbone))


if __name__ == "__main__":
    torch.manual_seed(0)
    run_command(main)
