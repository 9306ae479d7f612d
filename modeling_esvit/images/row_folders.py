# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds and loads data sets of rows that lie in folders and files: parquet, zip, those of `Dataset.save_to_disk`.

No file that might belong to the data is left out without a word: it is refused, or counted by kind.
"""

import glob
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modeling_esvit.images.cached_rows import load_anew_if_changed
from modeling_esvit.images.cards import Configurations, check_configurations, list_configurations, names_files
from modeling_esvit.images.data_errors import DataOptionError, EmptySourceError, name_datasets_errors
from modeling_esvit.images.folders import (
    BESIDE_ROWS,
    BESIDE_SHARDS,
    FoundImages,
    LeftOut,
    has_images,
    walk,
)
from modeling_esvit.images.names import has_ending, show_name
from modeling_esvit.images.places import Access, is_inside
from modeling_esvit.images.rows import (
    ReadFeatures,
    describe_parquet,
    find_access,
    find_image_columns,
    read_file_features,
)
from modeling_esvit.images.shards import SHARDS, choose_shards, list_shards
from modeling_esvit.images.zips import are_photographs, check_tables, count_beside_tables, load_zips


PACKAGED = {".parquet": "parquet", ".tar": "webdataset", ".zip": "imagefolder"}  # what `datasets` reads them with
CARDS = ("README.md", ".gitattributes", "dataset_infos.json")  # describe the data, and hold none
# Names of splits that `datasets` knows in lower case.
CAPITALS = [word for each in ("train", "test", "val", "valid", "validation") for word in (each.title(), each.upper())]
CAPITAL_SPLIT = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(CAPITALS)})(?![A-Za-z])")
UNLIKE_SPLITS = "Couldn't infer the same data file format for all splits"  # what `datasets` says
# Rows that `datasets` converts at a time. It would else take the length of the first row group, even if that is 0.
BATCH = 100


class RowFolder:
    """Presents the files of a folder that `datasets` makes rows of.

    Raises:
        DataOptionError: some of them belong to no split; or its path has wildcards, and a card names its files; or a
            card names files elsewhere, or is damaged; or `datasets` cannot open a path.
        DamagedZipError: a zip file cannot be read.
        OSError, ValueError: of `datasets`, which cannot read the folder.

    Attributes:
        folders: what `walk` finds; `unlisted` is what it leaves out.
        row_files: those that should all be rows.
        configurations: those that the card describes.
        files: those of each split.
        named: what `datasets` is told of them.
        read: returns the columns of a parquet file.
    """

    def __init__(self, path: Path, config_name: str | None = None, read: ReadFeatures = read_file_features) -> None:
        self.path, self.config_name, self.read = path, config_name, read
        self.unlisted = LeftOut()
        self.folders = [*walk(str(path), self.unlisted)]
        self.row_files, self.configurations = list_row_files(path, self.folders), list_configurations(path)
        refuse_chains(str(path.resolve()), *map(str, self.row_files))
        if all(has_ending(file, ".zip") for file in self.row_files):
            for file in self.row_files:
                check_tables(str(file))
        check_configurations(path, self.configurations)
        self.named = name_files(path, self.configurations)
        self.kind = self._find_kind()
        self.builder = self._make_builder()
        self.files = self._list_files()
        is_described = names_files(self.configurations)
        refuse_left_over(path, [] if is_described else self.row_files, self.files)
        refuse_capital_splits(path, {} if is_described else self.files)

    def load(self, split: str, left_out: LeftOut) -> Any:
        """Loads a split, and counts what is left out of it.

        Raises:
            DataOptionError: zip files have no such split.
            EmptySourceError: it is zip files without an image.
            OSError, ValueError: of `datasets`, which has no such split or cannot read it.
        """
        counts = {each: LeftOut() for each in self.files}
        kept = {each: choose_shards(files, counts[each]) for each, files in self.files.items()}
        left_out.update(counts.get(split, LeftOut()))
        left_out.update(self.count_beside())
        if split in kept and are_photographs(kept[split]):
            return self._load_zips(kept[split], left_out)
        if split not in kept and all(map(are_photographs, kept.values())):
            raise DataOptionError(
                f"{str(self.path)!r} has no split {split!r}; it has {[*kept]}. A zip file is of the split that its "
                f"name or its folder says, as {split}.zip: unpack one that holds several."
            )
        rows = self._load_rows(kept, split)
        left_out.update(count_beside_tables(kept[split], rows))
        return rows

    def count_beside(self) -> LeftOut:
        """Counts by kind what lies in the folder beside the files of all splits.

        Where a card says which shards the data set has, no others are counted.
        """
        found, has_all_shards = FoundImages(left_out=LeftOut(self.unlisted)), names_files(self.configurations)
        used = {*map(os.path.realpath, itertools.chain.from_iterable(self.files.values()))}
        for folder, names in self.folders:
            for name in names:
                is_shard = has_ending(name, PACKAGED)
                is_used = is_shard and (has_all_shards or os.path.realpath(self.path / folder / name) in used)
                if not is_used and name not in CARDS:
                    found.add(folder, name)
        beside = {BESIDE_ROWS: len(found.paths), BESIDE_SHARDS: found.left_out.pop(".zip", 0)}
        found.left_out.update({kind: number for kind, number in beside.items() if number})
        return found.left_out

    def _find_kind(self) -> str | None:
        """Returns the ending of files of which `datasets` must be told how they are read: it knows no capitals, and few
        formats of images in zip files.
        """
        endings, kinds = [file.suffix for file in self.row_files], {file.suffix.lower() for file in self.row_files}
        if self.config_name is not None or self.configurations or len(kinds) != 1 or not kinds.issubset(PACKAGED):
            return None
        is_told = not kinds.issuperset(endings) or are_photographs([*map(str, self.row_files)])
        return kinds.pop() if is_told else None

    def _list_files(self) -> dict[str, list[str]]:
        """Returns the files of each split. `datasets` takes `a.parquet.bak` for one of parquet, too."""
        found = list_split_files(self.builder)
        if names_files(self.configurations) or (self.kind is None and self.builder.name != "parquet"):
            return found
        own = {split: [file for file in files if has_ending(file, PACKAGED)] for split, files in found.items()}
        return {split: files for split, files in own.items() if files}

    def _make_builder(self) -> Any:
        """Returns what `datasets` makes rows with. Of zip files it finds the splits."""
        import datasets

        place = str(self.path.resolve())
        if self.kind is not None:
            return datasets.load_dataset_builder(PACKAGED[self.kind], data_dir=place, **self.named)
        try:
            return datasets.load_dataset_builder(place, name=self.config_name, **self.named)
        except ValueError as error:
            if UNLIKE_SPLITS not in str(error):
                raise
            raise DataOptionError(
                f"{str(self.path)!r} has files of one kind in one split, and of another kind in another, which are not "
                "read together: name those of a split, by a glob, and unpack zip files."
            ) from error

    def _load_rows(self, kept: dict[str, list[str]], split: str) -> Any:
        import datasets

        arguments: dict[str, Any] = {"batch_size": BATCH} if hasattr(self.builder.config, "batch_size") else {}
        if self.kind is not None or self.named or kept != list_split_files(self.builder):
            arguments["data_files"] = {each: escape_files(files) for each, files in kept.items()}
        if self.builder.name == "parquet" and not self.builder.info.features:  # which a card declares
            arguments |= describe_parquet(itertools.chain.from_iterable(kept.values()), self.read)
        arguments |= {"name": self.config_name, "split": split}
        place = str(self.path.resolve()) if self.kind is None else PACKAGED[self.kind]
        used = itertools.chain.from_iterable(kept.values())
        return load_anew_if_changed(partial(datasets.load_dataset, place, **arguments), used)

    def _load_zips(self, files: list[str], left_out: LeftOut) -> Any:
        rows = load_zips(files, left_out)
        if not len(rows):
            others = f"only {left_out.describe()}" if left_out else "nor another file"
            advice = " Unpack the parquet files, which are not read there." if ".parquet" in left_out else ""
            raise EmptySourceError(f"the zip files of {str(self.path)!r} hold no image, {others}.{advice}")
        return rows


def list_split_files(builder: Any) -> dict[str, list[str]]:
    """Returns the files of each split that `datasets` finds."""
    return {str(split): [*files] for split, files in (builder.config.data_files or {}).items()}


def name_files(path: Path, configurations: Configurations) -> dict[str, Any]:
    """Returns what `datasets` must be told of a folder whose own path it would take for a pattern: that of each split.

    Raises:
        DataOptionError: a card says more of its files, which `datasets` cannot be told.
    """
    from datasets.data_files import get_data_patterns

    place = str(path.resolve())
    if not glob.has_magic(place):
        return {}
    if configurations:
        raise DataOptionError(
            f"{place!r} has wildcards in its name, where `datasets` does not find the files of README.md: rename the "
            "folder, or name the files to read, by a glob."
        )
    folder = glob.escape(place)
    patterns = get_data_patterns(folder)
    return {"data_files": {split: [os.path.join(folder, own) for own in each] for split, each in patterns.items()}}


def load_parquet(files: Sequence[str], split: str = "train", read: ReadFeatures = read_file_features) -> Any:
    """Loads parquet files, by path or URL, as one split; `read` returns the columns of one.

    Raises:
        DataOptionError: `datasets` cannot open a path.
        OSError, ValueError: of `datasets`, which cannot read them.
    """
    import datasets

    refuse_chains(*(os.path.abspath(file) for file in files if "://" not in file))
    described = describe_parquet(files, read)
    described |= {"data_files": escape_files(files), "split": split, "batch_size": BATCH}
    return load_anew_if_changed(partial(datasets.load_dataset, "parquet", **described), files)


def refuse_chains(*paths: str) -> None:
    """Refuses paths that `datasets` takes for a chain of archives, as it takes `zip://a.jpg::photographs.zip`.

    Raises:
        DataOptionError: one is such a path.
    """
    found = next((path for path in paths if "::" in path), None)
    if found is not None:
        raise DataOptionError(
            f"{found!r} has '::' in its path, where `datasets` expects a member of an archive: rename the file or "
            "folder of that name."
        )


def escape_files(files: Iterable[str]) -> list[str]:
    """Returns files as the patterns of `datasets` that match them alone: brackets may be part of a name."""
    return [file if "://" in file else glob.escape(os.path.abspath(file)) for file in files]


def list_row_files(path: Path, folders: Iterable[tuple[str, list[str]]] | None = None) -> list[Path]:
    """Returns the files that should all be rows: the shards of a folder, or its zip files, or those deeper in it.

    `folders` is what `walk` finds there, if that is known.
    """
    files = list_shards(path) or list_shards(path, (".zip",))
    if files or not os.path.isdir(path):
        return files
    folders = walk(str(path), LeftOut()) if folders is None else folders
    deeper = [path / folder / name for folder, names in folders for name in sorted(names)]
    return [file for file in deeper if has_ending(file, (".parquet", ".zip")) and not file.name.startswith(".")]


def refuse_left_over(path: Path, found: Sequence[Path], files: Mapping[str, Sequence[str]]) -> None:
    """Refuses a folder in which `datasets` finds no split for some of the files that were found.

    Raises:
        DataOptionError: some belong to no split; or a split has zip files beside others.
    """
    used = {*map(os.path.realpath, itertools.chain.from_iterable(files.values()))}
    left = sorted({str(file.resolve()) for file in found} - used)
    if left:
        raise DataOptionError(
            f"{str(path)!r} has {len(found)} shards, of which {len(left)} belong to no split: {', '.join(left[:5])}. "
            f"{_advise_on_left_over([*left, *used])}"
        )
    for split, own in files.items():
        if len({has_ending(file, ".zip") for file in own}) > 1:
            raise DataOptionError(
                f"{str(path)!r} has zip files beside others in the split {split!r}, which are not read as one: unpack "
                "them, or name the files to read, by a glob."
            )


def refuse_capital_splits(path: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Refuses a split that has `Train.parquet` and `Test.parquet`: `datasets` knows the names of splits in lower case.

    Raises:
        DataOptionError: names in capitals tell of several splits in one.
    """
    for split, own in files.items():
        found = dict[str, str]()
        for file in own:
            word = CAPITAL_SPLIT.search(os.path.relpath(file, path.resolve()))
            if word is not None:
                found.setdefault(word[0][:2].lower(), file)
        if len(found) > 1:
            raise DataOptionError(
                f"{str(path)!r} has {' and '.join(sorted(found.values())[:2])} in the split {split!r}: names of splits "
                "are known in lower case. Rename them so, or name the files to read, by a glob."
            )


def _advise_on_left_over(files: Sequence[str]) -> str:
    """Says how files are read. `datasets` takes those of one kind alone, whatever the names of others."""
    kinds = {os.path.splitext(file)[1] for file in files}
    shards = [
        os.path.join(os.path.dirname(file), f"*{os.path.splitext(file)[1]}")
        for file in files
        if has_ending(file, SHARDS)
    ]
    advice = f"Name the files to read, by a glob, as {min(shards)}" if shards else "Unpack them"
    if len(kinds) > 1:
        return f"{' and '.join(sorted(kinds))} files are not read as one. {advice}."
    return f"{advice}, or give them the name of a split, such as train-00000{min(kinds)}."


def is_row_folder(folder: Path, image_column: str | None = None) -> bool:
    """Returns whether a folder is one of rows: it has parquet or zip files, also deeper in it, and no images.

    One with images is, too, if parquet files lie in it, or in its `data` subfolder, and have images, as those of
    metadata or features have not; or if a column of images is named.
    """
    if not has_images(folder):
        return any(has_ending(file, (".parquet", ".zip")) for file in list_row_files(folder))
    files = list_shards(folder, (".parquet",))
    return bool(files) and (image_column is not None or any(map(_holds_images, files)))


def find_folder_access(folder: Path) -> Access:
    """Returns what the rows of a folder may open: files in it, and members of its zip files.

    Relative paths begin beside the first file of rows.
    """
    files = list_row_files(folder)
    zips = [file for file in files if has_ending(file, ".zip")]  # which may be links to other places
    return find_access(*dict.fromkeys(file.parent for file in files), folder, *zips)


def _holds_images(file: Path) -> bool:
    """Returns whether a parquet file has a column of images. One that cannot be read counts: who opens it says so."""
    try:
        return bool(find_image_columns(read_file_features(file)))
    except ValueError:  # of pyarrow, too
        return True


def is_saved_to_disk(path: Path) -> bool:
    """Returns whether `save_to_disk` wrote a folder. Other programs have files of these names, too."""
    is_one = "_data_files" in _read_record(path / "state.json") and (path / "dataset_info.json").is_file()
    return is_one or list_saved_splits(path) is not None


def list_saved_splits(path: Path) -> list[str] | None:
    """Returns the splits that `save_to_disk` wrote into a folder; None if it is not one of several splits."""
    splits = _read_record(path / "dataset_dict.json").get("splits")
    return splits if isinstance(splits, list) else None


def _read_record(file: Path) -> dict[str, Any]:
    """Returns what a JSON file says, if it exists and holds an object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def load_saved_split(path: Path, split: str | None) -> Any:
    """Loads a split that `save_to_disk` wrote, "train" if none is named.

    Raises:
        DataOptionError: there is no such split; or its record is damaged, or names files elsewhere; or `datasets`
            cannot open its path.
        EmptySourceError: it has no rows, which `datasets` writes but cannot read.
    """
    import datasets

    splits = list_saved_splits(path)
    if splits is not None:
        if (split or "train") not in splits:
            raise DataOptionError(f"{str(path)!r} has no split {split or 'train'!r}; it has {splits}.")
        path = path / (split or "train")
    refuse_chains(str(path.resolve()))
    if not _list_saved_files(path):
        raise EmptySourceError(f"the data set {str(path)!r} has no rows.")
    with name_datasets_errors(str(path)):
        return datasets.load_from_disk(str(path))


def _list_saved_files(path: Path) -> list[str]:
    """Returns the files of a split that `save_to_disk` wrote.

    Raises:
        DataOptionError: its record is damaged, or names files elsewhere.
    """
    record = path / "state.json"
    try:
        files = [os.path.normpath(path / each["filename"]) for each in _read_record(record)["_data_files"]]
    except (LookupError, TypeError) as error:
        raise DataOptionError(f"{record} is damaged: it does not name the files of the data set.") from error
    if strange := [file for file in files if not is_inside(file, os.path.normpath(path))]:
        raise DataOptionError(f"{record} names {show_name(strange[0])}, which is no file of the data set.")
    return files
