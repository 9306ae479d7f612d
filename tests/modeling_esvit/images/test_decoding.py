# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Every pixel format becomes RGB with the right values; every bad file becomes one typed error."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from modeling_esvit.images.decoding import Record, UnreadableImageError, decode, list_image_extensions


def encoded(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(content):
    image = decode(Record(content, None, "picture"))
    assert image.mode == "RGB"
    return np.asarray(image)


COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
RGB = Image.fromarray(COLOURS)
GRADIENT = np.linspace(0, 65535, 48).round().reshape(6, 8)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_kept(file_format):
    assert np.array_equal(decoded(encoded(RGB, file_format)), COLOURS)


def test_other_modes_become_rgb():
    gray = COLOURS[..., 0]
    assert np.array_equal(decoded(encoded(Image.fromarray(gray))), np.stack([gray] * 3, axis=-1))
    rgba = RGB.copy()
    rgba.putalpha(Image.fromarray(gray))  # the colours stay, the transparency goes, as in the original
    assert np.array_equal(decoded(encoded(rgba)), COLOURS)
    assert np.array_equal(decoded(encoded(Image.fromarray(gray > 127))), np.stack([255 * (gray > 127)] * 3, axis=-1))
    palette = RGB.quantize(256)
    assert np.array_equal(decoded(encoded(palette, transparency=3)), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decoded(encoded(palette, "GIF")), np.asarray(palette.convert("RGB")))
    cmyk = RGB.convert("CMYK")
    assert np.array_equal(decoded(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_not_clipped(file_format):
    pixels = decoded(encoded(Image.fromarray(GRADIENT.astype(np.uint16)), file_format))
    assert np.array_equal(pixels, np.stack([np.round(GRADIENT / 257)] * 3, axis=-1))


def test_float_pixels():
    assert decoded(encoded(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF"))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    for wrong in (np.nan, np.inf, -0.1, 200.0):
        with pytest.raises(UnreadableImageError, match="picture: float32 pixels must be finite and lie in 0 .. 1"):
            decoded(encoded(Image.fromarray(np.array([[0.5, wrong]], np.float32)), "TIFF"))


def test_the_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decoded(encoded(RGB, "JPEG", exif=exif)).shape == (6, 8, 3)


def bomb():
    """A PNG that claims 30000 x 30000 pixels."""
    chunks = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    chunks.seek(0, io.SEEK_END)
    PngImagePlugin.putchunk(chunks, b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    PngImagePlugin.putchunk(chunks, b"IDAT", b"")
    return chunks.getvalue()


def changed(content, offset, new):
    return content[:offset] + new + content[offset + len(new) :]


BAD_FILES = {
    "empty": b"",
    "text": b"a text file\n",
    "truncated jpeg": encoded(RGB, "JPEG")[:300],
    "truncated png": encoded(RGB, "PNG")[:-40],
    "truncated webp": encoded(RGB, "WEBP")[:60],
    "length in png": changed(encoded(RGB, "PNG"), 36, b"\0"),  # SyntaxError
    "format in dds": changed(encoded(RGB, "DDS"), 80, b"\0"),  # NotImplementedError
    "type in tiff": changed(encoded(RGB, "TIFF"), 72, b"\5"),  # TypeError
    "number in spider": changed(encoded(RGB.convert("F"), "SPIDER"), 104, struct.pack("f", 1)),  # AttributeError
    "int32": encoded(Image.fromarray(np.array([[70000]], np.int32)), "TIFF"),
    "bomb": bomb(),
    "no pixels": b"P6 0 4 255\n",
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_one_typed_error_that_names_them(content):
    with pytest.raises(UnreadableImageError, match="^picture: "):
        decoded(content)


@pytest.mark.parametrize("content", [BAD_FILES["text"], encoded(RGB, "EPS")], ids=["text", "eps"])
def test_files_of_other_formats(content):
    """An EPS file is a program that Pillow would have Ghostscript run."""
    with pytest.raises(UnreadableImageError, match="picture: not an image in a format that Pillow decodes"):
        decoded(content)


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImageError, match="gone.png"):
        decode(Record(str(tmp_path / "gone.png"), None, None))


def test_records_without_a_name_are_told_apart_by_content():
    assert (
        Record(b"a", None, None).identity() == Record(b"a", 1, None).identity() != Record(b"b", None, None).identity()
    )
    assert Record("a/b.png", None, None).identity() == "a/b.png"


def test_extensions_are_those_of_formats_that_can_be_decoded():
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tiff", ".bmp"} <= list_image_extensions()
    assert not {".eps", ".h5", ".mpg", ".pdf", ".txt"} & list_image_extensions()
