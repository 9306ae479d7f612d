# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds and loads data sets of rows: parquet files, those of `Dataset.save_to_disk`, and those of the Hub.

load_rows("shards/", split="train")                # in place
find_split_shards("org/name", "train", None, None)       # to be streamed
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, name_datasets_errors
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.images.hub import require_data_hub
from modeling_esvit.images.names import has_ending
from modeling_esvit.images.places import name_instead
from modeling_esvit.images.row_folders import (
    RowFolder,
    is_saved_to_disk,
    list_split_files,
    load_parquet,
    load_saved_split,
)
from modeling_esvit.images.rows import read_file_features
from modeling_esvit.images.shards import choose_shards
from modeling_esvit.storage.paths import expand_home
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
    read = cache(read_file_features)  # once for the check and the loading
    if is_saved_to_disk(path):
        return load_saved_split(path, split)
    if os.path.isdir(path):
        with name_datasets_errors(data):
            folder = RowFolder(path, config_name, read)
            files = [file for file in folder.files.get(chosen, []) if has_ending(file, ".parquet")]
            check_classes(files, label_column, read)
            return folder.load(chosen, left_out)
    if names_shards(data):
        _refuse_configuration(data, config_name)
        files = find_shards(data, revision, left_out)
        check_classes((file for file in files if "://" not in file), label_column, read)
        with name_datasets_errors(data):
            return load_parquet(files, chosen, read)
    _require_name(data)
    require_data_hub(data, revision)
    with name_datasets_errors(data):
        return datasets.load_dataset(data, name=config_name, revision=revision, split=chosen)


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
    if os.path.isdir(path):
        with name_datasets_errors(data):
            folder = RowFolder(path, config_name)
        builder, files = folder.builder, folder.files
        left_out.update(folder.count_beside())
    else:
        _require_name(data)
        require_data_hub(data, revision)
        with name_datasets_errors(data):
            builder = datasets.load_dataset_builder(data, name=config_name, revision=revision)
        files = list_split_files(builder)
    if chosen not in files:
        raise DataOptionError(f"{data!r} has no files of a split {chosen!r}; it has {[*files]}.")
    return choose_shards(files[chosen], left_out), builder.info.features


def _require_name(data: str) -> None:
    """Checks that data may be loaded: they exist, or are named as shards or a data set of the Hub are.

    Raises:
        DataNotFoundError: They are not.
    """
    if instead := name_instead(data):
        raise DataNotFoundError(f"{data!r} is read by its name: give {instead}")
    if "://" in data and not has_ending(data, ".parquet"):
        raise DataNotFoundError(
            f"{data!r} is no shard. Of a server or a store, parquet and tar files are read, a folder of them by a "
            f"pattern: '{data.rstrip('/')}/*.tar' or '{data.rstrip('/')}/*.parquet'."
        )
    if not (os.path.exists(expand_home(data)) or is_hub_name(data) or has_ending(data, ".parquet")):
        raise DataNotFoundError(
            f"{data!r} does not exist: it is neither a folder of images or zip files nor a folder or glob of .parquet "
            f"or .tar files nor the 'namespace/name' of a data set on the Hub."
        )


def _refuse_configuration(data: str, config_name: str | None) -> None:
    if config_name is not None:
        raise DataOptionError(
            f"config_name {config_name!r} does not apply to {data!r}, which names files: leave it out."
        )
