# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""URLs, servers and stores as strangers have them, through the command that a user types.

What each test stands for was reported by users of other projects; the comments name the reports.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from modeling_esvit.embed.command import main as embed
from modeling_esvit.images import http_client
from modeling_esvit.images.decoding import Record, UnreadableImageError, decode
from modeling_esvit.images.http_client import CERTIFICATES
from tests.helpers.commands import type_arguments
from tests.helpers.shard_server import picture, serve, write_members
from tests.helpers.tiny_runs import tiny, write_model
from tests.helpers.wild_data import TINY, count_images, number, pretrain, refuse
from training.data.http_ranges import StatusError
from training.data.shard_files import ChangedShardError, ShardFile, retry
from training.pretrain import main


def test_secrets_of_urls_are_written_nowhere(tmp_path, monkeypatch, capfd):
    """diffusers issue 6916, allenai/rslearn issue 687: not in options, records, indexes, caches, logs or trackers."""
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a-0.tar", number({"0.jpg": 0, "1.jpg": 1}))
    with serve(tmp_path / "shards") as server:
        server.secret = ("?sig=hush", "ada:pa55")
        url = server.url("a-{0..0}.tar").replace("://", "://ada:pa55@") + "?sig=hush"
        given = tiny(url, tmp_path / "run", f"{TINY} --cache {tmp_path}/run/cache")
        given[given.index("none")] = "tensorboard"
        type_arguments(monkeypatch, "training/pretrain.py", *given)
        main()
        assert count_images(tmp_path / "run") == 2
        assert "?sig=hush" in server.requests[-1]
        monkeypatch.setattr("modeling_esvit.storage.url_secrets._secrets", {})
        message = refuse(server.url("a-0.tar"), tmp_path / "other")
        assert "403" in message and "the signature of the URL may have expired" in message
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 10
    for word in (b"pa55", b"hush"):
        assert [str(file) for file in files if word in file.read_bytes() or word.decode() in str(file)] == []
    said = capfd.readouterr()
    assert not any(word in said.out + said.err for word in ("pa55", "hush"))


def test_a_server_that_asks_for_a_day_is_not_waited_for(tmp_path, monkeypatch, caplog):
    waits = []
    monkeypatch.setattr("training.data.shard_files.time.sleep", waits.append)
    answers = iter([StatusError(503, "Busy", {"Retry-After": "86400"}), None])

    def ask():
        if error := next(answers):
            raise error

    retry("a.tar", 300, ask)
    assert waits == [60.0] and "trying again in 60.0 s" in caplog.text


@pytest.mark.parametrize(
    "url, said",
    [
        ("s3://bucket/a-{0..3}.tar", "pip install s3fs"),
        ("gs://bucket/a.tar", "pip install gcsfs"),
        ("az://bucket/*.parquet", "pip install adlfs"),
        ("abc://bucket/a.tar", "nothing is known that reads such URLs"),
    ],
)
def test_a_store_whose_package_is_missing(url, said, tmp_path, monkeypatch):
    for name in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    message = refuse(url, tmp_path / "run", "--dry_run")
    assert said in message and message.count("\n") < 3


@pytest.fixture
def authority(tmp_path) -> tuple[Path, Path]:
    """Returns the files of a certificate of 127.0.0.1 that signs itself, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


@pytest.mark.slow
@pytest.mark.parametrize("variable", CERTIFICATES)
def test_a_certificate_of_a_company_is_trusted_by_every_reader(variable, authority, tmp_path, monkeypatch):
    """huggingface_hub issues 1271 and 2222, xberg issue 1146: one library asks for it as the other does not."""
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))
    (tmp_path / "shards" / "0.png").write_bytes(picture(0))
    for name in CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    http_client.open_client.cache_clear()
    with serve(tmp_path / "shards", authority) as server:
        message = refuse(server.url("a.tar"), tmp_path / "run")
        assert "signed by nobody who is trusted here" in message and "SSL_CERT_FILE names the file" in message
        with pytest.raises(UnreadableImageError, match="CERTIFICATE_VERIFY_FAILED"):
            decode(Record(server.url("0.png"), None, None))
        monkeypatch.setenv(variable, str(authority[0]))
        http_client.open_client.cache_clear()
        assert count_images(pretrain(server.url("a.tar"), tmp_path / "run")) == 2
        assert decode(Record(server.url("0.png"), None, None)).size == (12, 12)
    http_client.open_client.cache_clear()


def test_brackets_may_be_part_of_a_name(tmp_path):
    """generalui/s3p issue 53: a name that exists is no pattern, here and in a store."""
    path = tmp_path / "photographs [2024].tar"
    content = Path(write_members(path, number({"0.jpg": 0, "1.jpg": 1}))).read_bytes()
    fsspec.filesystem("memory").pipe(f"/named/{path.name}", content)
    for index, data in enumerate((path, f"memory://named/{path.name}")):
        arguments = tiny(tmp_path, tmp_path / f"run{index}", TINY)
        arguments[1] = str(data)
        main(arguments)
        assert count_images(tmp_path / f"run{index}") == 2


def test_a_folder_of_a_store_is_named_by_a_pattern(tmp_path):
    for data in ("s3://bucket/folder/", "https://host/photographs"):
        message = refuse(data, tmp_path / "run")
        assert f"{data!r} is no shard" in message and f"'{data.rstrip('/')}/*.tar'" in message


@pytest.mark.parametrize(
    "given, name",
    [
        ("file:///data/photographs", "/data/photographs"),
        ("https://huggingface.co/datasets/ada/photographs", "ada/photographs"),
        ("https://huggingface.co/datasets/ada/photographs/tree/main", "ada/photographs"),
        ("hf://datasets/ada/photographs@main", "ada/photographs"),
    ],
)
def test_a_url_of_what_has_a_name(given, name, tmp_path, monkeypatch):
    """As it is copied from a browser, or from programs that take URLs alone."""
    assert refuse(given, tmp_path / "out") == f"error: {given!r} is read by its name: give {name}"
    with pytest.raises(SystemExit, match=f"{given!r} is read by its name: give {name}$"):
        embed([str(write_model(tmp_path / "model")), given, "--output", str(tmp_path / "features.npz")])


def test_a_command_is_not_run(tmp_path):
    """WebDataset's own examples name shards so."""
    message = refuse("pipe:curl -s https://host/a-{0..3}.tar", tmp_path / "out")
    assert "none is run here: give the file or URL that it reads" in message


def test_what_a_server_may_do(tmp_path):
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))
    with serve(tmp_path / "shards") as server:
        server.manners = {"redirect"}
        assert count_images(pretrain(server.url("a.tar"), tmp_path / "run")) == 2
        for manner, said in {"whole": "it knows no HTTP ranges", "endless": "sends more than"}.items():
            server.manners = {manner}
            message = refuse(server.url("a.tar"), tmp_path / "other")
            assert said in message and "a.tar" in message


def test_a_store_is_asked_for_its_version_at_every_read(tmp_path):
    """The store is fsspec's own in memory, which has neither commits nor conditions."""
    store = fsspec.filesystem("memory")
    content = Path(write_members(tmp_path / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))).read_bytes()
    store.pipe("/wild/a.tar", content)
    assert count_images(pretrain("memory://wild/*.tar", tmp_path / "run")) == 2
    file = ShardFile.locate("memory://wild/a.tar", 0)
    assert file.read_range(3, 9) == content[3:9]
    store.pipe("/wild/a.tar", content)
    with pytest.raises(ChangedShardError, match="memory://wild/a.tar was changed since it was opened"):
        file.read_range(3, 9)
