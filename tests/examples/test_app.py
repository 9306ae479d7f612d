# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests what the page shows of a model, and the page itself in a headless browser, laid out as on a Space."""

import configparser
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard
from PIL import Image

from explorer import (
    MOST_PIXELS,
    Explorer,
    cut_parts,
    load_photographs,
    match,
    read_upload,
)
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.images.decoding import UnreadableImageError
from tests.helpers.paths import ROOT


APP = ROOT / "examples" / "app"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "small"
    config = EsViTConfig(image_size=64, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4, patch_size=8)
    EsViTModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def explorer(folder) -> Explorer:
    return Explorer(folder, size=224)


def test_a_point_finds_itself(explorer):
    image = explorer.photographs["astronaut"]
    seen = explorer.see(image)
    for point in ((60, 70), (130, 200)):
        found = match(seen, seen, point)
        assert found.similarity == pytest.approx(1, abs=1e-5) and found.picture.size == seen.image.size
        assert max(abs(a - b) for a, b in zip(found.point, point, strict=True)) <= 8  # half a region


def test_a_moved_object_is_found(explorer):
    """Shifts a photograph by a window of four regions."""
    image = explorer.photographs["astronaut"].resize((224, 224))
    moved = Image.new("RGB", image.size, "gray")
    moved.paste(image, (64, 0))
    before, after = explorer.see(image), explorer.see(moved)
    points = [(x, y) for x in (40, 72, 104, 136) for y in (72, 104, 136)]
    found = [match(before, after, point).point for point in points]
    moves = [(right[0] - left[0], right[1] - left[1]) for left, right in zip(points, found, strict=True)]
    assert sum(abs(x - 64) <= 16 and abs(y) <= 16 for x, y in moves) >= len(points) / 2


def test_nearest_photograph_is_the_image_itself(explorer):
    for name in ("coffee", "motorcycle, left"):
        (image, caption), *_ = explorer.find_neighbours(explorer.photographs[name])
        assert caption == f"1.000 {name}" and image is explorer.photographs[name]
    assert len(explorer.find_neighbours(Image.new("RGB", (5, 900)), count=10_000)) == len(explorer.collection)


def test_colours_and_attention(explorer):
    seen = [explorer.see(explorer.photographs[name]) for name in ("cat", "rocket")]
    assert [picture.size for picture in explorer.colour_regions(seen)] == [each.image.size for each in seen]
    assert explorer.num_blocks == 4
    heads = explorer.draw_attention(seen[0], 4, (100, 70))
    assert len(heads) == 2 and heads[0][0].size == seen[0].image.size and heads[0][1].startswith("head 1")


def test_photographs_and_their_parts():
    photographs = dict(load_photographs())
    assert len(photographs) == 19 and all(image.mode == "RGB" for image in photographs.values())
    parts = dict(cut_parts("cat", photographs["cat"]))
    assert len(parts) == 6 and parts["cat, part 4"].size == (150, 150)
    assert list(cut_parts("dot", Image.new("RGB", (1, 1))))[1][1].size == (1, 1)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 40)], ids=str)
def test_uploads_of_all_kinds(explorer, tmp_path, mode, size):
    path = str(tmp_path / ("image.tiff" if mode == "CMYK" else "image.png"))
    image = Image.fromarray(np.full(size[::-1], 40_000, np.uint16)) if mode == "I;16" else Image.new(mode, size)
    image.save(path)
    upload = read_upload(path)
    assert upload.mode == "RGB" and max(upload.size) <= MOST_PIXELS
    seen = explorer.see(upload)
    assert match(seen, seen, (0, 0)).picture.size == seen.image.size


def test_upload_that_is_no_image(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="x.png: not an image"):
        read_upload(str(tmp_path / "x.png"))


def test_models_without_attention_or_views(tmp_path, explorer, monkeypatch):
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
    EsViTModel(EsViTConfig(architecture="auto", backbone_config=backbone)).save_pretrained(tmp_path)
    other = Explorer(str(tmp_path), size=64)
    assert other.num_blocks == 0 and other.see(Image.new("RGB", (40, 30))).regions.shape[1] == 16

    class Headless(torch.nn.Module):
        def forward(self, pixels):
            return object()

    monkeypatch.setattr(explorer, "model", Headless())
    with pytest.raises(FeatureError, match="Headless gives no pooler_output"):
        explorer.embed([Image.new("RGB", (40, 30))])


def test_command_without_a_model(capsys, monkeypatch):
    app = pytest.importorskip("app", reason="gradio is not installed: pip install '.[app]'")
    monkeypatch.delenv("MODEL", raising=False)
    with pytest.raises(SystemExit):
        app.parse_arguments([])
    assert "name a model, or set the environment variable MODEL" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: .*no/such/model"):
        app.main(["no/such/model"])


def test_a_port_that_is_taken_or_none(folder, capsys):
    app = pytest.importorskip("app", reason="gradio is not installed: pip install '.[app]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SystemExit, match="error: Cannot find empty port"):
            app.main([folder, "--image_size", "64", "--port", str(taken.getsockname()[1])])
    with pytest.raises(SystemExit):
        app.parse_arguments(["model", "--port", "99999"])
    assert "--port must be between 1 and 65535, got 99999" in capsys.readouterr().err


def test_space():
    """Its requirements are those of the package and the extra; its card names this app."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    wanted = parser["options"]["install_requires"].split() + parser["options.extras_require"]["app"].split()
    lines = (APP / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == sorted(wanted)
    card = RepoCard.load(APP / "README.md").data.to_dict()
    assert card["sdk"] == "gradio" and (APP / card["app_file"]).is_file()
    assert card["sdk_version"].split(".")[0] == "6" and len(card["short_description"]) <= 60


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """Starts the page as on a Space, in another process, from a folder laid out as the app's README.md says."""
    space = tmp_path_factory.mktemp("space") / "space"
    shutil.copytree(APP, space, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "modeling_esvit", space / "modeling_esvit", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "MODEL": folder, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    log = space.parent / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stdout=file, stderr=file)
    try:
        yield wait_for_address(process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_address(process: subprocess.Popen, log: Path) -> str:
    for _ in range(240):
        found = re.search(r"http://127.0.0.1:\d+", log.read_text())
        if found:
            return found.group()
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture
def page(address):
    """Opens the page in a browser. The page must load nothing from another host, and have no error."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)
    hosts, errors = set(), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.on("request", lambda request: hosts.add(re.split("[/?]", request.url)[2]) if "//" in request.url else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        expect(page.locator("#hint")).to_contain_text("in either image", timeout=60_000)
        yield page
        browser.close()
    assert hosts == {address.removeprefix("http://")} and not errors


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


def choose(page, letter: str, name: str) -> None:
    page.locator(f"#choice-{letter} input").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('[role=option]').length === 0")


def shown(page, name: str):
    """Returns the picture of an element, as the browser shows it: `[H, W, 3]`."""
    from playwright.sync_api import expect

    image = page.locator(f"#{name} img").first
    image.wait_for(timeout=30_000)
    expect(image).not_to_have_js_property("currentSrc", "")  # as it is for an instant after the picture has changed
    response = page.request.get(image.evaluate("image => image.currentSrc"))
    return np.asarray(Image.open(io.BytesIO(response.body())).convert("RGB"))


def click(page, name: str, share_x: float, share_y: float) -> None:
    image = page.locator(f"#{name} img").first
    box = image.bounding_box()
    image.click(position={"x": box["width"] * share_x, "y": box["height"] * share_y})


@pytest.mark.slow
@needs_chromium
def test_click_finds_the_same_point_of_the_same_photograph(page):
    from playwright.sync_api import expect

    choose(page, "A", "astronaut")
    choose(page, "B", "astronaut")
    for letter in "AB":  # both choices have gone through: it is the only square one
        square = "image => image.complete && image.naturalWidth === image.naturalHeight"
        page.wait_for_function(f"() => [document.querySelector('#match-{letter} img')].some({square})")
    height, width = shown(page, "match-B").shape[:2]
    before = shown(page, "match-B")
    click(page, "match-A", 0.3, 0.6)
    expect(page.locator("#hint")).to_contain_text("cosine 1.000")
    x, y = map(int, re.search(r"\((\d+), (\d+)\)", page.locator("#hint").inner_text()).groups())
    assert abs(x - 0.3 * width) <= 16 and abs(y - 0.6 * height) <= 16
    assert np.abs(shown(page, "match-B").astype(int) - before).mean() > 5  # a heat map now
    click(page, "match-B", 0.7, 0.2)
    expect(page.locator("#hint")).not_to_contain_text(f"({x}, {y})")
    expect(page.locator("#hint")).to_contain_text("cosine 1.000")


@pytest.mark.slow
@needs_chromium
def test_colours_neighbours_and_attention(page):
    from playwright.sync_api import expect

    page.get_by_role("tab", name="Colours of regions").click()
    for letter in "AB":
        assert len(np.unique(shown(page, f"colours-{letter}").reshape(-1, 3), axis=0)) > 100
    page.get_by_role("tab", name="Nearest photographs").click()
    expect(page.locator("#nearest-A")).to_contain_text("1.000 motorcycle, left")
    expect(page.locator("#nearest-B")).to_contain_text("1.000 motorcycle, right")
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#heads")).to_contain_text("head 2")
    before, source = shown(page, "heads"), page.locator("#heads img").first.get_attribute("src")
    click(page, "attention-A", 0.2, 0.2)
    expect(page.locator("#heads img").first).not_to_have_attribute("src", source)
    assert not np.array_equal(shown(page, "heads"), before)
    page.locator("#block input").click()
    page.get_by_role("option", name="block 1 of 4").click()
    expect(page.locator("#heads")).not_to_contain_text("head 2")


@pytest.mark.slow
@needs_chromium
def test_uploads_one_image_and_none(page, tmp_path):
    from playwright.sync_api import expect

    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 65535, (60, 90), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.new("CMYK", (120, 40), (0, 200, 200, 0)).save(tmp_path / "print.jpg")
    Image.fromarray(generator.integers(0, 255, (3000, 4500, 3), dtype=np.uint8)).save(tmp_path / "huge.jpg", quality=30)
    Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(tmp_path / "tiny.png")
    hint = page.locator("#hint")
    for name, ratio in {"deep.png": 1.5, "print.jpg": 3, "huge.jpg": 1.5, "tiny.png": 1}.items():
        page.get_by_label("Remove Image").first.click()
        expect(hint).to_contain_text("this same image")
        page.locator("#upload-A input[type=file]").set_input_files(tmp_path / name)
        expect(hint).to_contain_text("in either image")
        height, width = shown(page, "match-A").shape[:2]
        assert width / height == pytest.approx(ratio, rel=0.15), name
    assert page.locator("#choice-A input").input_value() == ""

    (tmp_path / "broken.png").write_bytes(b"no image")
    page.get_by_label("Remove Image").first.click()
    expect(hint).to_contain_text("this same image")
    page.locator("#upload-A input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.get_by_text("cannot identify image file")).to_be_visible()
    click(page, "match-B", 0.5, 0.5)
    expect(hint).to_contain_text("cosine 1.000")  # of one image, in itself
    page.get_by_label("Remove Image").last.click()
    expect(hint).to_contain_text("Choose or upload an image")
