# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `modeling_esvit.embed` as a command: every format, stops and kills, and what users get wrong."""

import json
import os
import shutil
import time

import datasets
import numpy as np
import psutil
import pytest
import torch

from modeling_esvit.embed.command import main, parse_arguments
from modeling_esvit.embed.embedder import Embedder, embed
from modeling_esvit.embed.files import FORMATS, OutputError, load_features
from modeling_esvit.embed.inputs import NoImagesError, find_images
from modeling_esvit.storage.atomic import replace_folder
from tests.helpers.commands import make_environment, run_program, torchrun
from tests.helpers.tiny_runs import flip_bit


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


def test_a_damaged_model_is_named(folder, images, tmp_path):
    with replace_folder(tmp_path / "run" / "teacher") as model:
        shutil.copytree(folder, model, dirs_exist_ok=True)
    flip_bit(tmp_path / "run" / "teacher" / "model.safetensors")
    with pytest.raises(SystemExit, match=r"run/teacher is damaged or .*model\.safetensors is not as it was written"):
        main([str(tmp_path / "run"), str(images), "--output", str(tmp_path / "f.npz")])
    assert not (tmp_path / "f.npz").exists()


def test_unreadable_images_are_reported_and_left_out(folder, images, by_hand, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((images / "00.png").read_bytes()[:80])
    output = tmp_path / "features.npz"
    main([folder, str(broken), str(images), "--output", str(output)])
    check(load_features(output), by_hand, regions=False)
    assert f"{len(by_hand)} of {len(by_hand) + 1} images" in capsys.readouterr().out
    assert str(broken / "a.png") in (tmp_path / "features.npz.unreadable.txt").read_text()
    for suffix in FORMATS:
        with pytest.raises(SystemExit, match="0 of 1 image can be read"):
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


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Runs a command that ends after so many batches, as when the power goes."""
    good, left = Embedder.features, [None] * count

    def stops(embedder, pixels, regions):
        if not left:
            raise OSError("the power went")
        left.pop()
        return good(embedder, pixels, regions)

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "features", stops)
        with pytest.raises(SystemExit, match="the power went"):
            main(command)


def test_a_stopped_call_is_not_continued_over_other_images(folder, images, tmp_path, monkeypatch, caplog):
    """Each image of the folder is there once, or the change is named: trial 1."""
    data, output = shutil.copytree(images, tmp_path / "data"), tmp_path / "features.parquet"
    command = [folder, str(data), "--output", str(output), "--part_size", "3"]
    stop_after(2, monkeypatch, command)
    shutil.copy(data / "00.png", data / "a_new.png")
    (data / "02.png").unlink()
    with pytest.raises(SystemExit, match=r"another call: .*02.png is missing; .*a_new.png is new\. .*--overwrite"):
        main(command)
    main([*command, "--overwrite"])
    assert "begun anew, since its features are of another call" in caplog.text
    assert load_features(output).names == sorted(str(path) for path in data.rglob("*.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"data", output.name}


def test_other_times_are_warned_of_and_other_content_is_refused(folder, images, tmp_path, monkeypatch, caplog):
    data, output = shutil.copytree(images, tmp_path / "data"), tmp_path / "features.npz"
    command = [folder, str(data), "--output", str(output), "--part_size", "3"]
    stop_after(2, monkeypatch, command)
    content = (data / "04.png").read_bytes()
    (data / "04.png").write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(SystemExit, match="04.png has another content"):
        main(command)
    (data / "04.png").write_bytes(content)
    os.utime(data / "04.png", ns=(5, 5))
    main(command)
    assert "modified at other times than before: 1 of 11 files, " in caplog.text
    assert len(load_features(output).names) == 11


def test_another_data_set_of_the_same_name_is_refused(folder, images, tmp_path, monkeypatch):
    rows = {"image": [path.read_bytes() for path in sorted(images.rglob("*.png"))]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    dataset.save_to_disk(tmp_path / "set")
    command = [folder, str(tmp_path / "set"), "--output", str(tmp_path / "f.npz"), "--part_size", "3"]
    stop_after(2, monkeypatch, command)
    shutil.rmtree(tmp_path / "set")
    dataset.select([1, 0, *range(2, len(dataset))]).save_to_disk(tmp_path / "set")
    with pytest.raises(SystemExit, match=r"set\[0\] has another content; .*set\[1\] has another content"):
        main(command)


def test_another_processing_of_the_images_is_refused(folder, images, tmp_path, monkeypatch):
    """tensorflow/tfx issue 2247: features made with two crops would be one file."""
    model, output = shutil.copytree(folder, tmp_path / "model"), tmp_path / "features.npz"
    command = [str(model), str(images), "--output", str(output), "--part_size", "3"]
    stop_after(2, monkeypatch, command)
    settings = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(
        SystemExit, match="another call: processing was .*'image_mean': .0.485.* and is .*0.5, 0.5, 0.5"
    ):
        main(command)
    main([*command, "--overwrite"])
    assert len(load_features(output).names) == 11


def test_what_is_not_ours_stays_in_the_folder_of_parts(folder, images, tmp_path):
    parts = tmp_path / "features.npz.parts"
    parts.mkdir()
    (parts / "part-1.safetensors").write_text("mine")
    main([folder, str(images), "--output", str(tmp_path / "features.npz")])
    assert [path.name for path in parts.iterdir()] == ["part-1.safetensors"]


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
    command += ["--part_size", "1", "--batch_size", "1", "--device", "cpu", "--dtype", "float32", "--regions"]
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
    assert larger.regions.shape == (len(by_hand), 36, 32)
    assert load_features(tmp_path / "half.npz").view.shape == larger.view.shape


def test_bad_input(folder, images, tmp_path):
    output = tmp_path / "features.npz"
    for arguments, message in [
        ([str(images), "--output", "features.csv"], "must end in one of"),
        ([str(images), "--output", str(tmp_path / "a.npz" / "b.npz")], "a.npz' is a file where a folder has to be"),
        ([str(images), "--output", str(tmp_path / "x" / "y.npz")], None),
        ([str(images / "nothing"), "--output", str(output)], "is neither a file"),
        ([f"{images}/*.tiff", "--output", str(output)], "holds no image"),
        ([str(images), "--output", str(output)], "exists already"),
    ]:
        (tmp_path / "a.npz").write_text("")
        if message == "exists already":
            output.write_text("")
        if message is None:
            main([folder, *arguments])
            assert (tmp_path / "x" / "y.npz").exists()
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


@pytest.mark.parametrize("device", ["gpu", "meta", "xpu:99", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["model", "images", "--output", "features.npz", "--device", device])
    assert f"error: --device {device} cannot be used: " in capsys.readouterr().err
