# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`modeling_esvit.embed`: what the model gives by hand, however images are read, parts made, and features written."""

import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.command import main, parse_arguments
from modeling_esvit.embed.embedder import Embedder, FeatureError, embed
from modeling_esvit.embed.files import FORMATS, OutputError, load_features
from modeling_esvit.embed.inputs import NoImagesError, find_images
from tests.helpers.commands import make_environment, run_program, torchrun


NUMBER = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    config = EsViTConfig(image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4)
    EsViTModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    (path / "more").mkdir()
    generator = np.random.default_rng(0)
    for index in range(NUMBER):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        image = coarse.resize((70 + index, 90), Image.Resampling.BICUBIC)
        image.save(path / ("more" if index % 2 else ".") / f"{index:02d}.png")
    (path / "notes.md").write_text("not an image")
    return path


@pytest.fixture(scope="module")
def by_hand(folder, images):
    """name -> (view, regions)."""
    model, processor = EsViTModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    result = {}
    for path in sorted(images.rglob("*.png")):
        pixels = processor(Image.open(path), return_tensors="pt").pixel_values
        with torch.no_grad():
            output = model(pixels)
        result[str(path)] = (output.pooler_output[0].numpy(), output.last_hidden_state[0].numpy())
    return result


def check(features, by_hand, regions=True, tolerance=1e-5):
    assert features.names == list(by_hand)
    np.testing.assert_allclose(features.view, [view for view, _ in by_hand.values()], atol=tolerance)
    if regions:
        np.testing.assert_allclose(features.regions, [tokens for _, tokens in by_hand.values()], atol=tolerance)
    else:
        assert features.regions is None


@pytest.mark.parametrize("regions", [True, False])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_what_the_model_gives(folder, images, by_hand, tmp_path, suffix, regions):
    output = tmp_path / f"features{suffix}"
    main([folder, str(images), "--output", str(output), "--part_size", "4", "--batch_size", "3"]
         + ["--regions"] * regions)  # fmt: skip
    check(load_features(output), by_hand, regions)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_parquet_is_a_data_set(folder, images, by_hand, tmp_path):
    main([folder, str(images), "--output", str(tmp_path / "f.parquet"), "--regions"])
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "f.parquet"), split="train", cache_dir=tmp_path)
    assert rows["name"][:] == list(by_hand)
    view, regions = by_hand[rows[3]["name"]]
    np.testing.assert_allclose(rows[3]["view"], view, atol=1e-5)
    np.testing.assert_allclose(rows[3]["regions"], regions, atol=1e-5)


def test_inputs_of_all_kinds(images, tmp_path):
    files = sorted(str(path) for path in images.rglob("*.png"))
    (tmp_path / "list.txt").write_text(f"# a list\n{files[0]}\n\nhttp://host/a.jpg\nnext.png\n")
    rows = datasets.Dataset.from_dict({"image": files[:3]}).cast_column("image", datasets.Image())
    rows.save_to_disk(tmp_path / "saved")
    found = find_images(
        [str(images), files[2], f"{images}/more/*", str(tmp_path / "list.txt"), str(tmp_path / "saved")]
    )
    names = [found.name(index) for index in range(len(found))]
    saved = str(tmp_path / "saved")
    assert names == [
        *files,
        files[2],
        *(file for file in files if "/more/" in file),
        *(files[0], "http://host/a.jpg", str(tmp_path / "next.png")),
        *(f"{saved}[{index}]" for index in range(3)),
    ]
    assert found.read(len(found) - 1).image in (Path(files[2]).read_bytes(), files[2])


@contextmanager
def serve(folder: Path, status: Callable[[str, int], int | None]) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder; yields its address and the paths it was asked for. `status` gets a path and how often it was
    asked for: it returns an error, a redirection from `/moved/PATH` to `/PATH`, or None for the file.
    """
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            code = status(self.path, asked.count(self.path))
            if code is None:
                super().do_GET()
            elif code == 302:
                self.send_response(code)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.end_headers()
            else:
                self.send_error(code)

        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_urls_and_failing_servers(folder, images, by_hand):
    with serve(images, lambda path, times: 503 if times == 1 else None) as (host, _):
        features = embed(Embedder.from_pretrained(folder), [f"{host}/00.png", f"{host}/missing.png"])
    assert features.names == [f"{host}/00.png"]
    assert "404" in features.unreadable[f"{host}/missing.png"]
    np.testing.assert_allclose(features.view[0], by_hand[str(images / "00.png")][0], atol=1e-5)


@pytest.mark.slow
def test_what_a_list_of_urls_gives_is_kept(folder, images, by_hand, tmp_path, capsys):
    """Redirections are followed; what is missing, refused or no image is reported, and the others stay."""
    with serve(images, lambda path, _: 302 if path.startswith("/moved/") else None) as (host, asked):
        bad = {f"{host}/missing.png": "404", "http://127.0.0.1:9/a.png": "refused", f"{host}/notes.md": "not an image"}
        good = [f"{host}/00.png", f"{host}/moved/02.png", f"{host}/04.png"]
        (tmp_path / "urls.txt").write_text("\n".join([good[0], *bad, *good[1:]]))
        main([folder, str(tmp_path / "urls.txt"), "--output", str(tmp_path / "features.parquet"), "--part_size", "2"])
        assert asked.count("/02.png") == 1
    features = load_features(tmp_path / "features.parquet")
    assert features.names == good
    expected = [by_hand[str(images / name)][0] for name in ("00.png", "02.png", "04.png")]
    np.testing.assert_allclose(features.view, expected, atol=1e-5)
    printed, listed = capsys.readouterr().out, (tmp_path / "features.parquet.unreadable.txt").read_text().splitlines()
    assert "3 of 6 images" in printed
    assert all(url in line and reason in line for (url, reason), line in zip(bad.items(), listed, strict=True))


def test_unreadable_images_are_reported_and_left_out(folder, images, by_hand, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((images / "00.png").read_bytes()[:80])
    output = tmp_path / "features.npz"
    main([folder, str(broken), str(images), "--output", str(output)])
    check(load_features(output), by_hand, regions=False)
    assert f"{NUMBER} of {NUMBER + 1} images" in capsys.readouterr().out
    assert str(broken / "a.png") in (tmp_path / "features.npz.unreadable.txt").read_text()
    for suffix in FORMATS:
        with pytest.raises(SystemExit, match="None of the 1 images can be read"):
            main([folder, str(broken), "--output", str(tmp_path / f"none{suffix}")])


def test_goes_on_where_it_was_stopped(folder, images, by_hand, tmp_path, capsys):
    output = tmp_path / "features.parquet"
    command = [folder, str(images), "--output", str(output), "--part_size", "3", "--regions"]
    good = Embedder.features
    calls = []

    def stops(embedder, pixels, regions):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise OSError("the power went")
        return good(embedder, pixels, regions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "features", stops)
        with pytest.raises(SystemExit, match="the power went"):
            main(command)
        assert len(list((tmp_path / "features.parquet.parts").glob("part-*.safetensors"))) == 2
        with pytest.raises(SystemExit, match="dtype was 'float32' and is 'bfloat16'"):
            main([*command, "--dtype", "bfloat16"])
        main(command)
    assert calls == [3, 3, 3, 3, 2]
    check(load_features(output), by_hand)


def test_what_auto_means_here_is_said_and_kept_with_the_parts(folder, images, tmp_path, capsys, monkeypatch):
    """A call that goes on where the device computes in another type is refused, as when another type is named."""
    command = [folder, str(images), "--output", str(tmp_path / "features.npz"), "--device", "cpu", "--part_size", "3"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "features", lambda embedder, pixels, regions: [embedder.stopped])
        with pytest.raises(AttributeError, match="stopped"):
            main(command)
    assert "Computes in bfloat16 on cpu." in capsys.readouterr().out
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(SystemExit, match="dtype was 'bfloat16' and is 'float32'"):
        main(command)
    main([*command, "--dtype", "bfloat16"])
    assert "Computes in" not in capsys.readouterr().out.split("float32 on cpu.")[1]


@pytest.mark.slow
def test_two_processes_a_kill_and_one_process(folder, images, by_hand, tmp_path):
    output = tmp_path / "features.safetensors"
    command = ["modeling_esvit.embed", folder, str(images), "--output", str(output)]
    command += ["--part_size", "1", "--batch_size", "1", "--device", "cpu", "--regions"]
    command = [*torchrun(2), "-m", *command]
    parts = tmp_path / "features.safetensors.parts"
    with psutil.Popen(command, env=make_environment()) as process:
        while len(list(parts.glob("part-*.safetensors"))) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        family = [process, *process.children(recursive=True)]  # the workers would finish without their launcher
        for each in family:
            each.kill()
        psutil.wait_procs(family)
    assert not output.exists() and len(list(parts.glob("part-*.safetensors"))) >= 2
    run_program(command)
    check(load_features(output), by_hand)
    assert not parts.exists()


def test_half_precision_and_size(folder, images, by_hand, tmp_path):
    main([folder, str(images), "--output", str(tmp_path / "half.npz"), "--dtype", "bfloat16"])
    features = load_features(tmp_path / "half.npz")
    assert features.view.dtype == np.float32
    check(features, by_hand, regions=False, tolerance=0.1)
    larger = embed(Embedder.from_pretrained(folder, image_size=96), [str(images)], regions=True)
    assert larger.regions.shape == (NUMBER, 36, 32)
    assert load_features(tmp_path / "half.npz").view.shape == larger.view.shape


def test_models_of_others(images, tmp_path):
    """A class token that is pooled, and a feature map `[B, C, H, W]`."""
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    vit = ViTModel(ViTConfig(image_size=32, patch_size=16, **small))
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    for model, shape in ((vit, (5, 8)), (resnet, (16, 16))):
        name = tmp_path / type(model).__name__
        model.save_pretrained(name)
        (name / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}})
        )
        features = embed(Embedder.from_pretrained(str(name)), [str(images)], regions=True)
        assert features.view.shape == (NUMBER, shape[1])
        assert features.regions.shape == (NUMBER, *shape)
    ViTModel(vit.config, add_pooling_layer=False).save_pretrained(tmp_path / "unpooled")
    shutil.copy(name / "preprocessor_config.json", tmp_path / "unpooled")
    with pytest.raises(FeatureError, match="ViTModel gives no pooler_output"):  # instead of one of random weights
        embed(Embedder.from_pretrained(str(tmp_path / "unpooled")), [str(images)])
    for side in (8, 64):
        with pytest.raises(FeatureError, match=f"ViTModel takes no images of {side} px: "):
            Embedder.from_pretrained(str(tmp_path / "ViTModel"), image_size=side)


def test_features_that_are_not_finite(folder, images):
    embedder = Embedder.from_pretrained(folder)
    embedder.model.encoder.norm.weight.data.fill_(float("nan"))
    with pytest.raises(FeatureError, match=r"The feature of .*00\.png is not finite, nor are 10 more"):
        embed(embedder, [str(images)])


def test_bad_input(folder, images, tmp_path):
    output = tmp_path / "features.npz"
    for arguments, message in [
        ([str(images), "--output", "features.csv"], "must end in one of"),
        ([str(images), "--output", str(tmp_path / "a.npz" / "b.npz")], "Not a directory"),
        ([str(images), "--output", str(images) + "/x/y.npz"], None),
        ([str(images / "nothing"), "--output", str(output)], "is neither a file"),
        ([f"{images}/*.tiff", "--output", str(output)], "holds no image"),
        ([str(images), "--output", str(output)], "exists already"),
    ]:
        (tmp_path / "a.npz").write_text("")
        if message == "exists already":
            output.write_text("")
        if message is None:
            main([folder, *arguments])
            assert (images / "x" / "y.npz").exists()
            continue
        with pytest.raises(SystemExit, match=message):
            main([folder, *arguments])
    with pytest.raises(SystemExit, match="error"):
        main([str(tmp_path / "no-model"), str(images), "--output", str(tmp_path / "b.npz")])
    with pytest.raises(NoImagesError):
        find_images([])
    with pytest.raises(OutputError, match="must end in"):
        load_features("features.csv")
    shutil.copytree(folder, tmp_path / "no-model")
    (tmp_path / "no-model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="error: The weights of .*no-model are damaged: "):
        main([str(tmp_path / "no-model"), str(images), "--output", str(tmp_path / "b.npz")])
    (tmp_path / "no-model" / "config.json").write_text('{"a":')
    with pytest.raises(SystemExit, match="error: .*not a valid JSON file"):
        main([str(tmp_path / "no-model"), str(images), "--output", str(tmp_path / "b.npz")])


def test_data_sets_and_lists_without_images(images, tmp_path):
    files = sorted(map(str, images.glob("*.png")))
    rows = datasets.Dataset.from_dict({"photo": files, "n": range(len(files))})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "splits")
    (tmp_path / "list.txt").write_bytes("caf\xe9.png".encode("latin-1"))
    assert find_images([str(tmp_path / "one")], "photo").read(0).image  # a column of paths
    for name, column, message in [
        ("one", None, r"has no column of images in \['photo', 'n'\]: name one with --image_column"),
        ("one", "n", "The column 'n' of .*one holds no images: "),
        ("splits", None, "is a data set of several splits: name the folder of one, as .*splits/train"),
        ("list.txt", None, "list.txt is not text in UTF-8"),
    ]:
        with pytest.raises(NoImagesError, match=message):
            find_images([str(tmp_path / name)], column)


@pytest.mark.parametrize("device", ["gpu", "meta", "xpu:99", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["model", "images", "--output", "features.npz", "--device", device])
    assert f"error: --device {device} cannot be used: " in capsys.readouterr().err
