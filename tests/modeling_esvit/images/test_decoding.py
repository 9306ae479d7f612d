# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Every pixel format becomes RGB with the right values; every bad file becomes one typed error."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from modeling_esvit.images.decoding import DecodingOptions, Record, UnreadableImageError, count_frames, decode


def encoded(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(content):
    image = decode(Record(content, None, "picture"))
    assert image.mode == "RGB"
    return np.asarray(image)


def make_png(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (chunks | {b"IEND": b""}).items()
    )


COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
RGB = Image.fromarray(COLOURS)
GRADIENT = np.linspace(0, 65535, 48).round().reshape(6, 8)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_kept(file_format):
    assert np.array_equal(decoded(encoded(RGB, file_format)), COLOURS)


def test_other_modes_become_rgb():
    gray = COLOURS[..., 0]
    assert np.array_equal(decoded(encoded(Image.fromarray(gray))), np.stack([gray] * 3, axis=-1))
    assert np.array_equal(decoded(encoded(Image.fromarray(gray > 127))), np.stack([255 * (gray > 127)] * 3, axis=-1))
    palette = RGB.quantize(256)
    assert np.array_equal(decoded(encoded(palette, "GIF")), np.asarray(palette.convert("RGB")))
    cmyk = RGB.convert("CMYK")
    assert np.array_equal(decoded(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_not_clipped(file_format):
    pixels = decoded(encoded(Image.fromarray(GRADIENT.astype(np.uint16)), file_format))
    assert np.array_equal(pixels, np.stack([np.round(GRADIENT / 257)] * 3, axis=-1))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_12_bits_in_16_are_scaled_by_the_white_that_is_named(file_format):
    levels = np.linspace(0, 5000, 48).round().reshape(6, 8).astype(np.uint16)
    options = DecodingOptions(white_level=4095)
    found = np.asarray(decode(Record(encoded(Image.fromarray(levels), file_format), None, "picture", options)))
    assert np.array_equal(found[..., 0], np.minimum(np.round(levels * (255 / 4095)), 255))


def test_a_tiff_of_12_bits_says_what_is_white():
    """It is made of one of 8 bits and of half as many pixels again in each row."""
    levels = np.linspace(0, 4095, 48).round().astype(int).reshape(6, 8)
    digits = "".join(f"{level:03x}" for level in levels.flat)
    content = encoded(Image.frombytes("L", (12, 6), bytes.fromhex(digits)), "TIFF")
    for tag, before, after in ((256, 12, 8), (258, 8, 12)):
        [kind] = [kind for kind in (3, 4) if struct.pack("<HHII", tag, kind, 1, before) in content]
        content = content.replace(struct.pack("<HHII", tag, kind, 1, before), struct.pack("<HHII", tag, kind, 1, after))
    assert np.array_equal(decoded(content)[..., 0], np.round(levels * (255 / 4095)))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_0_is_white_in_a_tiff_that_says_so(compression):
    """Pillow inverts 8 bits where it writes and where it reads such images, and leaves 16 and floats as they are."""
    inverted = {"tiffinfo": {262: 0}, "compression": compression}
    assert np.array_equal(decoded(encoded(RGB.convert("L"), "TIFF", **inverted))[..., 0], np.asarray(RGB.convert("L")))
    pixels = decoded(encoded(Image.fromarray(GRADIENT.astype(np.uint16)), "TIFF", **inverted))
    assert np.array_equal(pixels, np.stack([255 - np.round(GRADIENT / 257)] * 3, axis=-1))
    content = encoded(Image.fromarray(np.minimum(GRADIENT, 5000).astype(np.uint16)), "TIFF", **inverted)
    found = np.asarray(decode(Record(content, None, "picture", DecodingOptions(white_level=4095))))
    assert found[0, 0].tolist() == [255] * 3 and found[-1, -1].tolist() == [0] * 3
    with pytest.raises(UnreadableImageError, match=r"picture: 0 is white in this TIFF of floats \(WhiteIsZero\)"):
        decoded(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF", **inverted))


@pytest.mark.parametrize("bits", ["RGB", "RGBA"])
def test_colours_of_16_bits_have_no_other_white(bits):
    """Pillow reads the upper 8 bits of each (Pillow issue 2556); of 12 bits in 16 these are black."""
    planes = len(bits)
    rows = b"".join(b"\0" + struct.pack(f">{4 * planes}H", *[32768] * 4 * planes) for _ in range(3))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 4, 3, 16, 2 if planes == 3 else 6, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
    }
    content = make_png(chunks)
    assert decode(Record(content, None, "deep")).size == (4, 3)
    with pytest.raises(UnreadableImageError, match=f"deep: white_level does not apply to {bits} of 16 bits"):
        decode(Record(content, None, "deep", DecodingOptions(white_level=4095)))


def test_large_texts_and_profiles_beside_the_pixels(monkeypatch):
    """Pillow refuses a PNG with more than 1 MB of either (Pillow issues 2445 and 8363, KatherLab/STAMP pull 76)."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 2_000_000, zip=True)
    content = encoded(RGB, pnginfo=info, icc_profile=bytes(3_000_000))
    assert np.array_equal(decoded(content), COLOURS)
    info.add_text("Comment", "x" * 20_000_000, zip=True)
    with pytest.raises(UnreadableImageError, match="picture: Decompressed data too large"):
        decoded(encoded(RGB, pnginfo=info))


def test_signed_bytes_are_refused():
    content = bytearray(encoded(Image.new("L", (4, 4), 251), "TIFF", tiffinfo={339: 1}))
    assert decoded(bytes(content)).max() == 251
    signed = encoded(Image.new("L", (4, 4), 251), "TIFF", tiffinfo={339: 2})  # -5, if it means what it says
    with pytest.raises(UnreadableImageError, match="picture: int8 pixels may be negative"):
        decoded(signed)


def test_pages_and_frames_are_counted():
    frames = [Image.new("L", (8, 8), level) for level in (50, 90, 130)]
    for file_format in ("TIFF", "GIF", "PNG", "WEBP"):
        record = Record(encoded(frames[0], file_format, save_all=True, append_images=frames[1:]), None, "several")
        assert count_frames(record) == 3 and abs(decode(record).getpixel((0, 0))[0] - 50) < 3
    assert count_frames(Record(encoded(RGB, "JPEG"), None, "one")) == 1


def test_float_pixels():
    assert decoded(encoded(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF"))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    for wrong in (np.nan, np.inf, -0.1, 200.0):
        with pytest.raises(UnreadableImageError, match="picture: float32 pixels must be finite and lie in 0 .. 1"):
            decoded(encoded(Image.fromarray(np.array([[0.5, wrong]], np.float32)), "TIFF"))


def on_white(colours, alpha):
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def test_transparent_pixels_are_composed_on_white():
    alpha = np.random.default_rng(1).integers(0, 256, (6, 8), dtype=np.uint8)
    alpha[:2], alpha[2] = 0, 255
    rgba = Image.fromarray(np.dstack([COLOURS, alpha]))
    found = decoded(encoded(rgba))
    assert np.abs(found - on_white(COLOURS, alpha)).max() <= 1
    assert (found[:2] == 255).all() and np.array_equal(found[2], COLOURS[2])
    gray = rgba.convert("LA")
    expected = on_white(np.stack([np.asarray(gray)[..., 0]] * 3, axis=-1), alpha)
    assert np.abs(decoded(encoded(gray)) - expected).max() <= 1
    assert np.abs(decoded(encoded(rgba, "WEBP", lossless=True, exact=True)) - on_white(COLOURS, alpha)).max() <= 1


def test_a_transparent_colour_is_white():
    palette = RGB.quantize(16)
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == 3] = 255
    assert np.array_equal(decoded(encoded(palette, transparency=3)), expected)
    keyed = encoded(RGB, transparency=tuple(int(value) for value in COLOURS[2, 3]))
    assert decoded(keyed)[2, 3].tolist() == [255, 255, 255] and np.array_equal(decoded(keyed)[3:], COLOURS[3:])
    gray = encoded(Image.fromarray(np.array([[0, 300, 25700]], np.uint16)), transparency=300)
    assert decoded(gray)[0, :, 0].tolist() == [0, 255, 100]


@pytest.mark.parametrize(
    ("bits", "kind", "row", "transparent", "found"),
    [
        (2, 0, b"\x1b", (1,), [0, 255, 170, 255]),
        (4, 0, b"\x05", (5,), [0, 255]),
        (16, 2, struct.pack(">6H", 32768, 0, 0, 0, 0, 0), (32768, 0, 0), [255, 0]),
    ],
)
def test_a_transparent_colour_has_the_bits_of_its_png(bits, kind, row, transparent, found):
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", len(found), 1, bits, kind, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(transparent)}H", *transparent),
        b"IDAT": zlib.compress(b"\0" + row),
    }
    assert decoded(make_png(chunks))[0, :, 0].tolist() == found


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_images_are_turned_as_their_camera_says(file_format, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = RGB.resize((32, 24), Image.Resampling.BICUBIC)
    content = encoded(image, file_format, exif=exif)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(decoded(content), expected) and expected.shape[0] == (24 if turn < 5 else 32)


def test_the_orientation_can_be_ignored_as_in_the_original():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    record = Record(encoded(RGB, "JPEG", exif=exif), None, "picture", DecodingOptions(exif_orientation="ignore"))
    assert decode(record).size == (8, 6)


def test_a_turned_jpeg_is_reduced_for_its_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = []
    record = Record(encoded(RGB.resize((800, 400)), "JPEG", exif=exif), None, "picture")
    assert decode(record, lambda size: seen.append(size) or (50, 100)).size == (50, 100)
    assert seen == [(400, 800)]


def test_an_error_of_the_caller_is_none_of_the_image():
    with pytest.raises(ZeroDivisionError):
        decode(Record(encoded(RGB), None, "picture"), lambda size: 1 / 0)


@pytest.mark.parametrize(
    "start", [b"http://ns.adobe.com/xap/1.0/\0\xa8\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\xa8\xff"]
)
def test_damaged_texts_beside_the_pixels_do_not_matter(start):
    plain = encoded(RGB, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(start) + 2) + start
    assert np.array_equal(decoded(plain[:2] + segment + plain[2:]), decoded(plain))


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


@pytest.mark.parametrize(
    "content", [BAD_FILES["text"], encoded(RGB, "EPS"), encoded(RGB, "DDS")], ids=["text", "eps", "dds"]
)
def test_files_of_other_formats(content):
    """An EPS file is a program that Pillow would have Ghostscript run."""
    with pytest.raises(UnreadableImageError, match="picture: not an image in a format that is read here"):
        decoded(content)


def test_a_qoi_cut_at_any_place_is_unreadable_or_an_image():
    content = encoded(RGB, "QOI")
    for length in range(len(content)):
        try:
            assert decoded(content[:length]).shape == (6, 8, 3)
        except UnreadableImageError as error:
            assert str(error).startswith("picture: ")


def test_more_pixels_than_the_limit(monkeypatch):
    def check(content, limit):
        decode(Record(content, None, "picture", DecodingOptions(max_pixels=limit)))

    check(encoded(RGB), 48)
    message = r"picture: 8 x 6 pixels are more than the 47 that a PNG of this kind may have \(--max_pixels 47\)"
    with pytest.raises(UnreadableImageError, match=message):
        check(encoded(RGB), 47)
    check(encoded(RGB.convert("CMYK"), "TIFF"), 64)  # its copy takes 8 bytes a pixel, 6 are allowed
    with pytest.raises(UnreadableImageError, match="more than the 47"):
        check(encoded(RGB.convert("CMYK"), "TIFF"), 63)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    check(encoded(RGB), 48)
    assert Image.MAX_IMAGE_PIXELS == 48


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImageError, match="no regular file"):
        decode(Record(str(tmp_path / "pipe.png"), None, None))


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImageError, match="gone.png"):
        decode(Record(str(tmp_path / "gone.png"), None, None))


def test_records_without_a_name_are_told_apart_by_content():
    assert (
        Record(b"a", None, None).identity() == Record(b"a", 1, None).identity() != Record(b"b", None, None).identity()
    )
    assert Record("a/b.png", None, None).identity() == "a/b.png"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_of_pillow_are_decoded_like_their_files(file_format):
    """They are turned as their cameras say, read or not, and serve afterwards; those of no file have no turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(RGB, file_format, exif=exif)
    expected = decoded(content)
    assert expected.shape == (8, 6, 3)
    for opened in (Image.open(io.BytesIO(content)), Image.open(io.BytesIO(content))):
        for _ in range(2):
            np.testing.assert_allclose(decoded(opened), expected, atol=8)  # a JPEG's own size, where drafts are smaller
        opened.load()
    assert np.array_equal(decoded(RGB), COLOURS)
    with pytest.raises(UnreadableImageError, match="8 x 6 pixels are more than the 20 that a picture"):
        decode(Record(RGB, None, "picture", DecodingOptions(max_pixels=20)))


def test_images_of_pillow_that_cannot_be_read():
    with pytest.raises(UnreadableImageError, match="^picture: .*truncated"):
        decoded(Image.open(io.BytesIO(encoded(Image.effect_noise((64, 64), 50), "PNG")[:-300])))
    closed = Image.open(io.BytesIO(encoded(RGB)))
    closed.close()
    with pytest.raises(UnreadableImageError, match="^picture: "):
        decoded(closed)


def test_identities_of_pixels_are_those_of_their_content():
    assert Record(RGB, None, None).identity() == Record(COLOURS, None, None).identity()
    assert Record(COLOURS[:3], None, None).identity() != Record(COLOURS, None, None).identity()
