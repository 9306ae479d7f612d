# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs every command and every Python snippet of the README pages, CONTRIBUTING.md and the model cards.

They run in a sandbox where their names (`runs/mine`, `my/labelled`, `org/esvit-swin-b`, ...) are small real things,
against the loopback Hub. RULES make each command small; `test_every_command_has_a_rule` fails for one without a rule.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from transformers import AutoBackbone, AutoConfig

from modeling_esvit import EsViTConfig, EsViTForImageClassification, EsViTForPreTraining
from tests.helpers.documents import BLOCK, Rule, commands, rule_for, snippets
from tests.helpers.forked_commands import ForkedCommands
from tests.helpers.paths import FIXTURES, ROOT
from tests.helpers.shallow_networks import shallow
from tests.helpers.tiny_models import DINO_V2
from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, NETWORK, tiny, write_images
from tests.hub.loopback_hub import LoopbackHub
from tests.hub.protocol import Repository
from tests.hub.repositories import imagenet_1k
from training.learning.networks import build_config
from training.options.pretrain_options import parse_options


CARDS = sorted(path for path in (ROOT / "model_cards").glob("*.md") if path.name != "template.md")
PAGES = [
    *(ROOT / folder / "README.md" for folder in (".", "training", "examples", "examples/app")),
    *(ROOT / "CONTRIBUTING.md", ROOT / "training" / "EXTEND.md"),
    *CARDS,
]
TOKEN = "hf_ada_secret"

CI = "what CI runs, or a developer by hand"
TINY = f"{NETWORK} {HEADS} {CROPS} {LENGTH} {MEANS}"
ADAPTED = f"{HEADS} {CROPS} {LENGTH} {MEANS} --gradient_accumulation_steps 1"
DRY = "--dry_run --mixed_precision no --batch_size 2 --tracker none --workers 0"
SHALLOW = " ".join(shallow("swin_tiny_w7"))
SMALL_HEADS = "--num_prototypes 64 --head_hidden_size 64 --head_bottleneck_size 16"
PLAIN = {"accelerate": "python", "launch": ""}  # three launches of the README are enough
MODEL = {"MODEL": "org/esvit-swin-b"}
RULES = [
    Rule("make *", exempt=CI),
    Rule("pip install *", exempt="what the make commands do"),
    Rule("python -m build", exempt="run by test_packaging.py"),
    Rule("twine *", exempt="of a release"),
    Rule("pre-commit install", exempt="changes the checkout; test_project.py compares its ruff with ours"),
    Rule("sha256sum *", exempt="no program of this project"),
    Rule("python tests/rooms.py"),
    Rule("python tests/*", exempt="long; test_kills.py runs a part"),
    # pretraining: on own images for 6 steps; on ImageNet as dry runs
    Rule("python training/pretrain.py --recipe adapt * --backbone facebook/*", f"{ADAPTED} --output runs/adapted-1"),
    Rule(
        "python training/pretrain.py --recipe adapt * --backbone timm:NAME *",
        f"{ADAPTED} --output runs/adapted-2",
        {"timm:NAME": "facebook/dinov2-small"},
    ),
    Rule("python training/pretrain.py --recipe demo_small_batch *", f"{LENGTH} --output runs/bytes"),
    Rule("python training/pretrain.py --recipe own_images_small *--dry_run", f"{TINY} --output runs/dry"),
    Rule("python training/pretrain.py --recipe own_images_small *", f"{TINY} --output runs/new"),
    Rule("accelerate launch training/pretrain.py --recipe swin_tiny_w7 --data *", f"{DRY} {SHALLOW}"),
    Rule("accelerate launch pretrain.py", f"{DRY} {SHALLOW}", cwd="training"),
    Rule("torchrun --nproc_per_node 8 *", f"{DRY} {SHALLOW}", {"8": "2"}),
    Rule("accelerate launch training/pretrain.py --recipe resnet50*", f"{DRY} {' '.join(shallow('resnet50'))}", PLAIN),
    Rule("accelerate launch training/pretrain.py --recipe cvt*", f"{DRY} {' '.join(shallow('cvt'))}", PLAIN),
    Rule("accelerate launch training/pretrain.py --recipe *", f"{DRY} {SHALLOW}", PLAIN),
    # evaluation
    Rule("python training/linear_probe.py *", "--epochs 1 --batch_size 8 --n_last_blocks 1"),
    Rule("python training/linear_features.py *", "--shots 50% 5 --l2 0.001"),
    Rule("python training/correspondence.py *", "--stereo_size 64 96"),
    Rule("python training/transfer.py *", "--data own=my/labelled", {"timm:NAME": "org/esvit-swin-b"}),
    Rule("python training/region_colours.py *", "--image_size 128"),
    Rule("python training/throughput.py *", "--batch_size 2 --batches 2 --warmup 1"),
    Rule("python training/knn.py runs/mine *", "", {"timm:NAME": "org/esvit-swin-b"}),
    Rule("python training/*.py runs/mine/teacher *"),
    # models in other formats
    Rule(
        "python -m modeling_esvit.convert_original checkpoint.pth *", "", {"esvit-swin-t": "new/t", "native": "new/n"}
    ),
    Rule("python -m modeling_esvit.convert_original checkpoint_best.pth NAME --native", "", {"NAME": "new/native"}),
    Rule("python -m modeling_esvit.*"),
    Rule("esvit-embed *"),
    Rule(
        "python training/publish.py NAME *",
        "--dry_run",
        {"NAME": "esvit-swin-t", "model_cards/NAME.md": f"{ROOT}/model_cards/esvit-swin-tiny-w7-view.md"},
    ),
    Rule("python training/publish.py *", "--yes"),
    # examples
    Rule("python examples/adapt.py adapted", exempt="long; test_adapt.py runs it small"),
    Rule(
        "python examples/real_backbone.py *", exempt="needs a package of weights; test_real_backbone.py has random ones"
    ),
    Rule("python examples/own_statistics.py *", exempt="needs a model with BatchNorms; test_own_statistics.py has one"),
    Rule("python examples/embed_with_ray.py *", exempt="needs Ray; test_embed_with_ray.py runs it"),
    Rule("python examples/compare_tasks.py comparison", exempt="long; test_compare_tasks.py runs it small"),
    Rule("python examples/app/app.py *", exempt="stays open; run in a browser by test_app.py"),
    Rule("git clone *", exempt="needs the address of the project"),
    Rule("mkdir space && cp *", exempt="test_app.py lays out a Space in the same way"),
    Rule("hf upload USER/NAME space *", exempt="the loopback Hub has no Spaces"),
    Rule("hf upload *", "", {"org/name": "org/classifier"}),
    Rule("python examples/finetune.py MODEL *", "--epochs 1 --batch_size 8 --output runs/classifier-1", MODEL),
    Rule("python examples/finetune.py *", "--epochs 1 --batch_size 8"),
    Rule(
        "python examples/continue_pretraining.py *",
        f"--epochs 1 --k 5 {SMALL_HEADS} {CROPS} {MEANS} --batch_size 8",
        MODEL,
    ),
    Rule("python examples/segment.py *", "--crops 16 --epochs 1", MODEL),
    Rule("python examples/collages.py *", "--train 16 --test 4 --leaves 10"),
    Rule("python examples/*", "", MODEL),
]
# Of the card that `publish.py` writes for a run.
AGAIN = Rule(
    "python training/pretrain.py --recipe training_options.yaml *",
    instead={"training_options.yaml": "runs/mine-hub/training_options.yaml", "DATA": "my/photographs"},
)


def text_of(page: Path) -> str:
    """Reads a page. A card's own name becomes NAME, so that a command of all cards is run once."""
    text = page.read_text()
    return re.sub(rf"\b{page.stem}\b", "NAME", text) if page.name.startswith("esvit-") else text


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(text_of(page))))
# test_extend.py runs the snippets of EXTEND.md, which continue each other.
SNIPPETS = list(
    dict.fromkeys(snippet for page in PAGES if page.name != "EXTEND.md" for snippet in snippets(text_of(page)))
)
RUN = [command for command in COMMANDS if (rule := rule_for(command, RULES)) is None or not rule.exempt]


# -- the pages ---------------------------------------------------------------------------------------------------------


def test_every_command_has_a_rule():
    assert not [command for command in COMMANDS if rule_for(command, RULES) is None]
    used = [rule_for(command, RULES) for command in COMMANDS]
    assert not [rule.pattern for rule in RULES if rule not in used]
    assert len(RUN) > 30 and len(SNIPPETS) > 4


def test_blocks_are_of_known_languages():
    """Checks the languages of blocks: a command in a block of another language would escape the tests."""
    languages = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text())}
    assert languages == {"bash", "python", "bibtex", "json", "text"}
    assert all(page.read_text().count("```") == 2 * len(BLOCK.findall(page.read_text())) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if heading:
            names = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}, target


# -- the sandbox -------------------------------------------------------------------------------------------------------


def four_stages(**fields) -> EsViTForPreTraining:
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    heads = {"num_prototypes": 64, "head_hidden_size": 64, "head_bottleneck_size": 16}
    return EsViTForPreTraining(EsViTConfig(**{**sizes, **heads, **fields}))


def write_pictures(folder: Path) -> None:
    """Photographs and folders of images, by the names that the pages use."""
    write_images(folder / "my" / "photographs")
    write_images(folder / "my" / "images", 6)
    write_images(folder / "imagenet" / "train", 26, "ab")
    for split in ("train", "test"):
        write_images(folder / "my" / "labelled" / split, 26, "ab")
    left, right, _ = skimage.data.stereo_motorcycle()
    photographs = {"photo": skimage.data.astronaut(), "a": skimage.data.coffee(), "b": skimage.data.cat()}
    photographs |= {"mine": skimage.data.rocket(), "left": left, "right": right}
    for name, pixels in photographs.items():
        Image.fromarray(pixels).resize((240, 160)).save(folder / f"{name}.jpg")
    for name in ("more", "photographs"):
        (folder / name).mkdir()
        for number in (1, 2, 3):
            Image.fromarray(skimage.data.coffee()).rotate(number).save(folder / name / f"{number}.jpg")


class Sandbox:
    """Runs commands in a folder: Python's in forks of one process, launchers as they are."""

    def __init__(self, folder: Path, python: ForkedCommands) -> None:
        self.folder, self.python = folder, python

    def run(self, arguments: list[str], cwd: str = ".") -> None:
        program, *rest = arguments
        if program == "python":
            code, output = self.python.run(rest, self.folder / cwd)
        else:
            line = [str(Path(sys.executable).parent / program), *rest]
            place = {"cwd": self.folder / cwd, "env": self.python.environment}
            done = subprocess.run(line, **place, capture_output=True, text=True, timeout=300)
            code, output = done.returncode, done.stdout + done.stderr
        assert code == 0, f"{arguments}\n{output}"
        assert TOKEN not in output


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """Makes a folder with all that the pages name, and links to the repository's folders, beside the loopback Hub."""
    folder = tmp_path_factory.mktemp("sandbox")
    for name in ("training", "examples", "modeling_esvit", "model_cards", "tests"):
        (folder / name).symlink_to(ROOT / name)
    write_pictures(folder)
    for name in ("checkpoint.pth", "checkpoint_best.pth"):
        (folder / name).symlink_to(FIXTURES / "checkpoint_swin_tiny.pth")
    four_stages(window_size=7, image_size=224).save_pretrained(folder / "esvit-swin-t")
    four_stages(window_size=4, image_size=64).save_pretrained(folder / "published")
    classifier = EsViTForImageClassification.from_pretrained(folder / "published", num_labels=2)
    classifier.save_pretrained(folder / "runs" / "classifier")
    published = {path.name: path.read_bytes() for path in (folder / "published").iterdir()}
    names = ["org/esvit-swin-b", "org/NAME"]
    models = [Repository(name, published, "model") for name in names]
    AutoBackbone.from_config(AutoConfig.for_model(**DINO_V2)).save_pretrained(folder / "dinov2")
    dinov2 = {path.name: path.read_bytes() for path in (folder / "dinov2").iterdir()}
    models.append(Repository("facebook/dinov2-small", dinov2, "model"))
    data = imagenet_1k(train=5, validation=2, test=0)
    data.granted.add("ada")
    evaluation = "--knn_every 1 --knn_k 3 --knn_train my/labelled:train --knn_test my/labelled:test"
    run = tiny(Path("my/photographs"), Path("runs/mine"), evaluation)
    for view in {word for command in COMMANDS for word in command.split() if re.fullmatch(r"runs/\w+_view", word)}:
        first = parse_options(["--recipe", view.removeprefix("runs/"), *shallow(view.removeprefix("runs/"))])
        build_config(first).save_pretrained(folder / view)  # enough for a dry run to begin with
    settings = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    with LoopbackHub([*models, data], {TOKEN: "ada"}, organizations={"org": ["ada"]}) as hub:
        with ForkedCommands(hub.environment(folder / "home", TOKEN, **settings)) as python:
            made = Sandbox(folder, python)
            made.run(["python", "training/pretrain.py", *run])
            yield made


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_command(sandbox, command):
    rule = rule_for(command, RULES)
    assert rule is not None
    sandbox.run(rule.arguments(command), rule.cwd)


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.strip().splitlines()[-1][:50])
def test_snippet(sandbox, snippet):
    if "torchao" in snippet:  # no part of `dev`: with it, transformers takes longer to import, and warns
        pytest.importorskip("torchao")
    short = "batch_size=8, gradient_accumulation_steps=1, max_steps=1"  # there are few photographs in the sandbox
    sandbox.run(["python", "-c", snippet.replace('output="runs/notebook"', f'output="runs/notebook", {short}')])


@pytest.mark.slow
def test_card_of_a_run(sandbox):
    """Publishes a run: the snippet of its card loads the model, and the command of its card trains again."""
    sandbox.run(["python", "training/publish.py", "runs/mine", "--repo_id", "org/run", "--no_check", "--yes"])
    card = (sandbox.folder / "runs" / "mine-hub" / "README.md").read_text()
    (snippet,), (command,) = snippets(card), commands(card)
    sandbox.run(["python", "-c", snippet])
    assert rule_for(command, [AGAIN])
    sandbox.run(AGAIN.arguments(command))
