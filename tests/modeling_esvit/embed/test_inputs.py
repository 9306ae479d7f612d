# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images the inputs of `embed` name, in which order, and what names none."""

import functools
import http.server
import io
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from modeling_esvit.embed.command import main
from modeling_esvit.embed.embedder import Embedder, embed
from modeling_esvit.embed.files import Features, load_features
from modeling_esvit.embed.inputs import NoImagesError, find_images
from modeling_esvit.embed.parts import Parts
from modeling_esvit.images.decoding import DecodingOptions, UnreadableImageError, decode


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


def test_a_url_may_be_longer_than_a_path():
    assert len(find_images(f"https://host/{'a' * 5000}.png")) == 1


def test_passwords_and_signatures_of_urls_are_written_nowhere(folder, images, by_hand, tmp_path, capsys, monkeypatch):
    """URLs that differ in what is not written have a number."""
    written, write = [], Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, text, **options: written.append(text) or write(path, text))
    output = tmp_path / "written" / "f.parquet"
    with serve(images, lambda path, _: None) as (host, _):
        login = host.replace("://", "://ada:CANARY@CANARY@")
        raw = host.replace("://", "://ada:/CANARY#CANARY?CANARY%CANARY@")  # what should have been escaped
        write(tmp_path / "urls.txt", f"{login}/00.png?CANARY\n{raw}/02.png?sig=CANARY\n{login}/02.png?s=CANARY")
        main([folder, str(tmp_path / "urls.txt"), f"{login}/missing.png?sig=CANARY", "--output", str(output)])
    features = load_features(output)
    assert features.names == [f"{host}/00.png", f"{host}/02.png", f"{host}/02.png#2"]
    np.testing.assert_allclose(features.view[1], by_hand[str(images / "02.png")][0], atol=1e-5)
    assert f"{host}/missing.png" in output.with_name("f.parquet.unreadable.txt").read_text()
    assert all(b"CANARY" not in path.read_bytes() for path in output.parent.iterdir())
    assert any("/missing.png" in text for text in written) and "CANARY" not in "".join(written)  # parts are removed
    printed = capsys.readouterr()
    assert "CANARY" not in printed.out + printed.err
    for name in ("zip://a.png::http://ada:CANARY?CANARY@host/no.zip", "s3://ada:CANARY/CANARY@bucket/a.png"):
        with pytest.raises(NoImagesError) as refused:
            find_images(name)
        assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("name", ["s3://bucket/a.png", "hf://datasets/ada/photographs/data", "gs://bucket/photographs"])
def test_a_store_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asks the Hub"))
    with pytest.raises(NoImagesError, match=f"'{name}' is in a store, of which embed reads none: download its images"):
        find_images(name)


def test_a_stopped_call_is_continued_with_renewed_signatures(folder, images, tmp_path, monkeypatch):
    with serve(images, lambda path, _: None) as (host, asked):
        command = [folder, str(tmp_path / "urls.txt"), "--output", str(tmp_path / "f.parquet"), "--part_size", "1"]
        for call in ("first", "second"):
            urls = [f"{host}/{name}.png?sig={call}" for name in ("00", "02", "04")]
            (tmp_path / "urls.txt").write_text("\n".join(urls))
            with monkeypatch.context() as patch, nullcontext() if call == "second" else pytest.raises(SystemExit):
                if call == "first":
                    patch.setattr(Parts, "write", write_one_alone)
                main(command)
    assert sorted(path for path in asked if "second" in path) == ["/02.png?sig=second", "/04.png?sig=second"]
    assert load_features(tmp_path / "f.parquet").names == [f"{host}/{name}.png" for name in ("00", "02", "04")]


def write_one_alone(parts: Parts, number: int, features: Features, write=Parts.write) -> None:
    write(parts, number, features)
    raise KeyboardInterrupt


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


@pytest.mark.parametrize("name, advice", [("a.zip", "give the folder that it is in"), ("a.tar.gz", "unpack it")])
def test_an_archive_alone_says_how_its_images_are_read(name, advice, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(NoImagesError, match=f"{name} is an archive, which embed does not open by its name: {advice}"):
        find_images([str(tmp_path / name)])


def test_data_sets_and_lists_without_images(images, tmp_path):
    files = sorted(map(str, images.glob("*.png")))
    rows = datasets.Dataset.from_dict({"photo": files, "n": range(len(files))})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "splits")
    found = find_images([str(tmp_path / "one")], "photo")  # a column of paths to files elsewhere
    with pytest.raises(UnreadableImageError, match="is no file of the data set; .* --allow_paths opens it"):
        decode(found.read(0))
    found = find_images([str(tmp_path / "one")], "photo", DecodingOptions(allow_paths=True))
    assert decode(found.read(0)).size == (70, 90)
    for name, column, message in [
        ("one", None, r"has no column of images: name one of photo \(string\), n \(int64\) with --image_column"),
        ("one", "n", r"The column 'n' of .*one holds no images. The columns are photo \(string\), n \(int64\)"),
        ("splits", None, "is a data set of several splits: name the folder of one, as .*splits/train"),
    ]:
        with pytest.raises(NoImagesError, match=message):
            find_images([str(tmp_path / name)], column)


def test_images_that_rows_name_belong_to_the_input(images, tmp_path):
    shutil.copy(images / "00.png", tmp_path / "a.png")
    rows = pa.table(
        {"image": pa.array([{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    )
    pq.write_table(rows, tmp_path / "train.parquet")
    before = find_images(tmp_path / "train.parquet").identify()
    shutil.copy(images / "02.png", tmp_path / "a.png")
    change = before.describe_change(find_images(tmp_path / "train.parquet").identify())
    assert change.startswith(f"the file of {tmp_path}/train.parquet[0] had ")


def test_a_list_in_capitals_of_members_of_archives(images, tmp_path):
    def zip_image(name: str) -> None:
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.write(images / name, "1.png")

    zip_image("00.png")
    (tmp_path / "LIST.TXT").write_text("zip://1.png::photos.zip\nzip://1.png::https://ada:pw@host/a.zip?sig=1\n")
    found = find_images(tmp_path / "LIST.TXT")
    names = [found.name(index) for index in range(2)]
    assert names == [f"zip://1.png::{tmp_path}/photos.zip", "zip://1.png::https://host/a.zip"]
    assert decode(found.read(0)).size == Image.open(images / "00.png").size
    before = found.identify()
    assert "ada" not in str(before) and "sig" not in str(before)
    zip_image("02.png")
    assert before.describe_change(find_images(tmp_path / "LIST.TXT").identify()).startswith(names[0])


def test_the_content_of_some_archives_is_looked_at(images, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_esvit.storage.identity.SAMPLED", 2)
    archives = [tmp_path / f"{letter}.zip" for letter in "abc"]
    for archive in archives:
        with zipfile.ZipFile(archive, "w") as file:
            file.write(images / "00.png", "1.png")
    (tmp_path / "list.txt").write_text("".join(f"zip://1.png::{archive}\n" for archive in archives))
    found = find_images(tmp_path / "list.txt").identify()
    assert len(found.files) == 3 and len(found.samples) == 2


def test_one_input_and_several(images):
    file = next(images.glob("*.png"))
    picture, array = Image.open(file), np.asarray(Image.open(file))
    memory, name = Image.fromarray(array), str(file)
    for given, names in [
        (name, [name]),
        (file, [name]),
        (images, sorted(map(str, images.rglob("*.png")))),
        (picture, [name]),
        (memory, ["image 0"]),
        (array, ["image 0"]),
        (np.stack([array, array]), ["image 0", "image 1"]),
        (np.array([name, name]), [name, name]),
        (file.read_bytes(), ["image 0"]),
        ((name, memory, file, array), [name, "image 1", name, "image 3"]),
        ((each for each in (memory, picture)), ["image 0", name]),
    ]:
        found = find_images(given)
        assert [found.name(index) for index in range(len(found))] == names
        for index in (0, len(found) - 1):
            assert found.read(index).identity() == names[index]
            assert names != [name] * len(names) or np.array_equal(decode(found.read(index)), array)
    assert find_images([memory, array]).identify().describe_change(find_images([memory, array]).identify()) is None
    changed = find_images([memory, 255 - array]).identify()
    assert find_images([memory, array]).identify().describe_change(changed) == "image 1 has another content"


@pytest.mark.parametrize(
    "given, message",
    [
        (None, "A NoneType is no image: give a path, a PIL image, an array, or a list of these\\.$"),
        (torch.zeros(3, 8, 8), r"A Tensor is no image.*; of a tensor, tensor.numpy\(\) with channels last\.$"),
        ([io.BytesIO(b"a\nb")], r"A BytesIO is no image.*; of an open file, file.read\(\)\.$"),
        (io.BytesIO(b"a\nb"), r"A BytesIO is no image.*; of an open file, file.read\(\)\.$"),
        ([3], "A int is no image"),
        ([["a.png"]], "A list is no image"),
        ({"image": []}, r"A dict is no image.*; rows of a data set go through dataset.map\(embedder, batched=True\)"),
        (datasets.Dataset.from_dict({"image": ["a"]}), "A Dataset is no image.*; rows of a data set"),
        (np.array(3), "A ndarray is no image"),
        ([], "No image was named"),
        ("", "An input is empty"),
    ],
)
def test_what_is_no_input(given, message):
    with pytest.raises(NoImagesError, match=message):
        find_images(given)


def test_configurations_and_columns_are_chosen(tmp_path, monkeypatch):
    """Columns that only look like images count, too, as in pretraining."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "both").mkdir()
    for name, count in {"small": 1, "large": 3}.items():
        rows = {"photo": [{"bytes": b"%d" % index, "path": None} for index in range(count)], "n": range(count)}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "both" / f"{name}.parquet")
    configurations = "\n".join(f"- config_name: {name}\n  data_files: {name}.parquet" for name in ("small", "large"))
    (tmp_path / "both" / "README.md").write_text(f"---\nconfigs:\n{configurations}\n---\n")
    with pytest.raises(NoImagesError, match="Config name is missing"):
        find_images([str(tmp_path / "both")])
    found = find_images([str(tmp_path / "both")], config_name="large")
    assert [found.read(index).image for index in range(len(found))] == [b"0", b"1", b"2"]
