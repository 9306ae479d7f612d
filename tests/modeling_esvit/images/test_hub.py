# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a Hub out of reach is asked once, and is told in words."""

import socket
import threading
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.images.hub import NoHubError, require_data_hub, require_hub
from modeling_esvit.images.models import load_image_model
from training.data.sources import open_source


@pytest.fixture
def refused(monkeypatch, tmp_path) -> Iterator[list[str]]:
    """Lists what a Hub is asked for a model, and closes the connection instead of an answer.

    huggingface_hub may ask for something of its own, once in a process.
    """
    close_session()  # it has the proxies of the test that opened it
    asked: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            line = connection.recv(1000).decode().partition("\r\n")[0]
            if "/org/name/" in line:
                asked.append(line)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    hub = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    template = hub + "/{repo_id}/resolve/{revision}/{filename}"  # made of the first one when the library is imported
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_a_hub_out_of_reach_is_asked_once(refused):
    with pytest.raises(
        NoHubError, match="There is no file or folder 'org/name' here, .* cannot be reached: .*, or name a model"
    ):
        load_image_model("org/name")
    assert refused == ["HEAD /org/name/resolve/main/config.json HTTP/1.1"]


def test_a_hub_out_of_reach_is_asked_once_for_data(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(
        NoHubError, match="There is no file or folder 'org/name' here, .*, or name a folder or files of"
    ):
        find_images("org/name:test")
    for streaming in (False, True):
        with pytest.raises(NoHubError, match="'org/name'"):
            open_source("org/name", streaming=streaming)
    assert refused == ["HEAD /datasets/org/name/resolve/main/README.md HTTP/1.1"] * 3
    (tmp_path / "org___name").mkdir()  # `datasets` has made them before
    require_data_hub("org/name")
    assert len(refused) == 3
    with pytest.raises(NoHubError, match="hf://datasets/org/name/a.parquet"):
        open_source("hf://datasets/org/name/a.parquet", streaming=True)


def test_folders_and_offline_mode_ask_nobody(refused, tmp_path, monkeypatch):
    require_hub(str(tmp_path))
    require_hub("no name on the Hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    require_hub("org/name")
    require_data_hub("org/name")
    assert refused == []
