# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds and loads data sets of rows: parquet files, those of `Dataset.save_to_disk`, and those of the Hub.

load_rows("shards/", split="train")                # in place
find_split_shards("org/name", "train", None, None)       # to be streamed
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_esvit.images.rows import describe_parquet
from training.data.columns import DataNotFoundError, DataOptionError, EmptySourceError
from training.data.shard_formats import check_classes
from training.data.shard_names import COMPRESSED, SHARDS, find_shards, names_shards
from training.options.hub_names import is_hub_name


if TYPE_CHECKING:
    import datasets


# Rows that `datasets` converts at a time. It would else take the length of the first row group, even if that is 0.
BATCH = 100


def load_rows(
    data: str,
    *,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    label_column: str | None = None,
) -> "datasets.Dataset":
    """Loads the split of the data set that `data` names: saved to disk, parquet files (also hf://), or on the Hub.

    Raises:
        DataNotFoundError, DataOptionError: see their descriptions.
    """
    import datasets

    path, listed = Path(data).expanduser(), list[str]()
    if is_saved_to_disk(path):
        return _load_saved_split(path, split)
    if path.is_dir():
        arguments: dict[str, Any] = {"path": str(path.resolve())}
        if list_shards(path):
            builder = _load_by_name(data, lambda: datasets.load_dataset_builder(**arguments, name=config_name))
            files = builder.config.data_files or {}
            _refuse_left_over(path, itertools.chain.from_iterable(files.values()))
            parquets = (file for file in files.get(split or "train", []) if file.endswith(".parquet"))
            check_classes(parquets, label_column)
            arguments |= {"batch_size": BATCH} if hasattr(builder.config, "batch_size") else {}
            is_open = builder.name == "parquet" and not builder.info.features  # which a card declares
            listed += itertools.chain.from_iterable(files.values()) if is_open else ()
    elif names_shards(data):
        _refuse_configuration(data, config_name)
        listed += find_shards(data, revision)
        check_classes((file for file in listed if "://" not in file), label_column)
        arguments = {"path": "parquet", "data_files": listed, "batch_size": BATCH}
    else:
        arguments = {"path": data, "revision": revision}
    arguments |= {"name": config_name, "split": split or "train"}
    return _load_by_name(data, lambda: datasets.load_dataset(**arguments, **describe_parquet(listed)))


def _load_saved_split(path: Path, split: str | None) -> Any:
    """Loads a split that `save_to_disk` wrote.

    Raises:
        DataOptionError: there is no such split.
        EmptySourceError: it has no rows, which `datasets` writes but cannot read.
    """
    import datasets

    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if (split or "train") not in splits:
            raise DataOptionError(f"{str(path)!r} has no split {split or 'train'!r}; it has {splits}.")
        path = path / (split or "train")
    if not json.loads((path / "state.json").read_text(encoding="utf-8"))["_data_files"]:
        raise EmptySourceError(f"the data set {str(path)!r} has no rows.")
    return datasets.load_from_disk(str(path))


def find_split_shards(
    data: str, split: str | None, config_name: str | None, revision: str | None
) -> tuple[list[str], Any]:
    """Returns the shards of a split, by path or URL, and the features of the data set if it declares them."""
    if names_shards(data):
        if split not in (None, "train"):
            raise DataOptionError(
                f"split {split!r} does not apply to {data!r}, which names all files of the data: leave it out."
            )
        _refuse_configuration(data, config_name)
        return find_shards(data, revision), None
    import datasets

    path = Path(data).expanduser()
    arguments = {"path": str(path.resolve()) if path.is_dir() else data, "name": config_name, "revision": revision}
    builder = _load_by_name(data, lambda: datasets.load_dataset_builder(**arguments))
    files = builder.config.data_files or {}
    _refuse_left_over(path, itertools.chain.from_iterable(files.values()))
    if (split or "train") not in files:
        raise DataOptionError(f"{data!r} has no files of a split {split or 'train'!r}; it has {[*map(str, files)]}.")
    return list(files[split or "train"]), builder.info.features


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
    except (FileNotFoundError, ConnectionError) as error:
        raise DataNotFoundError(
            f"{data!r} is no existing folder, and cannot be loaded as a data set of the Hub: {error}"
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataOptionError(f"{data!r} cannot be read: {error.__cause__ or error}") from error
    except (ValueError, RuntimeError) as error:  # an unknown split or configuration, or a data set that is a script
        raise DataOptionError(f"{data!r}: {error}") from error


def list_shards(path: Path) -> list[Path]:
    """Returns the parquet and tar files, compressed ones too, in a folder and in its `data` subfolder."""
    folders = [folder for folder in (path, path / "data") if folder.is_dir()]
    return [
        file for folder in folders for file in sorted(folder.iterdir()) if file.name.endswith((*SHARDS, *COMPRESSED))
    ]


def is_saved_to_disk(path: Path) -> bool:
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _refuse_configuration(data: str, config_name: str | None) -> None:
    if config_name is not None:
        raise DataOptionError(
            f"config_name {config_name!r} does not apply to {data!r}, which names files: leave it out."
        )


def _refuse_left_over(path: Path, used: Iterable[str]) -> None:
    """Refuses a folder in which `datasets` finds no split for some shards. Where a card says which it has, that holds.

    Raises:
        DataOptionError: some shards belong to no split.
    """
    files = [] if (path / "README.md").is_file() else list_shards(path)
    left = sorted({str(file.resolve()) for file in files} - {os.path.realpath(file) for file in used})
    if left:
        raise DataOptionError(
            f"{str(path)!r} has {len(files)} shards, of which {len(left)} belong to no split: {', '.join(left[:5])}. "
            "Name the files to read, by a glob, or give them the name of a split, such as train-00000.parquet."
        )
