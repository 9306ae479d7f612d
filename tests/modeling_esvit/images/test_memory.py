# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the memory of decoding: what the limit of pixels promises, for each format and mode."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images.decoding import CONVERTED, count_bytes
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
