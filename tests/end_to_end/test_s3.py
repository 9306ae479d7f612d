# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Streams shards from a server that speaks S3: read, continued and refused as local ones are.

It needs `pip install s3fs "moto[server]"`, which no other test does, and is skipped without them.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.shard_server import write_tar
from tests.helpers.tiny_runs import read_losses, tiny
from training.pretrain import main


pytestmark = pytest.mark.slow
s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
SAME = "--drop_path_rate 0"


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Yields the file system of a bucket `data`, whose server needs an account, and its local copy."""
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    account = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "pa55word", "AWS_DEFAULT_REGION": "us-east-1"}
    host, port = server.get_host_and_port()
    for name, value in {**account, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.makedirs("data", exist_ok=True)
    (tmp_path / "local").mkdir()
    for path in write_tar(tmp_path / "local", [9, 8, 9], size=48):
        store.put(path, f"data/{Path(path).name}")
    yield store
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_read_continued_and_refused_as_a_folder_is(store, tmp_path):
    main(tiny(tmp_path / "local" / "*.tar", tmp_path / "folder", SAME))
    url = "s3://data/*.tar"
    for name, more in (
        ("bucket", "--max_steps 2"),
        ("bucket", ""),
        ("workers", f"--workers 2 --cache {tmp_path}/c"),
    ):
        arguments = tiny(tmp_path, tmp_path / name, f"{SAME} {more}")
        main([arguments[0], url, *arguments[2:]])
    assert read_losses(tmp_path / "bucket") == read_losses(tmp_path / "workers") == read_losses(tmp_path / "folder")
    record = json.loads((tmp_path / "bucket" / "data.json").read_text())
    assert record["data"] == url and record["identity"]["images"] == 26
    store.put(str(tmp_path / "local" / "train-00001.tar"), "data/train-00000.tar")
    arguments = tiny(tmp_path, tmp_path / "bucket", f"{SAME} --epochs 3")
    with pytest.raises(
        SystemExit, match="begun with other data: s3://data/train-00000.tar had 92160 bytes and has 81920"
    ):
        main([arguments[0], url, *arguments[2:]])
    shutil.rmtree(tmp_path / "local")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not [path for path in written if b"pa55word" in path.read_bytes()]


def test_a_missing_account_is_said_with_what_to_do(store, tmp_path, monkeypatch):
    """intake issue 194, COATI issue 9, cloudpathlib issue 271."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    arguments = tiny(tmp_path, tmp_path / "run", "--max_steps 1")
    with pytest.raises(SystemExit, match="NoCredentialsError: .*FSSPEC_S3_ANON=true reads a public bucket"):
        main([arguments[0], "s3://data/*.tar", *arguments[2:]])
