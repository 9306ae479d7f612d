# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Takes real images to a pretrained, measured and loaded model, in minutes on a CPU.

    python examples/demo.py demo

The program cuts patches from bundled photographs and pretrains a small EsViT on them (`training/pretrain.py --recipe
demo`). It measures k-NN accuracy and region correspondences, beside the untrained model and plain pixels. Finally it
loads the model in a fresh process, with AutoModel and with the pipeline. Everything is written below the given folder,
and finished parts are reused.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import torch
from accelerate.utils import set_seed
from transformers import AutoImageProcessor, AutoModel
from transformers.utils import logging as transformers_logging

import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)
from examples.correspondences import draw
from examples.photographs import measure_baselines, write_photographs
from modeling_esvit.storage.paths import parse_path
from training.data.sources import open_source
from training.evaluation.knn import evaluate_knn
from training.evaluation.results import format_table
from training.features.extraction import make_evaluation_transform
from training.learning.networks import build_networks
from training.matching.stereo import match_stereo
from training.options.pretrain_options import parse_options
from training.state.figure_files import save_figure
from training.state.files import save_model_folder


ROOT = Path(__file__).resolve().parents[1]


K = 20
LOAD_ELSEWHERE = """
import sys, torch, modeling_esvit
from PIL import Image
from transformers import AutoModel, pipeline
folder, photograph = sys.argv[1:]
model = AutoModel.from_pretrained(folder)
extract = pipeline("image-feature-extraction", model=folder)
feature = extract(Image.open(photograph), pool=True, return_tensors=True)
print(f"AutoModel: {type(model).__name__}; pipeline: a feature of shape {tuple(feature.shape)}")
"""


def pretrain(data: Path, output: Path, seed: int, recipe: str = "demo", options: Sequence[str] = ()) -> Path:
    """Makes the untrained and the trained model of one run, and returns its folder. A finished run is not repeated.

    `options` are further ones of `pretrain.py`.
    """
    arguments = ["--recipe", recipe, "--data", str(data), "--output_dir", str(output)]
    arguments += ["--seed", str(seed), *options]
    if not (output / "untrained").exists():
        set_seed(seed)
        save_model_folder(build_networks(parse_options(arguments), torch.device("cpu"))[1], output / "untrained")
    if not (output / "teacher").exists():
        subprocess.run([sys.executable, str(ROOT / "training" / "pretrain.py"), *arguments], check=True)
    return output


def measure(model_path: Path, data: Path) -> dict[str, float]:
    """Measures k-NN top-1 on the test patches, and the share of right matches between the views of the stereo pair."""
    model = AutoModel.from_pretrained(model_path).eval()
    transform = make_evaluation_transform(AutoImageProcessor.from_pretrained(model_path))
    train, test = open_source(str(data), split="train"), open_source(str(data), split="test")
    knn = evaluate_knn(model, transform, train, test, k=[K])
    return {"knn": knn[f"k{K}_top1"], "correspondence": match_stereo(model).score()["within_one"]}


def save_correspondences(model_path: Path, output: Path) -> None:
    """Draws lines between the most similar regions of the two views of the stereo pair."""
    found = match_stereo(AutoModel.from_pretrained(model_path).eval())
    share = found.score()["within_one"]
    save_figure(draw(found, f"Region correspondences: {share:.1%} of all regions matched to within one region"), output)


def load_elsewhere(model_path: Path, photograph: Path) -> None:
    """Loads the folder in a new process, as its users will."""
    subprocess.run([sys.executable, "-c", LOAD_ELSEWHERE, str(model_path), str(photograph)], check=True)


def make_table(results: dict[str, dict[str, float]]) -> str:
    measures = ("knn", "correspondence")
    rows = [
        [name, *(f"{scores[measure]:.1%}" if measure in scores else "" for measure in measures)]
        for name, scores in results.items()
    ]
    return "\n".join(format_table(["model", f"k-NN top-1, k = {K}", "right region matches"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=parse_path, help="the folder for data, run, table and pictures")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()

    data = arguments.output / "photographs"
    if not data.exists():
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_photographs(data, patch_size=96, train_per_photograph=150, test_per_photograph=40, shards=2)
    train, test = (datasets.load_dataset(str(data), split=split) for split in ("train", "test"))
    photographs = train.features["label"].num_classes
    print(f"{data}: {len(train)} training and {len(test)} test patches of {photographs} photographs")

    results = {
        name.replace("_", " "): {"knn": accuracy} for name, accuracy in measure_baselines(train, test, k=K).items()
    }
    run = pretrain(data, arguments.output / "view+region-seed0", seed=0)
    results |= {"untrained": measure(run / "untrained", data), "trained": measure(run / "teacher", data)}
    save_correspondences(run / "teacher", run / "correspondences.png")

    photograph = arguments.output / "patch.png"
    test[0]["image"].save(photograph)
    load_elsewhere(run / "teacher", photograph)
    text = make_table(results)
    (arguments.output / "results.md").write_text(text + "\n")
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{text}\n\nThe model is {run / 'teacher'}; its correspondences are in {run / 'correspondences.png'}.")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
