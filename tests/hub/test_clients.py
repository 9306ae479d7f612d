# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the unmodified clients against the loopback Hub: what they may read, and what faults do to them.

The facts about faults are what training must live with. If one of these tests fails after an update of a library, the
client has changed, perhaps for the better.
"""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.hub.client import GRANTED, OTHER, TOKENS, client, small_hub
from tests.hub.loopback_hub import Fault, LoopbackHub
from tests.hub.protocol import Repository
from tests.hub.repositories import TAR_BOUNDARY, imagenet_1k, imagenet_1k_wds, jpeg, key_of, label_of, shard_lengths


@pytest.fixture
def hub():
    with small_hub() as running:
        yield running


@pytest.fixture(scope="module")
def full_hub():
    """Returns a Hub of both repositories with all their files. Not for faults: tests share it."""
    with LoopbackHub([imagenet_1k(), imagenet_1k_wds()], TOKENS) as running:
        yield running


# -- huggingface_hub ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_repositories_have_the_real_names_and_numbers_of_files(full_hub, tmp_path):
    script = """
        from huggingface_hub import HfApi
        api = HfApi()
        result = [sorted(api.list_repo_files(name, repo_type="dataset"))
                  for name in ("ILSVRC/imagenet-1k", "timm/imagenet-1k-wds")]
    """
    parquet, tars = client(full_hub, tmp_path, script)
    assert parquet == sorted(
        ["README.md"]
        + [f"data/train-{index:05d}-of-00294.parquet" for index in range(294)]
        + [f"data/validation-{index:05d}-of-00014.parquet" for index in range(14)]
        + [f"data/test-{index:05d}-of-00028.parquet" for index in range(28)]
    )
    assert tars == sorted(
        ["README.md"]
        + [f"imagenet1k-train-{index:04d}.tar" for index in range(1024)]
        + [f"imagenet1k-validation-{index:04d}.tar" for index in range(64)]
    )


def test_hub_client_lists_describes_and_downloads(hub, tmp_path):
    hub.hub.page_size = 3  # lists come in several pages
    script = """
        from pathlib import Path
        from huggingface_hub import HfApi, hf_hub_download
        api, name = HfApi(), "timm/imagenet-1k-wds"
        info = api.dataset_info(name, files_metadata=True)
        shard = hf_hub_download(name, "imagenet1k-train-0001.tar", repo_type="dataset")
        card = hf_hub_download(name, "README.md", repo_type="dataset", revision=info.sha)
        result = {
            "files": api.list_repo_files(name, repo_type="dataset"),
            "sizes": {file.rfilename: file.size for file in info.siblings},
            "sha256": info.siblings[1].lfs.sha256,
            "shard": Path(shard).stat().st_size, "snapshot": Path(shard).parent.name, "sha": info.sha,
            "card": Path(card).read_text(), "user": api.whoami()["name"],
            "path_info": [file.path for file in api.get_paths_info(name, ["README.md", "none"], repo_type="dataset")],
            "folder": [entry.path for entry in api.list_repo_tree("ILSVRC/imagenet-1k", "data", repo_type="dataset")],
            "root": [entry.path for entry in api.list_repo_tree("ILSVRC/imagenet-1k", repo_type="dataset")],
        }
    """
    result = client(hub, tmp_path, script, token=OTHER)
    repository = hub.hub.repositories["dataset", "timm/imagenet-1k-wds"]
    commit, files = repository.at("main")
    assert result["files"] == sorted(files) and len(files) == 7
    assert result["sizes"] == {path: len(file.content) for path, file in files.items()}
    assert result["sha256"] == files["imagenet1k-train-0000.tar"].sha256
    assert result["shard"] == len(files["imagenet1k-train-0001.tar"].content)
    assert result["snapshot"] == result["sha"] == commit
    assert result["card"].encode() == files["README.md"].content and result["user"] == "other"
    assert result["path_info"] == ["README.md"] and result["root"] == ["README.md", "data"]
    assert len(result["folder"]) == 7 and result["folder"][0] == "data/train-00000-of-00005.parquet"
    assert not any(entry.authenticated for entry in hub.requests() if entry.host == "cdn")
    assert all(entry.user == "other" for entry in hub.requests() if entry.host == "hub")


GATE = """
    from huggingface_hub import hf_hub_download, HfApi
    from huggingface_hub.errors import GatedRepoError
    result = {"files": len(HfApi().list_repo_files("ILSVRC/imagenet-1k", repo_type="dataset"))}
    try:
        hf_hub_download("ILSVRC/imagenet-1k", "data/train-00000-of-00005.parquet", repo_type="dataset")
        HfApi().auth_check("ILSVRC/imagenet-1k", repo_type="dataset")
    except GatedRepoError as error:
        result |= {"status": error.response.status_code, "message": str(error)}
"""


@pytest.mark.parametrize(
    "token, status, message",
    [
        (None, 401, "You must have access to it and be authenticated to access it"),
        (OTHER, 403, "you are not in the authorized list"),
        (GRANTED, None, ""),
    ],
)
def test_gate_of_hub_client(hub, tmp_path, token, status, message):
    result = client(hub, tmp_path, GATE, token=token)
    assert result["files"] == 8 and result.get("status") == status and message in result.get("message", "")
    assert "secret" not in json.dumps(result) + repr(hub.log)


# -- datasets ----------------------------------------------------------------------------------------------------------

STREAM = """
    import datasets
    def names(name, split, column):
        stream = datasets.load_dataset(name, split=split, streaming=True)
        for column_of_images in [key for key in stream.features if key in ("image", "jpg")]:
            stream = stream.cast_column(column_of_images, datasets.Image(decode=False))
        return [column(row) for row in stream]
    def parquet(row):
        return [row["image"]["path"], row["label"]]
    def tar(row):
        return [row["__key__"], row["cls"]]
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # 5 s at the end of a parquet stream
"""


def samples(split, shards, suffix=""):
    """Returns the name and label of every sample of a split of so many shards."""
    return [[key_of(split, n) + suffix, label_of(split, n)] for n in range(sum(shard_lengths(shards)))]


def test_datasets_streams_both_repositories(hub, tmp_path):
    script = """
    builder = datasets.load_dataset_builder("ILSVRC/imagenet-1k")
    first = next(iter(datasets.load_dataset("ILSVRC/imagenet-1k", split="train", streaming=True)))
    result = {
        "train": names("ILSVRC/imagenet-1k", "train", parquet),
        "validation": names("timm/imagenet-1k-wds", "validation", tar),
        "features": [str(feature) for feature in builder.info.features.values()][0],
        "classes": builder.info.features["label"].names,
        "counted": builder.info.splits["train"].num_examples,
        "first": [first["image"].size, first["image"].getpixel((10, 10)), first["label"]],
    }
    """
    result = client(hub, tmp_path, STREAM, script, token=GRANTED)
    assert result["train"] == samples("train", 5, ".JPEG")
    assert result["validation"] == samples("validation", 2)
    assert result["counted"] == sum(shard_lengths(5)) and len(result["classes"]) == 1000
    picture = Image.open(io.BytesIO(jpeg("train", 0)))
    assert result["first"] == [[64, 48], list(picture.getpixel((10, 10))), 0]
    assert "secret" not in repr(hub.log)


@pytest.mark.parametrize(
    "token, message",
    [(None, "You must be authenticated to access it"), (OTHER, "to ask for access")],
)
def test_gate_of_datasets(hub, tmp_path, token, message):
    script = """
        import datasets
        try:
            result = str(datasets.load_dataset("ILSVRC/imagenet-1k", split="train", streaming=True))
        except datasets.exceptions.DatasetNotFoundError as error:
            result = str(error)
    """
    refused = client(hub, tmp_path, script, token=token)
    assert refused.startswith("Dataset 'ILSVRC/imagenet-1k' is a gated dataset") and message in refused
    assert not [entry for entry in hub.requests() if entry.host == "cdn"]


@pytest.mark.slow
def test_datasets_streams_the_full_repositories(full_hub, tmp_path):
    script = """
    heads = {name: datasets.load_dataset(name, split="train", streaming=True)
             for name in ("ILSVRC/imagenet-1k", "timm/imagenet-1k-wds")}
    result = {
        "shards": [stream.num_shards for stream in heads.values()],
        "parquet": names("ILSVRC/imagenet-1k", "validation", parquet),
        "tar": names("timm/imagenet-1k-wds", "train", tar),
    }
    """
    result = client(full_hub, tmp_path, STREAM, script, token=GRANTED)
    assert result["shards"] == [294, 1024]
    assert result["parquet"] == samples("validation", 14, ".JPEG")
    assert result["tar"] == samples("train", 1024)


# -- what faults do to the clients -------------------------------------------------------------------------------------

PARQUET_NAMES = 'result = names("ILSVRC/imagenet-1k", "train", parquet)'
TAR_NAMES = 'result = names("timm/imagenet-1k-wds", "train", tar)'


@pytest.mark.slow
def test_parquet_survives_faults(hub, tmp_path):
    """A connection dropped or reset, a stall, a rate limit and a server error, one in each shard: nothing is missed."""
    faults = [
        Fault("/dataset/*train-00000*", cut="drop", after=5000),
        Fault("/dataset/*train-00001*", cut="reset", after=5000),
        Fault("/dataset/*train-00002*", cut="stall", after=5000, pause=60),
        Fault("*/resolve/*train-00003*", status=429, retry_after=1),
        Fault("/dataset/*train-00004*", status=503),
    ]
    hub.inject(*faults)
    result = client(hub, tmp_path, STREAM, PARQUET_NAMES, token=GRANTED, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert result == samples("train", 5, ".JPEG")
    assert [fault.hits for fault in faults] == [1] * 5
    limited, repeated = [entry.at for entry in hub.requests("*/resolve/*train-00003*")][:2]
    assert repeated - limited > 2  # Retry-After and one second more


@pytest.mark.slow
def test_short_body_of_parquet_is_an_error(hub, tmp_path):
    hub.inject(Fault("/dataset/*train-00001*", cut="short", after=5000))
    script = """
        import pyarrow
        try:
            result = names("ILSVRC/imagenet-1k", "train", parquet)
        except pyarrow.ArrowInvalid as error:
            result = str(error)
    """
    assert "Parquet magic bytes not found" in client(hub, tmp_path, STREAM, script, token=GRANTED)


def test_tar_survives_single_breaks(hub, tmp_path):
    faults = [
        Fault("/dataset/*train-0001.tar", cut="drop", after=TAR_BOUNDARY),
        Fault("/dataset/*train-0002.tar", cut="reset", after=5000),
    ]
    hub.inject(*faults)
    result = client(hub, tmp_path, STREAM, TAR_NAMES)
    assert result == samples("train", 4) and [fault.hits for fault in faults] == [1, 1]
    continued = hub.requests("/dataset/*train-0001.tar")[-1]
    assert continued.range == f"bytes={TAR_BOUNDARY}-" and continued.status == 206


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults", [[("drop", TAR_BOUNDARY), ("drop", 0)], [("short", TAR_BOUNDARY)]], ids=["reopened too", "short body"]
)
def test_tar_stream_that_ends_between_samples_loses_the_rest_silently(hub, tmp_path, faults):
    """What is read after a stream that broke twice, or after a short body, passes for the end of the archive."""
    injected = [Fault("/dataset/*train-0002.tar", cut=cut, after=after) for cut, after in faults]
    hub.inject(*injected)
    result = client(hub, tmp_path, STREAM, TAR_NAMES)
    lengths, everything = shard_lengths(4), samples("train", 4)
    lost = sum(lengths[:2]) + 3
    assert lengths[2] == 4 and result == everything[:lost] + everything[lost + 1 :]
    assert [fault.hits for fault in injected] == [1] * len(faults)


@pytest.mark.slow
def test_server_errors_for_more_than_23_seconds_end_a_stream(hub, tmp_path):
    """Five retries, after 1, 2, 4, 8 and 8 seconds."""
    fault = Fault("/dataset/*train-0001.tar", status=503, times=None)
    hub.inject(fault)
    script = """
        from huggingface_hub.errors import HfHubHTTPError
        try:
            result = names("timm/imagenet-1k-wds", "train", tar)
        except HfHubHTTPError as error:
            result = error.response.status_code
    """
    assert client(hub, tmp_path, STREAM, script) == 503 and fault.hits == 6


DOWNLOAD = """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import httpx
    try:
        result = hf_hub_download("timm/imagenet-1k-wds", "imagenet1k-train-0000.tar", repo_type="dataset")
    except (OSError, httpx.RequestError) as error:
        result = f"{type(error).__name__}: {error}"
"""


@pytest.mark.parametrize(
    "fault, outcome",
    [
        (Fault("/dataset/*", status=503), "HfHubHTTPError: Server error '503"),
        (Fault("/dataset/*", cut="reset", after=5000), "ReadError"),
        (Fault("/dataset/*", cut="short", after=5000), "OSError: Consistency check failed"),
    ],
    ids=["503", "reset", "short body"],
)
def test_download_gives_up_at_once(hub, tmp_path, fault, outcome):
    hub.inject(fault)
    assert client(hub, tmp_path, DOWNLOAD).startswith(outcome) and fault.hits == 1


def test_download_survives_a_drop(hub, tmp_path):
    hub.inject(Fault("/dataset/*", cut="drop", after=5000))
    path = Path(client(hub, tmp_path, DOWNLOAD))
    files = hub.hub.repositories["dataset", "timm/imagenet-1k-wds"].at("main")[1]
    assert path.read_bytes() == files["imagenet1k-train-0000.tar"].content
    assert [entry.fault for entry in hub.requests("/dataset/*")] == ["drop", None]


# -- uploads -----------------------------------------------------------------------------------------------------------

UPLOAD = """
    import os
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HfHubHTTPError, httpx
    api = HfApi()
    def upload(name, **contents):
        os.makedirs("folder", exist_ok=True)
        for file, content in contents.items():
            with open("folder/" + file.replace("_", "."), "w") as stream:
                stream.write(content)
        return api.upload_folder(repo_id=name, folder_path="folder").oid
"""


def test_upload_makes_a_repository_of_regular_and_lfs_files(hub, tmp_path):
    script = """
        url = api.create_repo("other/model", private=True)
        api.create_repo("other/model", exist_ok=True)
        first = upload("other/model", README_md="---\\nlicense: mit\\n---\\n", model_safetensors="weights")
        second = upload("other/model", README_md="changed")
        unchanged = upload("other/model")
        api.delete_file("README.md", "other/model")
        with open(api.hf_hub_download("other/model", "model.safetensors")) as stream:
            result = [str(url), api.model_info("other/model").private, stream.read(), first, second, unchanged]
    """
    url, private, weights, first, second, unchanged = client(hub, tmp_path, UPLOAD, script, token=OTHER)
    repository = hub.hub.repositories["model", "other/model"]
    assert url == f"{hub.url}/other/model" and private and weights == "weights"
    assert repository.at(first)[1]["README.md"].content.startswith(b"---") and first != second == unchanged
    assert repository.at(second)[1]["README.md"].content == b"changed"
    assert list(repository.at("main")[1]) == ["model.safetensors"] and repository.at("main")[1]["model.safetensors"].lfs
    assert len(hub.requests("/upload/*", "PUT")) == 1


@pytest.mark.parametrize("token, status", [(None, 401), (GRANTED, 403)])
def test_upload_is_refused_to_others(hub, tmp_path, token, status):
    script = """
        try:
            result = str(api.create_repo("other/model"))
        except HfHubHTTPError as error:
            result = error.response.status_code
    """
    assert client(hub, tmp_path, UPLOAD, script, token=token) == status
    assert ("model", "other/model") not in hub.hub.repositories


def test_faults_of_uploads(hub, tmp_path):
    """A PUT that fails once is repeated; a commit that is lost leaves the repository as it was."""
    put = Fault("/upload/*", status=500, method="PUT")
    commit = Fault("*/commit/main", cut="drop", after=None, method="POST", times=None)
    hub.inject(put, commit)
    script = """
        api.create_repo("other/model")
        try:
            result = upload("other/model", model_safetensors="weights")
        except httpx.RequestError as error:
            result = type(error).__name__
    """
    assert client(hub, tmp_path, UPLOAD, script, token=OTHER) == "RemoteProtocolError"
    assert put.hits == 1 and commit.hits == 1 and len(hub.hub.objects) == 1
    assert hub.hub.repositories["model", "other/model"].at("main")[1] == {}


def test_private_repository_exists_for_its_owner_only(hub, tmp_path):
    hub.hub.repositories["model", "other/secret"] = Repository("other/secret", {}, "model", private=True)
    script = """
        from huggingface_hub import HfApi
        result = [HfApi().repo_exists("other/secret", token=token) for token in (False, "GRANTED", "OTHER")]
    """
    assert client(hub, tmp_path, script.replace("GRANTED", GRANTED).replace("OTHER", OTHER)) == [False, False, True]
