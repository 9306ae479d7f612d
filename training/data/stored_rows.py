# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds and loads data sets of rows: parquet files, those of `Dataset.save_to_disk`, and those of the Hub.

load_rows("shards/", split="train")                # in place
find_split_shards("org/name", "train", None, None)       # to be streamed
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.images.row_folders import (
    RowFolder,
    drop_links,
    is_saved_to_disk,
    list_split_files,
    load_parquet,
    load_saved_split,
)
from modeling_esvit.storage.paths import expand_home
from training.data.columns import DataNotFoundError, DataOptionError
from training.data.shard_formats import check_classes
from training.data.shard_names import find_shards, names_shards
from training.options.hub_names import is_hub_name


if TYPE_CHECKING:
    import datasets


def load_rows(
    data: str,
    *,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    label_column: str | None = None,
    left_out: LeftOut | None = None,
) -> "datasets.Dataset":
    """Loads the split of the data set that `data` names: saved to disk, parquet files (also hf://), or on the Hub.

    `left_out` counts what is not read of it.

    Raises:
        DataNotFoundError, DataOptionError: see their descriptions.
    """
    import datasets

    path, chosen = expand_home(data), split or "train"
    left_out = LeftOut() if left_out is None else left_out
    if is_saved_to_disk(path):
        return load_saved_split(path, split)
    if path.is_dir():
        folder = _load_by_name(data, lambda: RowFolder(path, config_name))
        check_classes((file for file in folder.files.get(chosen, []) if file.endswith(".parquet")), label_column)
        return _load_by_name(data, lambda: folder.load(chosen, left_out))
    if names_shards(data):
        _refuse_configuration(data, config_name)
        files = find_shards(data, revision, left_out)
        check_classes((file for file in files if "://" not in file), label_column)
        return _load_by_name(data, lambda: load_parquet(files, chosen))
    arguments = {"name": config_name, "revision": revision, "split": chosen}
    return _load_by_name(data, lambda: datasets.load_dataset(data, **arguments))


def find_split_shards(
    data: str, split: str | None, config_name: str | None, revision: str | None, left_out: LeftOut | None = None
) -> tuple[list[str], Any]:
    """Returns the shards of a split, by path or URL, and the features of the data set if it declares them.

    `left_out` counts what is not read of it.
    """
    if names_shards(data):
        if split not in (None, "train"):
            raise DataOptionError(
                f"split {split!r} does not apply to {data!r}, which names all files of the data: leave it out."
            )
        _refuse_configuration(data, config_name)
        return find_shards(data, revision, left_out), None
    import datasets

    path, chosen = expand_home(data), split or "train"
    left_out = LeftOut() if left_out is None else left_out
    if path.is_dir():
        folder = _load_by_name(data, lambda: RowFolder(path, config_name))
        builder, files = folder.builder, folder.files
        left_out.update(folder.count_beside())
    else:
        arguments = {"name": config_name, "revision": revision}
        builder = _load_by_name(data, lambda: datasets.load_dataset_builder(data, **arguments))
        files = list_split_files(builder)
    if chosen not in files:
        raise DataOptionError(f"{data!r} has no files of a split {chosen!r}; it has {[*files]}.")
    return drop_links(files[chosen], left_out), builder.info.features


def _load_by_name(data: str, load: Callable[[], Any]) -> Any:
    """Calls `load` for an existing path or the name of a data set, and turns errors of `datasets` into ours."""
    if "://" in data and not data.endswith(".parquet"):
        raise DataNotFoundError(
            f"{data!r} is no shard. Of a server or a store, parquet and tar files are read, a folder of them by a "
            f"pattern: '{data.rstrip('/')}/*.tar' or '{data.rstrip('/')}/*.parquet'."
        )
    if not (os.path.exists(os.path.expanduser(data)) or is_hub_name(data) or data.endswith(".parquet")):
        raise DataNotFoundError(
            f"{data!r} does not exist: it is neither a folder of images nor a folder or glob of .parquet or .tar files "
            f"nor the 'namespace/name' of a data set on the Hub."
        )
    import datasets

    try:
        return load()
    except EsViTError:  # its message is complete
        raise
    except (FileNotFoundError, ConnectionError) as error:
        raise DataNotFoundError(
            f"{data!r} is no existing folder, and cannot be loaded as a data set of the Hub: {error}"
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataOptionError(f"{data!r} cannot be read: {error.__cause__ or error}") from error
    except (ValueError, RuntimeError) as error:  # an unknown split or configuration, or a data set that is a script
        raise DataOptionError(f"{data!r}: {error}") from error


def _refuse_configuration(data: str, config_name: str | None) -> None:
    if config_name is not None:
        raise DataOptionError(
            f"config_name {config_name!r} does not apply to {data!r}, which names files: leave it out."
        )
