# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks the Hub once for a model or a data set before it is loaded, so that a missing network is told in seconds.

transformers, datasets and huggingface_hub ask for several files, and for each of them again and again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import httpx

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.run_folders import check_whole, find_model


SECONDS = 10.0  # to wait for an answer
FILES = "a folder or files of images"  # which may be named instead


class NoHubError(EsViTError, OSError):
    """Raised when a model or a data set is on the Hub, if anywhere, and the Hub cannot be reached."""


def find_reachable_model(name: str, revision: str | None = None) -> str:
    """Returns where the model of a name lies: its folder, that within the folder of a run, or its name on the Hub.

    Raises:
        DamagedModelError: it is one of ours, and not as it was written.
        NoHubError: the Hub would have to be asked, and does not answer.
    """
    found = find_model(name)
    if os.path.isdir(found):
        check_whole(Path(found))
    require_hub(found, revision=revision)
    return found


def require_hub(name: str, file: str = "config.json", revision: str | None = None) -> None:
    """Checks that the Hub answers, unless the model is a folder, or has been downloaded. Offline mode does not ask.

    What the Hub answers is left to those who load the model.

    Raises:
        NoHubError: it does not.
    """
    if os.path.exists(name) or constants.HF_HUB_OFFLINE:
        return
    with report_no_hub(name, "a model folder"), suppress(HfHubHTTPError, HFValidationError):
        if not isinstance(try_to_load_from_cache(name, file, revision=revision), str):
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=SECONDS)


def require_data_hub(name: str, revision: str | None = None) -> None:
    """Checks that the Hub answers, unless the data are here, or `datasets` has made them before.

    Offline mode does not ask. What the Hub answers is left to `datasets`, which looks for the card first, as this does.

    Raises:
        NoHubError: it does not.
    """
    import datasets

    kept = Path(datasets.config.HF_DATASETS_CACHE, name.replace("/", "___"))
    if os.path.exists(name) or kept.is_dir() or constants.HF_HUB_OFFLINE:
        return
    with report_no_hub(name, FILES), suppress(HfHubHTTPError, HFValidationError):
        get_hf_file_metadata(hf_hub_url(name, "README.md", repo_type="dataset", revision=revision), timeout=SECONDS)


@contextmanager
def report_no_hub(name: str, instead: str) -> Iterator[None]:
    """Turns the failure to reach the Hub inside into an error with the name that was looked for, and what to name
    instead.

    Raises:
        NoHubError: the Hub cannot be reached.
    """
    try:
        yield
    except HfHubHTTPError:  # an answer
        raise
    except httpx.HTTPError as error:
        raise NoHubError(
            f"There is no file or folder {name!r} here, it was not downloaded before, and the Hub, "
            f"{constants.ENDPOINT}, cannot be reached: {error}. Check the name and the network, or name {instead}."
        ) from error
