# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes a record into an upright RGB image, with one typed error for everything that can be wrong with it.

Every image of every command passes through `decode`, which is the border of trust: whatever a file, a row or a server
holds, the outcome is an image or an `UnreadableImageError`, within a limit of memory that is known beforehand.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.arrays import Pixels, convert_array
from modeling_esvit.images.formats import advise_on_content, list_image_formats
from modeling_esvit.images.memory import BUDGET, CONVERTED, UPRIGHT, check_memory
from modeling_esvit.images.names import show_name
from modeling_esvit.images.overlaps import (
    BoundedFile,
    CountingError,
    SizeCheck,
    bound_tags,
    ignore_size,
    limit_counting,
    limit_pieces,
    refuse_overlaps,
)
from modeling_esvit.images.places import ANYTHING, Access, open_place
from modeling_esvit.images.rgb import convert_to_rgb, scale_transparent_colour
from modeling_esvit.storage.contents import HEAD
from modeling_esvit.storage.url_secrets import redact_urls


WidthHeight = tuple[int, int]  # the order of Pillow; elsewhere a Size is height, width
APPLY, IGNORE = "apply", "ignore"
MAX_PIXELS = 178_956_970  # what Pillow refuses by itself
LONGEST_TEXT = 16 * 1024**2  # bytes of a text or colour profile in a PNG; Pillow refuses 1 MB by itself
# How an image is turned for each number of EXIF; the last four exchange width and height.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)
SAMPLE_FORMAT, SIGNED = 339, 2  # a tag of TIFF, and its value for integers with a sign
DEEP_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa", "LA", "CMYK")


class UnreadableImageError(EsViTError, OSError):
    """Raised when an image cannot be turned into RGB pixels; the message names it and says why."""


@dataclass(frozen=True)
class DecodingOptions:
    """Says how the images of a source are decoded.

    Attributes:
        exif_orientation: "apply" turns an image as its camera says; "ignore" leaves it as the original did.
        white_level: The value that is white in images of 16 and 32 bits and float; None: 65535, and 1 of float, but
            4095 in a TIFF that says that it has 12 bits.
        max_pixels: An image with more is unreadable. One that takes more memory than others to decode, because of its
            format or because it has to be turned or converted, may have fewer: `BUDGET` bytes for each pixel of this.
        allow_paths: Whether the rows of a data set may name any file and URL, not only files of the data set.
        access: What the name of an image may lead to; `restrict_to` says it of the rows of a data set.
    """

    exif_orientation: str = APPLY
    white_level: float | None = None
    max_pixels: int = MAX_PIXELS
    allow_paths: bool = False
    access: Access = ANYTHING

    def restrict_to(self, access: Access) -> "DecodingOptions":
        """Returns these options for the rows of a data set, which may open only this, unless paths are allowed."""
        return self if self.allow_paths else replace(self, access=access)

    def describe(self) -> dict[str, Any]:
        """Returns what decides which images can be read, and as which pixels."""
        return {name: getattr(self, name) for name in ("exif_orientation", "white_level", "max_pixels", "allow_paths")}


DEFAULT = DecodingOptions()


class Record(NamedTuple):
    """Holds one image, as a rule undecoded."""

    image: bytes | str | Pixels  # the encoded file, its path or URL (see `open_place`), or pixels in memory
    label: int | None
    name: str | None  # as text, see `show_name`; None: only its content tells it apart
    options: DecodingOptions = DEFAULT

    def identity(self) -> str:
        """Returns a name that is the same in every epoch and process."""
        if self.name is not None:
            return self.name
        source = self.get_source()
        if isinstance(source, str):
            return show_name(source)
        return f"image {hashlib.sha256(source).hexdigest()[:16]}"

    def get_source(self) -> bytes | str:
        """Returns the encoded file, its path or URL, or the bytes of pixels in memory."""
        return self.image if isinstance(self.image, bytes | str) else self.image.tobytes()


def decode(record: Record, sufficient: Callable[[WidthHeight], WidthHeight] = lambda size: size) -> Image.Image:
    """Returns the RGB image of a record, turned upright unless its options say otherwise; `rgb.py` says how pixels of
    other modes become RGB.

    `sufficient` takes the (width, height) of the image and returns the smallest size that is large enough. A JPEG is
    then decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is at least that large.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, larger than the limit, pixels without a meaning, or
            nothing that may be opened.
    """
    if not isinstance(record.image, bytes | str):
        return _convert_pixels(record, record.image)
    with _report_unreadable(record):
        file = _open(record)
    with file:
        with _report_unreadable(record):
            image = _identify(file)
            turn = _prepare(image, record.options)
        size = sufficient(_swap(image.size, turn))  # outside: a mistake of the caller is none of the image
        with _report_unreadable(record), image:
            image.draft(None, _swap(size, turn))
            return _turn(convert_to_rgb(image, record.options.white_level), turn)


@contextmanager
def _report_unreadable(record: Record) -> Iterator[None]:
    """Turns every error inside into an `UnreadableImageError`: decoders raise whatever there is for damaged files."""
    try:
        with bound_tags():
            yield
    except UnreadableImageError:
        raise
    except Exception as error:
        reason = redact_urls(str(error)) or type(error).__name__
        raise UnreadableImageError(f"{record.identity()}: {reason}") from error


def _convert_pixels(record: Record, pixels: Pixels) -> Image.Image:
    """Returns the RGB image of pixels in memory; Pillow loads those of a file that it has opened and not read yet."""
    with _report_unreadable(record):
        if not isinstance(pixels, Image.Image):
            return convert_to_rgb(convert_array(pixels, record.options.white_level), record.options.white_level)
        turn = _prepare(pixels, record.options)
        return _turn(convert_to_rgb(pixels, record.options.white_level), turn)


def _open(record: Record) -> BinaryIO:
    if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < record.options.max_pixels:
        Image.MAX_IMAGE_PIXELS = record.options.max_pixels  # Pillow's own limit must not be below the one asked for
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, LONGEST_TEXT)
    if isinstance(record.image, bytes):
        return BytesIO(record.image)
    assert isinstance(record.image, str)  # `decode` takes pixels elsewhere
    return open_place(record.image, record.options.access, BUDGET * record.options.max_pixels)


def _identify(file: BinaryIO, check: SizeCheck = ignore_size) -> Image.Image:
    """Returns the image in a file, not decoded yet; `check` is told the size of each read after that."""
    bounded = BoundedFile(file, limit_pieces())
    try:
        image = Image.open(bounded, formats=list_image_formats())  # type: ignore[arg-type]
    except UnidentifiedImageError as error:
        file.seek(0)
        advice = advise_on_content(file.read(HEAD))
        reason = "not an image in a format that is read here"
        raise UnidentifiedImageError(f"{reason} ({advice})" if advice else reason) from error
    bounded.check = check
    scale_transparent_colour(image)
    return image


def _prepare(image: Image.Image, options: DecodingOptions) -> int:
    """Checks the size of an image, and returns how it is to be turned, as a number of EXIF.

    All but JPEG are decoded: a PNG may say how it is to be turned at its end, and a TIFF is turned by Pillow.
    """
    check_memory(image, options.max_pixels)
    refuse_overlaps(image)
    _refuse_signed_bytes(image)
    if options.white_level is not None:
        _refuse_deep_colours(image)
    if not isinstance(image, JpegImageFile):
        image.load()
    turn = _find_orientation(image) if options.exif_orientation == APPLY else UPRIGHT
    if turn != UPRIGHT:
        check_memory(image, options.max_pixels, CONVERTED)
    return turn


def _refuse_signed_bytes(image: Image.Image) -> None:
    """Refuses a TIFF of int8, whose negative values Pillow reads as high ones.

    Raises:
        ValueError: It is one.
    """
    if isinstance(image, TiffImageFile) and image.mode == "L" and image.tag_v2.get(SAMPLE_FORMAT) == (SIGNED,):
        raise ValueError("int8 pixels may be negative: convert the image to uint8")


def _refuse_deep_colours(image: Image.Image) -> None:
    """Refuses colours of 16 bits a channel, of which Pillow reads the upper 8: no other white can be made of these.

    Raises:
        ValueError: It has such colours.
    """
    if image.mode in DEEP_COLOURS and any(";16" in str(tile) for tile in getattr(image, "tile", [])):
        raise ValueError(
            f"white_level does not apply to {image.mode} of 16 bits a channel, of which the upper 8 are read: convert "
            "the image to 8 bits, or leave white_level out"
        )


def count_frames(record: Record) -> int:
    """Returns the number of pages or frames in an image, of which the first one is decoded, or how many of them were
    counted in COUNTING_SECONDS.

    Raises:
        UnreadableImageError: it is no image.
    """
    with _report_unreadable(record), _open(record) as file:
        image = _identify(file, limit_counting())
        if isinstance(image, JpegImageFile):  # a phone's has previews
            return 1
        with suppress(CountingError):
            return getattr(image, "n_frames", 1)
        return image.tell() + 1


def _find_orientation(image: Image.Image) -> int:
    """Returns the orientation that the camera noted; UPRIGHT if it noted none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # texts beside the pixels may be damaged in as many ways as the pixels, which can still be read
        return UPRIGHT


def _swap(size: WidthHeight, turn: int) -> WidthHeight:
    return size[::-1] if turn in QUARTER_TURNS else size


def _turn(image: Image.Image, turn: int) -> Image.Image:
    return image if turn not in TURNS else image.transpose(TURNS[turn])
