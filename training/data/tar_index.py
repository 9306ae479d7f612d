# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists the images of a tar file with their labels, by reading the headers of its members.

Members with a common stem are one sample, wherever they lie: `all/7.jpg`, `all/7.cls`. Every image of a sample counts:

    7.jpg, 7.cls                         one image with its label
    7.left.jpg, 7.right.jpg, 7.cls       two images with the same label
    7.jpg, 7.seg.png                     one image; what lies beside it under a longer extension is counted, not read
    I.1.jpg, I.1.seg.png                 the same, for a name with dots
    ._7.jpg, .ipynb_checkpoints/7.jpg    counted, not read, as in folders
    IMG_1.2.jpg, IMG_1.2.cls             a name with dots: the label is the one that shares most of the name
    7.json, where images have a .json    a sample that lacks its image; other files without an image are counted

Hard and soft links stand for the member that they lead to, also through linked folders; it may be hidden. A file may
hold several archives, one after the other, as `cat a.tar b.tar` writes them; each has samples of its own.
"""

import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.folders import ARCHIVES, HIDDEN_FILES, REPEATED, LeftOut, is_hidden_member
from modeling_esvit.images.formats import ADVICE, list_image_extensions
from modeling_esvit.storage.contents import HEAD, describe_stand_in
from training.data.shard_files import RangeReader, ShardError, ShardFile


# Bytes of a tar file that are read at once. The headers of a remote file are read in steps of the same size; those of a
# local file in small steps, which skip most of what lies between them.
TAR_UNIT, LOCAL_STEP = 8 * 1024**2, 64 * 1024
LABEL = "cls"  # the extension of labels, if none is named
LONGEST_LABEL = 1024  # bytes
UNREAD_LABELS = f"labels of more than {LONGEST_LABEL} bytes, or linked to no member"
SHOWN, LONGEST_SHOWN = 8, 80  # labels in a message, and characters of one
CONTINUED = b"M"  # GNU's type of a member whose beginning is in the volume before
MOST_LINKS = 40  # that are followed one after the other, as Linux does
NESTED = "archives in the archive: unpack them"
INNER = {kind.removeprefix(".") for kind in ARCHIVES}
BESIDE = "beside an image, under its name (--image_column reads such)"
COMPRESSED = {
    b"PK\x03\x04": "unzip",
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


class Sample(NamedTuple):
    """Says where a tar file holds an image, and the text of its label, which is empty if it has none."""

    name: str
    offset: int
    size: int
    label: str


class TarIndex(NamedTuple):
    """Lists the images of a tar file, and what lies in it beside them.

    Attributes:
        samples: In the order of their bytes.
        without_image: For each sample without an image its name and a sentence.
        left_out: How much lies beside these, by kind, see `LeftOut`.
    """

    samples: list[Sample]
    without_image: dict[str, str]
    left_out: LeftOut


class Member(NamedTuple):
    """Says where a member's bytes lie. `content` holds those of a label. A link that leads nowhere has the size -1."""

    name: str
    offset: int
    size: int
    content: bytes | None = None


Members = dict[str, Member]  # by name, or by extension


def index_tar(file: ShardFile, image: str | None, label: str | None) -> TarIndex:
    """Lists the images of a tar file by reading all of its headers.

    `image` and `label` are extensions, in upper or lower case. Without `image`, a sample's images are its members with
    an extension that Pillow decodes or, if there are none, with a longer one that ends so.

    Raises:
        ShardError: it is not a whole, uncompressed tar file; or it has two members of one name, a sparse one, or one
            that goes on from another volume.
        DataOptionError: no sample has such an image, or such a label.
    """
    reader = RangeReader(file, ahead=LOCAL_STEP if file.is_local else TAR_UNIT)
    image, label = (None if name is None else name.lower() for name in (image, label))
    found, labels = TarIndex([], {}, LeftOut()), 0
    lone, kinds = dict[str, Members](), {_find_kind(label or LABEL)}
    for number, members in enumerate(_read_archives(file, reader, label or LABEL, found.left_out)):
        part = f" (archive {number + 1})" if number else ""
        for stem, fields in _group(members).items():
            labels += any(_matches(extension, label or LABEL) for extension in fields)
            if _add_sample(found, fields, image, label or LABEL, part):
                kinds.update(map(_find_kind, fields))
            else:
                lone[f"{stem}{part}"] = fields
    for name, fields in lone.items():
        _add_lone(found, name, fields, image, kinds)
    if found.without_image and not found.samples:
        reason = next(iter(found.without_image.values()))
        raise DataOptionError(
            f"{file.url}: no sample has an image. {reason} image_column names an extension of images."
        )
    if label is not None and found.samples and not labels:
        raise DataOptionError(f"{file.url}: no sample has a label {label!r}, the extension that label_column names.")
    samples = sorted(found.samples, key=lambda sample: sample.offset)  # links and unsorted members lead back and forth
    return found._replace(samples=samples)


# -- members -----------------------------------------------------------------------------------------------------------


def _read_archives(file: ShardFile, reader: RangeReader, label: str, left_out: LeftOut) -> Iterator[Members]:
    """Yields the files in each archive of a tar file, by name, and counts the hidden ones."""
    start: int | None = 0
    while start is not None:
        reader.seek(start)
        members, links = Members(), dict[str, str]()
        try:
            with tarfile.open(fileobj=reader, mode="r:") as tar:
                for info in _iterate(file, tar):
                    if info.isreg() or info.islnk() or info.issym():  # directories and devices hold no images
                        _add_member(file, tar, info, members, links, label)
                end = tar.offset
        except (tarfile.TarError, ValueError, OverflowError, IndexError) as error:  # of damaged headers
            raise ShardError(f"{file.url} is not a whole, uncompressed tar file{_explain(reader, error)}") from error
        if end == start > 0:
            raise ShardError(f"{file.url} has bytes behind its end mark that are no tar file: it is damaged.")
        reader.seek(end)
        # Python's tarfile does not notice when a file was cut off, or is damaged, between two members.
        if reader.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ShardError(f"{file.url} has no end mark after {len(members)} members: it was cut off, or is damaged.")
        followed = _leave_out_hidden(_follow_links(members, links, left_out), links, left_out)
        yield {name: _read_label(reader, member, label) for name, member in followed.items()}
        start = _find_next_archive(reader, end)


def _iterate(file: ShardFile, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the members of an archive, and keeps none of them in memory."""
    while (info := tar.next()) is not None:
        if info.size < 0 or tar.offset <= info.offset:
            raise ShardError(f"{file.url} is damaged: the member {info.name!r} has a size of {info.size} bytes.")
        if info.type == CONTINUED:
            raise ShardError(
                f"{file.url} is a later volume of a tar file (tar -M), in which {info.name!r} goes on. Unpack all "
                "volumes together, and write whole tar files."
            )
        yield info
        tar.members.clear()  # type: ignore[attr-defined]


def _explain(reader: RangeReader, error: Exception) -> str:
    """Returns what a file is that is no tar file."""
    reader.seek(0)
    start = reader.read(HEAD)
    tool = next((tool for magic, tool in COMPRESSED.items() if start.startswith(magic)), None)
    if tool is not None:
        return f" but a compressed one (decompress it with {tool})"
    return f": {describe_stand_in(start) or error}"


def _add_member(
    file: ShardFile, tar: tarfile.TarFile, info: tarfile.TarInfo, members: Members, links: dict[str, str], label: str
) -> None:
    """Adds a file or a link.

    Raises:
        ShardError: there are two of its name, or it is sparse; unless it is hidden.
    """
    name = str(PurePosixPath(info.name))
    if (name in members or name in links or info.issparse()) and is_hidden_member(PurePosixPath(name).parts):
        return
    if name in members or name in links:
        raise ShardError(
            f"{file.url} has two members {name!r}. `tar -A` of archives with equal names, or `tar -r`, writes such a "
            "file: keep the archives apart, or join them with cat."
        )
    if info.islnk():
        links[name] = str(PurePosixPath(info.linkname))
    elif info.issym():
        links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
    elif info.issparse():
        raise ShardError(f"{file.url}: the member {name!r} is stored as a sparse file. Write the tar without -S.")
    else:
        content = tar.extractfile(info) if _matches(_split(name)[1], label) and info.size <= LONGEST_LABEL else None
        members[name] = Member(name, info.offset_data, info.size, None if content is None else content.read())


def _follow_links(members: Members, links: dict[str, str], left_out: LeftOut) -> Members:
    """Returns the members with links in their places: those of the member they lead to, or of no bytes.

    Links to folders are counted: the images there are read under their own names.
    """
    followed = Members(members)
    folders = {str(folder) for name in (members if links else ()) for folder in PurePosixPath(name).parents}
    for name in links:
        target = _resolve(name, links)
        found = members.get(target)
        if found is not None:
            followed[name] = found._replace(name=name)
        elif target in folders:
            left_out[REPEATED] += 1
        else:
            followed[name] = Member(f"{name} (a link to {target}, which is not in the archive)", 0, -1)
    return followed


def _resolve(name: str, links: dict[str, str]) -> str:
    """Returns the name that a link leads to, itself or by its folders; they may lead to others, and in a circle."""
    for _ in range(MOST_LINKS):
        paths = [*map(str, reversed(PurePosixPath(name).parents)), name]
        linked = next((path for path in paths if path in links), None)
        if linked is None:
            break
        name = str(PurePosixPath(links[linked] + name[len(linked) :]))
    return name


def _leave_out_hidden(followed: Members, links: dict[str, str], left_out: LeftOut) -> Members:
    """Returns the members that are not hidden, and counts the others, but those that are read by a link."""
    hidden = {name for name in followed if is_hidden_member(PurePosixPath(name).parts)}
    linked = {_resolve(name, links) for name in links if hidden and name not in hidden}
    left_out.update(HIDDEN_FILES for _ in hidden - linked)
    return {name: member for name, member in followed.items() if name not in hidden}


def _read_label(reader: RangeReader, member: Member, label: str) -> Member:
    """Returns a member with its content, if it is a label that links to a member of another extension."""
    is_unread = member.content is None and 0 <= member.size <= LONGEST_LABEL
    if not (is_unread and _matches(_split(member.name)[1], label)):
        return member
    reader.seek(member.offset)
    return member._replace(content=reader.read(member.size))


def _find_next_archive(reader: RangeReader, start: int) -> int | None:
    """Returns where the next block that is not zero begins; None if there is none."""
    reader.seek(start)
    while content := reader.read(LOCAL_STEP):
        rest = content.lstrip(b"\0")
        if rest:
            first = start + len(content) - len(rest)
            return first - first % tarfile.BLOCKSIZE
        start += len(content)
    return None


# -- samples -----------------------------------------------------------------------------------------------------------


def _split(name: str) -> tuple[str, str]:
    """Splits the name of a member into the stem of its sample and its extension."""
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension


def _group(members: Members) -> dict[str, Members]:
    """Returns the members of each sample by their extensions."""
    groups: dict[str, Members] = {}
    for name, member in members.items():
        stem, extension = _split(name)
        groups.setdefault(stem, {})[extension] = member
    return groups


def _matches(extension: str, wanted: str) -> bool:
    return f".{extension.lower()}".endswith(f".{wanted}")


def _is_image(extension: str) -> bool:
    return f".{extension.lower().rpartition('.')[2]}" in list_image_extensions()


def _find_kind(extension: str) -> str:
    return extension.lower().rpartition(".")[2]


def _choose_images(fields: Members, image: str | None) -> tuple[list[str], list[str]]:
    """Returns the extensions of a sample's images, and how those of images beside them are longer.

    Beside an image of a name lie those whose names go on where the extension of the image begins.
    """
    found = [each for each in fields if (_is_image(each) if image is None else _matches(each, image))]
    names = {each: each.lower().removesuffix(image or _find_kind(each)).split(".")[:-1] for each in found}
    known = {tuple(name) for name in names.values()}
    chosen, beside = list[str](), list[str]()
    for each, name in names.items():
        length = next((length for length in range(len(name)) if tuple(name[:length]) in known), None)
        if length is None:
            chosen.append(each)
        else:
            beside.append(".".join(each.split(".")[length:]))
    return chosen, beside


def _add_sample(found: TarIndex, fields: Members, image: str | None, label: str, part: str) -> bool:
    """Adds the images of a sample, and returns whether it has some."""
    chosen, beside = _choose_images(fields, image)
    labels = {each.lower(): member.content for each, member in fields.items() if _matches(each, label)}
    for member, extension in ((fields[extension], extension) for extension in chosen):
        if member.size < 0:
            found.without_image[f"{member.name}{part}"] = f"{member.name}."
            continue
        text = _find_label(labels, extension, label)
        found.samples.append(Sample(f"{member.name}{part}", member.offset, member.size, text))
    found.left_out.update(f"{extension} {BESIDE}" for extension in beside)
    found.left_out.update(UNREAD_LABELS for content in labels.values() if chosen and content is None)
    return bool(chosen)


def _add_lone(found: TarIndex, name: str, fields: Members, image: str | None, kinds: set[str]) -> None:
    """Adds files without an image: as a sample that lacks it if images have such files beside them, or are not read
    here; or by their kinds.
    """
    advice = next((f" ({text})" for each in fields if (text := ADVICE.get(f".{each.lower()}"))), "")
    own = [_find_kind(each) for each in fields]
    if not found.samples or advice or kinds.intersection(own) or any(map(_is_image, fields)):
        advice = advice or " (unpack it)" * (not set(own).isdisjoint(INNER))
        only = ", ".join(each or "a file without an extension" for each in fields)
        found.without_image[name] = f"the sample {name!r} has no {image or 'image'}, only {only}{advice}."
    else:
        kinds_left = (f".{kind}" if kind else "files without an extension" for kind in own)
        found.left_out.update(NESTED if kind in ARCHIVES else kind for kind in kinds_left)


def _find_label(labels: dict[str, bytes | None], extension: str, label: str) -> str:
    """Returns the text of the label whose extension has most in common with that of the image."""
    parts = extension.lower().split(".")[:-1]
    for length in range(len(parts), -1, -1):
        content = labels.get(".".join([*parts[:length], label]))
        if content is not None:
            return content.decode("utf-8-sig", "backslashreplace").strip()
    return ""


INTEGER = re.compile(r"-?[0-9]{1,18}")


def number_labels(files: Iterable[Iterable[str]]) -> tuple[dict[str, int], list[str] | None]:
    """Returns the number of each label of tar files, and the names of the classes. An empty label has no number.

    Labels that all are integers are their own numbers, without names. Else they are names, numbered in sorted order,
    also where a file has both, as classes 0 .. 9 and A .. Z.

    Raises:
        DataOptionError: each file has either integers or words, and not all of them the same; or a label is an object
            of JSON.
    """
    found = [{*labels} - {""} for labels in files]
    labels = sorted(set[str]().union(*found))
    fields = next((label for label in labels if label.startswith("{") and label.endswith("}")), None)
    if fields is not None:
        raise DataOptionError(
            f"a label of the tar files holds fields, {fields[:LONGEST_SHOWN]}, and not the class alone: write the "
            "class into a member of its own, as 7.cls beside 7.jpg."
        )
    integers = [label for label in labels if INTEGER.fullmatch(label)]
    if len(integers) == len(labels):
        return {label: int(label) for label in labels}, None
    if integers and all(own.issubset(integers) or own.isdisjoint(integers) for own in found):
        words = [label for label in labels if label not in {*integers}]
        raise DataOptionError(
            f"some tar files have integers as labels ({', '.join(integers[:SHOWN])}) and others words "
            f"({', '.join(words[:SHOWN])}): write all of them in one way, or read the files apart."
        )
    return {label: number for number, label in enumerate(labels)}, labels
