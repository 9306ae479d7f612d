# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists the formats of images that are read, by their extensions, and says what to do about others."""

import functools
import importlib.util

from PIL import Image

from modeling_esvit.storage.contents import describe_stand_in


# Pillow's names. It has decoders for more: rare ones, which files of strangers need not reach.
ALLOWED_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
    *("HEIF", "JXL"),  # of plugins
)
HEIF_PLUGIN, JXL_PLUGIN = "pip install pillow-heif", "pip install pillow-jxl-plugin"
CONVERT = "convert them to TIFF, PNG or JPEG"
ADVICE = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), HEIF_PLUGIN),
    ".jxl": JXL_PLUGIN,
    ".avif": "install a Pillow with AVIF (11.3 or newer)",
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"), CONVERT),
    **dict.fromkeys((".dcm", ".dds", ".eps", ".fits", ".ico", ".pdf", ".psd", ".svg", ".xcf"), CONVERT),
}
TIFF = "a TIFF that is damaged, or of a kind that is not read, such as one of five channels: convert it to 8 bits"
# The first bytes of files: offset, bytes, what to do about one that is not read.
SIGNATURES = (
    *((4, b"ftyp" + brand, HEIF_PLUGIN) for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")),
    (0, b"\xff\x0a", JXL_PLUGIN),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", JXL_PLUGIN),
    *((0, start, TIFF) for start in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
    (0, b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
    (0, b"\xff\xd8\xff", "a damaged JPEG"),
    (0, b"PK\x03\x04", "a zip archive: unpack it"),
)


@functools.cache
def list_image_formats() -> list[str]:
    """Returns Pillow's names of the formats that are read here, HEIF and JPEG XL if their plugin is installed."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    if importlib.util.find_spec("pillow_jxl") is not None:
        importlib.import_module("pillow_jxl")  # registers itself
    return [name for name in ALLOWED_FORMATS if name in Image.OPEN]


@functools.cache
def list_image_extensions() -> frozenset[str]:
    """Returns the file extensions of `list_image_formats()`: lower case, with the dot."""
    formats = (*list_image_formats(), "MPO")  # photographs of some phones and cameras, which are opened as JPEG
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


def advise_on_content(start: bytes) -> str:
    """Returns what to do about a file that is not read and begins with `start`; nothing if that is unknown."""
    found = (advice for offset, signature, advice in SIGNATURES if start[offset:].startswith(signature))
    return describe_stand_in(start) or next(found, "")
