# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the memory of decoding: what the limit of pixels promises, for each format and mode."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images.decoding import DecodingOptions, Record, UnreadableImageError, decode
from modeling_esvit.images.memory import CONVERTED, count_bytes
from tests.helpers.paths import ROOT


SIDE = 2400
SLACK = 1.0  # bytes a pixel: strips, tables and buffers, which do not grow with the image
MEASURE = """
import sys, types
package = types.ModuleType("modeling_esvit")  # without torch, whose threads come and go
package.__path__ = [sys.argv[1]]
sys.modules["modeling_esvit"] = package
from modeling_esvit.images.decoding import DecodingOptions, Record, decode
from modeling_esvit.images.formats import list_image_formats
list_image_formats()

def read(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = read("VmRSS")
image = decode(Record(sys.argv[2], None, None, DecodingOptions(max_pixels=10**9)))
print((read("VmHWM") - before) / image.width / image.height)
"""


def make(kind: str) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (SIDE // 50, SIDE // 50, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((SIDE, SIDE))
    gray = image.convert("L")
    if kind == "RGBA":
        image.putalpha(gray)
        return image
    if kind == "16":
        return Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    if kind == "F":
        return Image.fromarray(np.asarray(gray, dtype=np.float32) / 255)
    return image.quantize(64) if kind == "P" else image.convert(kind)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")
@pytest.mark.parametrize(
    "file_format, kind, options",
    [
        *(("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True, "subsampling": 0}), ("JPEG", "CMYK", {})),
        *(("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {"transparency": 3}), ("PNG", "16", {})),
        *(("TIFF", "F", {}), ("TIFF", "RGB", {}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {}), ("AVIF", "RGB", {})),
        *(("JPEG2000", "RGB", {}), ("QOI", "RGB", {}), ("SGI", "RGB", {}), ("JPEG", "RGB", {"turned": True})),
    ],
)
def test_decoding_takes_no_more_than_is_counted(file_format, kind, options, tmp_path):
    options, path = dict(options), tmp_path / "image"
    copies = CONVERTED if options.pop("turned", False) else 0
    if copies:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    make(kind).save(path, file_format, **options)
    command = [sys.executable, "-c", MEASURE, str(ROOT / "modeling_esvit"), str(path)]
    found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with Image.open(path) as image:
        assert found <= count_bytes(image, copies) + path.stat().st_size / SIDE**2 + SLACK


def write_bmp(width, data):
    """Returns a run-length coded BMP of one line."""
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + bytes(1024) + data


def write_tiff(side, tile, *tags):
    """Returns a TIFF of one deflated tile of three bytes a pixel; `tags` come before its own."""
    data = zlib.compress(bytes(3 * tile * tile))
    size = {256: side, 257: side, 322: tile, 323: tile}
    plain = {259: 8, 262: 2, 277: 3, 325: len(data)}
    entries = sorted([*tags, *size.items(), *plain.items(), (258, None), (324, None)], key=lambda entry: entry[0])
    bits = 8 + 2 + 12 * len(entries) + 4
    entries = [(tag, {258: bits, 324: bits + 6}.get(tag, value)) for tag, value in entries]
    rows = [struct.pack("<HHII", tag, *((3, 3) if tag == 258 else (4, 1)), value) for tag, value in entries]
    content = b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + struct.pack("<I", 0)
    return content + struct.pack("<HHH", 8, 8, 8) + data


def test_blocks_that_are_larger_than_the_image_have_a_limit():
    def size(content):
        return decode(Record(content, None, "picture", DecodingOptions(max_pixels=2**14))).size

    assert size(write_bmp(8, b"\x08\0\0\1")) == (8, 1)
    assert size(write_tiff(16, 64)) == size(write_tiff(16, 64, (305, 0), (305, 0))) == (16, 16)
    for content in (write_bmp(2**10, b"\0\2\0\xff"), write_tiff(16, 2**10)):
        with pytest.raises(UnreadableImageError, match=r"stored in blocks that take .* bytes to decode"):
            size(content)
    with pytest.raises(UnreadableImageError, match="tag 322 stands twice"):
        size(write_tiff(16, 64, (322, 2**10)))


def test_a_strip_of_a_whole_tiff_counts_beside_its_image(tmp_path):
    path = tmp_path / "image.tif"
    Image.new("RGB", (100, 100)).save(path, compression="tiff_deflate", tiffinfo={278: 2**30})
    decode(Record(str(path), None, None, DecodingOptions(max_pixels=12_000)))
    with pytest.raises(UnreadableImageError, match="in blocks that take 30000 bytes"):
        decode(Record(str(path), None, None, DecodingOptions(max_pixels=11_000)))
