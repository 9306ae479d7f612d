# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads data sets of the Hub in place by the unmodified clients, one of which has a card that leads elsewhere."""

import io
from pathlib import Path

import datasets
import pytest

from tests.helpers.shard_server import picture
from tests.hub.client import client
from tests.hub.loopback_hub import LoopbackHub
from tests.hub.protocol import Repository


CARD = "---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"
OPEN = """
    from modeling_esvit.embed.inputs import find_images
    from modeling_esvit.errors import EsViTError
    from training.data.sources import open_source

    result = []
    for data in {data}:
        for open_it in (open_source, lambda name: open_source(name, streaming=True), find_images):
            try:
                result.append(len(open_it(data)))
            except EsViTError as error:
                result.append(str(error))
"""


@pytest.mark.slow
def test_a_card_of_the_hub_leads_nowhere_else(tmp_path):
    content = io.BytesIO()
    images = [{"bytes": picture(number), "path": None} for number in range(3)]
    datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()})).to_parquet(content)
    private = Path(tmp_path, "private.parquet")
    private.write_bytes(content.getvalue())
    named = {"ada/own": "data/*.parquet", "ada/strange": str(private)}
    repositories = [
        Repository(name, {"data/a.parquet": content.getvalue(), "README.md": CARD.format(files=files).encode()})
        for name, files in named.items()
    ]
    (home := tmp_path / "home").mkdir()
    with LoopbackHub(repositories) as hub:
        found = client(hub, home, OPEN.format(data=[*named]))
    assert found[:3] == [3, 3, 3]
    assert all("Data files don't belong to ada/strange." in each for each in found[3:])  # as `datasets` says it
