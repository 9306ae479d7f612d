# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Streams the Hub's ImageNets with the unmodified clients through faults of the Hub."""

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.shard_server import write_tar
from tests.hub.client import GRANTED, client, small_hub
from tests.hub.loopback_hub import Fault
from tests.hub.protocol import HubFile


STREAM = """
    import itertools
    from training.data.shard_stream import StreamOptions
    from training.data.sources import open_source

    source = open_source({name!r}, streaming=True, stream=StreamOptions(retry_seconds=60))
    records = list(itertools.islice(source.rank_items(0, 0, 0, len(source), 0), len(source)))
    result = [len(source.shards), [record.label for record in records], len(set(map(str, records)))]
"""
FAULTS = {
    "none": [],
    "reset": [{"cut": "reset", "after": 700, "times": 3}],
    "drop": [{"cut": "drop", "after": 300, "times": 2}],
    "short": [{"cut": "short", "after": 300, "times": 2}],
    "429": [{"status": 429, "retry_after": 1, "times": 2}],
    "503": [{"status": 503, "seconds": 3.0, "times": None}],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, files, number", [("ILSVRC/imagenet-1k", "*.parquet", 20), ("timm/imagenet-1k-wds", "*.tar", 17)]
)
def test_faults_of_the_hub_change_nothing(name, files, number, tmp_path):
    results = {}
    for fault, settings in FAULTS.items():
        with small_hub() as hub:
            hub.inject(*[Fault(path=files, **each) for each in settings])
            (home := tmp_path / fault).mkdir()
            results[fault] = client(
                hub, home, STREAM.format(name=name), token=GRANTED, PYTHONPATH=f"{ROOT / 'training'}:{ROOT}"
            )
            assert all(each.hits for each in hub.faults)
    assert all(result == results["none"] for result in results.values())
    assert len(results["none"][1]) == results["none"][2] == number


PINNED = """
    from training.data.sources import open_source
    from training.data.shard_names import commit_of

    def commit(data, **options):
        return commit_of([shard.file.url for shard in open_source(data, **options).shards])

    named = "hf://datasets/timm/imagenet-1k-wds/imagenet1k-train-{0000..0001}.tar"
    found = commit(named)
    globbed = commit("hf://datasets/timm/imagenet-1k-wds@main/imagenet1k-train-*.tar")
    whole = commit("timm/imagenet-1k-wds", streaming=True)
    again = [commit(named, revision=found), commit("timm/imagenet-1k-wds", streaming=True, revision=found)]
    result = [found, globbed, whole, *again]
"""


@pytest.mark.slow
def test_shards_of_the_hub_are_those_of_one_commit(tmp_path):
    with small_hub() as hub:
        commits = client(hub, tmp_path, PINNED, token=GRANTED, PYTHONPATH=f"{ROOT / 'training'}:{ROOT}")
    assert len(commits) == 5 and len(set(commits)) == 1 and len(commits[0]) == 40


BUCKET = """
    from training.data.shard_files import ChangedShardError, ShardFile
    from training.data.sources import open_source

    source = open_source("hf://buckets/o/b/data/*.tar")
    labels = [record.label for record in source.rows(0, len(source))]
    [file] = [shard.file for shard in source.shards]
    other = ShardFile(file.url, file.size, 0, "another hash")
    try:
        other.read_range(0, 9)
        refused = "no"
    except ChangedShardError as error:
        refused = str(error)
    try:
        open_source("hf://buckets/o/b/data/*.tar", revision="main")
    except ValueError as error:
        refused += str(error)
    try:
        open_source("hf://buckets/o/none/a.tar")
    except OSError as error:
        refused += str(error)
    result = [file.url, file.version, labels, refused]
"""


@pytest.mark.slow
def test_a_bucket_has_no_commits_but_hashes(tmp_path):
    """A bucket was a traceback: its files are not pinned, so the Hub is asked for their hashes at every read."""
    [path] = write_tar(tmp_path, [3])
    file = HubFile(Path(path).read_bytes(), lfs=True)
    with small_hub() as hub:
        hub.hub.buckets["o/b"] = {"data/a.tar": file}
        url, version, labels, refused = client(hub, tmp_path, BUCKET, PYTHONPATH=f"{ROOT}")
    assert (url, version, labels) == ("hf://buckets/o/b/data/a.tar", file.sha256, [0, 1, 2])
    assert "a.tar was changed since it was opened" in refused and "has no revisions" in refused
    assert "hf://buckets/o/none/a.tar: " in refused
