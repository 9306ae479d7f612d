# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests what the page shows of a model, and the page itself in a headless browser, laid out as on a Space."""

import asyncio
import configparser
import io
import json
import re
import shutil
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard
from packaging.requirements import Requirement
from PIL import Image

import app
from collection import (
    MOST_PIXELS,
    Bundled,
    EmptyFolderError,
    Folder,
    NoPhotographError,
    find_name,
    list_parts,
    read_entry,
    read_photograph,
)
from explorer import Explorer, Match, find_pairs, find_reach, make_light, match
from measurements import read_measurements
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.command import main as embed
from modeling_esvit.embed.embedder import Embedder
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.embed.files import OutputError
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import UnreadableImageError
from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.programs.ending import exit_with_message
from tests.helpers.app_server import APP, serve_app
from tests.helpers.paths import ROOT


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
    seen = explorer.see_photograph("astronaut")
    for point in ((60, 70), (130, 200)):
        found = match(seen, seen, point)
        assert found.similarity == pytest.approx(1, abs=1e-5) and found.picture.size == seen.image.size
        assert max(abs(a - b) for a, b in zip(found.point, point, strict=True)) <= 8  # half a region


def test_a_moved_object_is_found(explorer):
    """Shifts a photograph by a window of four regions."""
    image = explorer.collection.read("astronaut").resize((224, 224))
    moved = Image.new("RGB", image.size, "gray")
    moved.paste(image, (64, 0))
    before, after = explorer.see(image), explorer.see(moved)
    points = [(x, y) for x in (40, 72, 104, 136) for y in (72, 104, 136)]
    found = [match(before, after, point).point for point in points]
    moves = [(right[0] - left[0], right[1] - left[1]) for left, right in zip(points, found, strict=True)]
    assert sum(abs(x - 64) <= 16 and abs(y) <= 16 for x, y in moves) >= len(points) / 2


def test_a_photograph_is_no_neighbour_of_itself(explorer):
    """Nor are its parts; of an upload with the same pixels it is the nearest."""
    for name in ("coffee", "motorcycle, left"):
        seen = explorer.see_photograph(name)
        captions = [caption[6:] for _, caption in explorer.find_neighbours(seen, count=10_000)]
        assert len(captions) == len(explorer.collection.entries) - 6
        assert not [caption for caption in captions if caption.startswith(name)]
        (image, caption), *_ = explorer.find_neighbours(explorer.see(seen.original))
        assert caption == f"1.000 {name}" and image is seen.original
    narrow = explorer.see(Image.new("RGB", (5, 900)))
    assert len(explorer.find_neighbours(narrow, count=10_000)) == len(explorer.collection.entries)


def test_search_in_a_folder_of_ones_own(folder, tmp_path, capsys):
    """Reads it anew at each look, so that its pixels need no memory; what is not searched in is said."""
    for name, shade in {"dark.png": 20, "deep/bright.png": 220, "deep/brighter.png": 240}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").point(lambda value, shade=shade: (value + shade) // 2).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("none")
    explorer = Explorer(folder, 64, Folder(tmp_path))
    assert explorer.collection.describe() == f"the 4 photographs of {tmp_path.name}"
    assert explorer.names == ["dark.png", "deep/bright.png", "deep/brighter.png"]
    assert explorer.searched == f"the 3 photographs of {tmp_path.name} (1 more cannot be read)"
    printed = capsys.readouterr().out
    reason = "not an image in a format that is read here"
    for line in (f"cannot be read: {tmp_path}/broken.png: {reason}", "1 could not be read", "not read: 1 .txt"):
        assert line in printed.splitlines()
    seen = explorer.see_photograph("deep/bright.png")
    found = explorer.find_neighbours(seen)
    assert [caption.partition(" ")[2] for _, caption in found] == ["deep/brighter.png", "dark.png"]
    (tmp_path / "dark.png").unlink()  # while the page is served
    assert [caption.partition(" ")[2] for _, caption in explorer.find_neighbours(seen)] == ["deep/brighter.png"]
    assert "cannot be read: dark.png: " in capsys.readouterr().out
    for place, message in ((tmp_path / "none", "is no folder"), (tmp_path / "notes.txt", "is no folder")):
        with pytest.raises(EmptyFolderError, match=message):
            Folder(place)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").touch()
    with pytest.raises(EmptyFolderError, match="holds no image: 1 .txt"):
        Folder(tmp_path / "text")
    (tmp_path / "text" / "a.png").touch()
    with pytest.raises(OutputError, match="0 of 1 image can be read"):
        Explorer(folder, 64, Folder(tmp_path / "text")).index  # noqa: B018


def test_colours_and_attention(explorer):
    seen = [explorer.see_photograph(name) for name in ("cat", "rocket")]
    assert {each.image.size for each in seen} == {(224, 144)}
    assert {picture.size for picture in explorer.colour_regions(seen)} == {(448, 304)}  # of four times as many regions
    assert explorer.num_blocks == 4
    place, heads = explorer.draw_attention(seen[0], 4, (100, 70))
    assert place.size == seen[0].image.size and len(heads) == 2 and heads[0][1].startswith("head 1")


def test_attention_is_enlarged_to_the_window_that_a_point_looks_at(explorer):
    """The first block has windows of 4 x 4 tokens of 8 pixels: the rest of the image is not shown."""
    seen = explorer.see_photograph("cat")
    maps = explorer.attend(explorer.prepare(seen.original))[0].query_map(100, 70).image[0]
    assert find_reach(maps) == (96, 64, 128, 96)
    place, heads = explorer.draw_attention(seen, 1, (100, 70))
    assert {picture.size for picture, _ in heads} == {(320, 320)}
    assert place.getpixel((96, 64)) == place.getpixel((127, 95)) == (255, 255, 0)
    assert find_reach(torch.zeros(2, 5, 7)) == (0, 0, 7, 5)


def test_a_click_is_of_the_image_as_it_is_shown(explorer):
    seen = explorer.see(Image.new("RGB", (1000, 500)))
    assert seen.image.size == (224, 112)
    assert [seen.find_point(point) for point in ((0, 0), (500, 250), (999, 499), (1000, 500))] == [
        *((0, 0), (112, 56)),
        *((223, 111), (223, 111)),
    ]


def test_photographs_and_their_parts():
    bundled = Bundled()
    assert len(bundled.images) == 19 and all(image.mode == "RGB" for image in bundled.images.values())
    parts = {entry.caption: read_entry(bundled, entry) for entry in bundled.entries if entry.photograph == "cat"}
    assert len(parts) == 6 and parts["cat, part 4"].size == (150, 150)
    assert list(list_parts("dot", (1, 1)))[1].box == (0, 0, 1, 1)


def test_what_was_measured_of_a_model(folder, tmp_path):
    """Its card says it, or the log beside the `teacher` of a run; a damaged card says nothing."""
    assert read_measurements(folder) == []
    model = shutil.copytree(folder, tmp_path / "run" / "teacher")
    matches = {"region_match_accuracy": 0.25, "region_match_chance": 0.02}
    records = [{"step": 1, "knn_k10_top1": 0.1}, {"step": 2, "embedding_rank": 40.0}, {"step": 1200, **matches}]
    log = "\n".join(
        [*map(json.dumps, records), "5", '{"knn_k10_top1": 0.9}', '{"step": 7, "knn_k10_top1": ""}', '{"step": 13']
    )
    (tmp_path / "run" / "log.jsonl").write_text(log)
    assert read_measurements(str(model)) == [
        "k-NN top-1 10.0% (k = 10)",
        "regions at their place 25.0% (chance 2.0%)",
        *("effective rank of its embeddings 40.0", "after 1,200 steps"),
    ]
    assert read_measurements(str(model.parent)) == read_measurements(str(model))  # the folder of a run is a model
    measured = "{type: accuracy, name: k-NN (%), value: 87.5}"
    result = f"{{task: {{type: x}}, dataset: {{type: o/n, name: o/n}}, metrics: [{measured}]}}"
    (model / "README.md").write_text(f"---\nmodel-index: [{{name: x, results: [{result}]}}]\n---\n# x\n")
    assert read_measurements(str(model)) == ["k-NN (%) 87.5 on o/n"]
    strange = f"model-index: [{{name: x, results: [{result[:-1]}, source: 5}}]}}]"
    for fields in ("a: [", "a: " + 600 * "[", strange):
        (model / "README.md").write_text(f"---\n{fields}\n---\n# x\n")
        assert read_measurements(str(model))[0] == "k-NN top-1 10.0% (k = 10)"


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 40)], ids=str)
def test_uploads_of_all_kinds(explorer, tmp_path, mode, size):
    path = str(tmp_path / ("image.tiff" if mode == "CMYK" else "image.png"))
    image = Image.fromarray(np.full(size[::-1], 40_000, np.uint16)) if mode == "I;16" else Image.new(mode, size)
    image.save(path)
    upload = read_photograph(path)
    assert upload.mode == "RGB" and max(upload.size) <= MOST_PIXELS
    seen = explorer.see(upload)
    assert match(seen, seen, (0, 0)).picture.size == seen.image.size


def make_photographs(folder, *sizes: tuple[int, int]) -> list[str]:
    """Writes noise of sizes in blocks, and returns the names."""
    generator = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(len(sizes))]


@pytest.mark.slow
def test_features_that_embed_wrote_are_searched_in(folder, tmp_path, monkeypatch, capsys):
    """Nothing is embedded again, and the features of other photographs are refused in a line."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[app]'")
    (tmp_path / "data").mkdir()
    names = make_photographs(tmp_path / "data", (40, 30), (30, 40), (50, 50))
    file = tmp_path / "f.parquet"
    embed([folder, str(tmp_path / "data"), "--output", str(file)])
    monkeypatch.chdir(tmp_path / "data")
    explorer = Explorer(folder, 64, Folder(Path(".")), file)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(Embedder, "features", None)
        assert explorer.names == names
    assert "embeds" not in capsys.readouterr().out
    plain = Explorer(folder, 64, Folder(tmp_path / "data"))
    torch.testing.assert_close(explorer.index[1], plain.index[1])
    (tmp_path / "data" / "2.png").unlink()
    command = [folder, "--photographs", str(tmp_path / "data"), "--features", str(file)]
    with pytest.raises((EsViTError, SystemExit), match="f.parquet holds features of other images: 2.png is missing"):
        app.main(command)
    with pytest.raises(SystemExit):
        app.parse_arguments(["model", "--features", "f.parquet"])
    assert "--features is of the photographs in a folder" in capsys.readouterr().err


def test_pair_of_the_first_visit(folder, tmp_path):
    """Two that are each other's nearest and no near copies; of these the largest."""
    angles = torch.tensor([0.0, 0.1, 0.6, 3.0, 3.5, 3.52])  # near copies are 0 and 1, 4 and 5
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert [(a, b) for _, a, b in find_pairs(rows)] == [(1, 2), (3, 4)]
    names = make_photographs(tmp_path, *[(40, 40)] * 4, (80, 60), (70, 90))
    explorer = Explorer(folder, 64, Folder(tmp_path))
    explorer.__dict__["index"] = explorer.collection.entries, rows[[1, 2, 0, 0, 3, 4]]
    assert explorer.choose_pair() == (names[4], names[5])
    explorer.__dict__["index"] = explorer.collection.entries, torch.ones(6, 1)  # all are copies
    assert explorer.choose_pair() == (names[0], names[1])


def test_a_match_is_as_bright_as_its_cosine_is_high():
    for cosines, best in (([0.113, -0.1, 0.05, 0.0], 0.113), ([0.9, 0.5, 0.6, 0.1], 0.9), ([-0.1, -0.2, -0.3], 0)):
        light = make_light(torch.tensor(cosines))
        assert light.max().item() == pytest.approx(best) and light.argmax() == 0 and light.min() == 0


def test_what_is_no_match_is_said(explorer):
    """The limit is what regions of different photographs reach; of a single one nothing is known."""
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    page, picture = site.Page(explorer), Image.new("RGB", (4, 4))
    assert 0 < explorer.chance < 1
    assert "is no match: regions of any two photographs" in site.explain_brightness(explorer)
    near, far = (page.describe_match(Match(picture, (1, 2), each), "image B") for each in (1.0, explorer.chance))
    assert near == "In image B, the most similar region is at (1, 2), cosine 1.000. Click again anywhere."
    assert far.startswith(f"Nothing in image B resembles this point: the highest cosine is {explorer.chance:.3f}")


def test_a_photograph_is_found_by_a_part_of_its_name():
    names = ["Ferien/Hund.jpg", "a.jpg", "b/a.jpg"]
    assert [find_name(names, text) for text in ("a.jpg", "hund", "b/")] == ["a.jpg", names[0], "b/a.jpg"]
    for text, message in (("x", "No photograph has 'x'"), ("jpg", "such as Ferien/Hund.jpg and a.jpg"), ("", "Type")):
        with pytest.raises(NoPhotographError, match=message):
            find_name(names, text)


def test_all_photographs_can_be_chosen(folder, tmp_path, monkeypatch):
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    names = make_photographs(tmp_path, *[(20, 20)] * 4)
    explorer = Explorer(folder, 64, Folder(tmp_path))
    with site.gr.Blocks():
        dropdown = site.build_choice("A", names[0], explorer)[1]
        monkeypatch.setattr(site, "MOST_NAMED", 2)
        assert "type a part of one of 4 names" in site.build_choice("A", names[0], explorer)[1].label
    assert [name for name, _ in dropdown.choices] == names and dropdown.label == "or a photograph as image A"
    event = site.gr.KeyUpData(None, {"key": "3", "input_value": "3"})
    assert site.Page(explorer).list_names(event)["choices"] == ["3.png"]
    image, _, name = site.Page(explorer).take_photograph("3")
    assert image.size == (20, 20) and name == "3.png"


def test_heading_names_the_network(tmp_path, explorer, folder):
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    weights = f"{explorer.model.num_parameters() / 1e6:.1f} million weights"
    _, name, task = site.describe(folder, explorer).split("\n\n")
    assert name == f"**{Path(folder).parent.name}/small**: swin, {weights}" and task.startswith("Choose")


def test_what_a_stranger_wrote_loads_nothing_of_other_hosts(explorer, folder, tmp_path, monkeypatch):
    """The card of a model and the names of photographs are shown, and are neither Markdown nor HTML."""
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    monkeypatch.setattr(site, "read_measurements", lambda name: ["k-NN 9% on ![x](//host/x.gif) <img src=//host/x>"])
    said = site.describe(folder, explorer).split("\n\n")[2]
    assert said == r"Measured of it: k-NN 9% on \!\[x\](//host/x.gif) \<img src=//host/x\>."
    (tmp_path / "<img src=x>.png").write_bytes(b"no image")
    with pytest.raises(site.gr.Error, match="&lt;img src=x&gt;.png: not an image"):
        site.show_errors(site.Page(None).take_upload)(str(tmp_path / "<img src=x>.png"))


def test_errors_of_visitors_leave_no_traceback(tmp_path):
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(site.gr.Error, match="x.png: not an image") as caught:
        site.show_errors(site.Page(None).take_upload)(str(tmp_path / "x.png"))
    assert not caught.value.print_exception
    upload = site.take_uploads(site.gr.Image(type="filepath"))
    payload = site.gr.Image.data_model(path=str(tmp_path / "x.png"))
    assert upload.preprocess(payload) == str(tmp_path / "x.png") and upload.preprocess(None) is None
    with pytest.raises(site.gr.Error, match="takes files alone"):
        upload.preprocess(site.gr.Image.data_model(url="data:image/png;base64,AAAA"))


def test_upload_that_is_no_image(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="x.png: not an image"):
        read_photograph(str(tmp_path / "x.png"))


def test_an_upload_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(UnreadableImageError, match="bomb.png: 10000 x 10000 pixels are more than the 50000000"):
        read_photograph(str(tmp_path / "bomb.png"))


def test_uploads_are_decoded_as_the_command_says(tmp_path):
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    decoding = read_decoding_arguments(app.parse_arguments(["model", "--max_pixels", "9"]))
    with pytest.raises(UnreadableImageError, match="x.png: 4 x 4 pixels are more than the 9"):
        site.Page(None, decoding).take_upload(str(tmp_path / "x.png"))


def list_tabs(blocks) -> list[str]:
    """Returns the labels of the tabs of a page that visitors see."""
    return [each.label for each in blocks.blocks.values() if type(each).__name__ == "Tab" and each.visible]


@pytest.mark.slow
def test_models_without_attention_or_views(tmp_path, explorer, monkeypatch):
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
    EsViTModel(EsViTConfig(architecture="auto", backbone_config=backbone)).save_pretrained(tmp_path)
    other = Explorer(str(tmp_path), size=64)
    site = pytest.importorskip("page", reason="gradio is not installed: pip install '.[app]'")
    assert [list_tabs(site.build("x", each, 30.0))[-1] for each in (other, explorer)] == [
        "Nearest photographs",
        "Attention",
    ]
    assert "attends" not in site.Page(other).refresh(other.see(Image.new("RGB", (40, 30))), None)[4]
    assert other.num_blocks == 0 and other.see(Image.new("RGB", (40, 30))).regions.shape[1] == 16

    class Headless(torch.nn.Module):
        def forward(self, pixels):
            return object()

    monkeypatch.setattr(explorer, "model", Headless())
    with pytest.raises(FeatureError, match="Headless gives no pooler_output"):
        explorer.embed([Image.new("RGB", (40, 30))])


@pytest.mark.parametrize(("path", "most"), [("/gradio_api/upload", 33 * 2**20), ("/gradio_api/queue/join", 2**20)])
def test_a_request_that_is_too_long_is_cut_off(path, most):
    limits = pytest.importorskip("limits", reason="gradio is not installed: pip install '.[app]'")
    taken, answers = [], []

    async def page(scope, receive, send):
        while (message := await receive())["more_body"] and sum(taken) < 2 * most:
            taken.append(len(message["body"]))

    async def receive():
        return {"type": "http.request", "body": b"x" * 2**19, "more_body": True}

    async def send(message):
        answers.append(message)

    asyncio.run(limits.BodyLimit(page)({"type": "http", "path": path, "method": "POST"}, receive, send))
    assert sum(taken) == most and answers[0]["status"] == 413


def test_addresses_are_not_opened():
    limits = pytest.importorskip("limits", reason="gradio is not installed: pip install '.[app]'")
    upload = limits.take_uploads(limits.gr.Image(type="filepath"))
    with pytest.raises(Exception, match="This page opens no addresses"):
        asyncio.run(upload.async_move_resource_to_block_cache("http://127.0.0.1:1/a.png"))


def test_command_without_a_model(capsys, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[app]'")
    monkeypatch.delenv("MODEL", raising=False)
    with pytest.raises(SystemExit):
        app.parse_arguments([])
    assert "name a model, or set the environment variable MODEL" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: .*no/such/model"), exit_with_message():
        app.main(["no/such/model"])


def test_a_port_that_is_taken_or_none(folder, capsys):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[app]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SystemExit, match="error: Cannot find empty port"), exit_with_message():
            app.main([folder, "--image_size", "64", "--port", str(taken.getsockname()[1])])
    with pytest.raises(SystemExit):
        app.parse_arguments(["model", "--port", "99999"])
    assert "--port must be between 1 and 65535, got 99999" in capsys.readouterr().err


def test_space():
    """Its requirements are those of the package and the extra, pinned; its card names this app."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    wanted = parser["options"]["install_requires"].split() + parser["options.extras_require"]["app"].split()
    lines = (APP / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    floors = {requirement.name: requirement.specifier for requirement in map(Requirement, wanted)}
    assert list(pins) == sorted(floors) and all(floors[name].contains(pin) for name, pin in pins.items())
    card = RepoCard.load(APP / "README.md").data.to_dict()
    assert card["sdk"] == "gradio" and (APP / card["app_file"]).is_file()
    assert card["sdk_version"] == pins["gradio"] and len(card["short_description"]) <= 60


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """Starts the page as on a Space."""
    with serve_app(folder, tmp_path_factory.mktemp("space")) as (address, _):
        yield address


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
        expect(page.locator("#hint")).to_contain_text("in image A or B", timeout=60_000)
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
        page.wait_for_function(f"() => [document.querySelector('#upload-{letter} img')].some({square})")
    assert page.locator("#asked img").count() == 0  # no image is shown twice
    click(page, "upload-A", 0.3, 0.6)
    expect(page.locator("#hint")).to_contain_text("In image B, the most similar region")
    expect(page.locator("#hint")).to_contain_text("cosine 1.000")
    height, width = shown(page, "found").shape[:2]
    x, y = map(int, re.search(r"\((\d+), (\d+)\)", page.locator("#hint").inner_text()).groups())
    assert abs(x - 0.3 * width) <= 16 and abs(y - 0.6 * height) <= 16
    difference = shown(page, "found").astype(int) - shown(page, "asked")
    assert np.abs(difference).mean() > 5  # a heat map
    click(page, "upload-B", 0.7, 0.2)
    expect(page.locator("#hint")).to_contain_text("In image A, the most similar region")
    expect(page.locator("#hint")).not_to_contain_text(f"({x}, {y})")


@pytest.mark.slow
@needs_chromium
def test_colours_neighbours_and_attention(page):
    from playwright.sync_api import expect

    page.get_by_role("tab", name="Colours of regions").click()
    for letter in "AB":
        assert len(np.unique(shown(page, f"colours-{letter}").reshape(-1, 3), axis=0)) > 100
    page.get_by_role("tab", name="Nearest photographs").click()
    expect(page.locator("#nearest-A")).to_contain_text("motorcycle, right")
    expect(page.locator("#nearest-A")).not_to_contain_text("motorcycle, left")
    expect(page.locator("#nearest-B")).to_contain_text("motorcycle, left")
    click(page, "upload-A", 0.5, 0.5)
    page.get_by_role("tab", name="Attention").click()
    expect(page.locator("#heads")).to_contain_text("head 2")
    before, source = shown(page, "heads"), page.locator("#heads img").first.get_attribute("src")
    click(page, "upload-A", 0.2, 0.2)
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
        expect(hint).to_contain_text("in image A or B")
        height, width = shown(page, "upload-A").shape[:2]
        assert width / height == pytest.approx(ratio, rel=0.15), name
    assert page.locator("#choice-A input").input_value() == ""

    (tmp_path / "broken.png").write_bytes(b"no image")
    page.get_by_label("Remove Image").first.click()
    expect(hint).to_contain_text("this same image")
    page.locator("#upload-A input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.get_by_text("broken.png: not an image in a format that is read here")).to_be_visible()
    click(page, "upload-B", 0.5, 0.5)
    expect(hint).to_contain_text("In the same image, the most similar region")
    expect(hint).to_contain_text("cosine 1.000")
    page.get_by_label("Remove Image").last.click()
    expect(hint).to_contain_text("Choose or upload an image")
