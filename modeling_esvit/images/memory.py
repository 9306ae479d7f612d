# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the memory that decoding an image takes, before it is decoded.

Most of it is the image's own. Some decoders also hold a block of the file whose size the file says, not the image: a
tile of a TIFF, or lines that a BMP skips. A small file of a small image can so ask for gigabytes.
"""

import struct

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile


# Bytes a pixel that decoding may take beside the file; `tests/modeling_esvit/images/test_memory.py` measures it.
BUDGET = 6
# Bytes a pixel of an image of these modes while it becomes RGB, and of others and turned ones with their copy.
MODES = {"RGB": 4, "1": 5, "L": 5, "P": 5, "I;16": 6}
CONVERTED = 8
# Bytes a pixel that decoders of these formats hold beside that.
DECODER = {"WEBP": 12, "AVIF": 8, "JPEG2000": 17, "HEIF": 8, "JXL": 8, "QOI": 3, "SGI": 2}
PROGRESSIVE = 6  # of a JPEG whose coefficients come in several passes
UPRIGHT = 1
LONGEST_SKIP = 255  # lines, and pixels, that a run-length coded BMP skips at once, as zeros
# Numbers of the tags of TIFF that say how large a block is, and two of their values.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANES = 256, 257, 258, 259, 262, 277, 278, 284
TILE_WIDTH, TILE_HEIGHT = 322, 323
BLOCK_TAGS = (WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANES, TILE_WIDTH, TILE_HEIGHT)
SEPARATE, YCBCR = 2, 6
# Bytes a pixel that decoders of compressions in a TIFF hold of a whole block, beside it.
BLOCK_DECODER = {"webp": DECODER["WEBP"], "jpeg": PROGRESSIVE, "tiff_jpeg": PROGRESSIVE}


def check_memory(image: Image.Image, max_pixels: int, copies: int = 0) -> None:
    """Refuses an image that takes too much memory to decode.

    Raises:
        ValueError: It does.
    """
    needed = count_bytes(image, copies)
    allowed = min(max_pixels, BUDGET * max_pixels // needed)
    if image.width * image.height > allowed:
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than the {allowed} that a {image.format or 'picture'} of "
            f"this kind may have (--max_pixels {max_pixels})"
        )
    blocks = count_block_bytes(image)
    if image.width * image.height * needed + blocks > BUDGET * max_pixels:
        raise ValueError(
            f"its {image.width} x {image.height} pixels are stored in blocks that take {blocks} bytes to decode, more "
            f"than the limit of pixels allows (--max_pixels {max_pixels})"
        )


def count_bytes(image: Image.Image, copies: int = 0) -> int:
    """Returns about how many bytes a pixel decoding takes, beside the file; `copies` are those of turned images."""
    is_turned = isinstance(image, TiffImageFile) and image.tag_v2.get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
    is_copied = is_turned or (image.mode == "RGB" and image.has_transparency_data)
    converted = CONVERTED if is_copied else MODES.get(image.mode[:4], CONVERTED)
    passes = PROGRESSIVE if image.info.get("progressive") else 0
    return max(converted, copies) + max(DECODER.get(image.format or "", 0), passes)


def count_block_bytes(image: Image.Image) -> int:
    """Returns about how many bytes decoders hold beside the image, because of what the file says of its blocks.

    Raises:
        ValueError: It says it in two ways.
    """
    decoders = {tile[0] for tile in getattr(image, "tile", [])}
    if "bmp_rle" in decoders:  # the zeros of one skip are appended to the pixels, and all of it is copied
        return 2 * (image.width * image.height + LONGEST_SKIP * (image.width + 1))
    if isinstance(image, TiffImageFile) and "libtiff" in decoders:
        _refuse_double_tags(image)
        return _count_pixels_of_block(image) * _count_bytes_of_block(image)
    return 0


def _count_pixels_of_block(image: TiffImageFile) -> int:
    tags = image.tag_v2
    if TILE_WIDTH in tags or TILE_HEIGHT in tags:
        return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_HEIGHT, 0))
    return image.width * min(int(tags.get(ROWS, image.height)), image.height)


def _count_bytes_of_block(image: TiffImageFile) -> int:
    """Returns the bytes a pixel of a block of a TIFF; those of YCbCr become four."""
    tags = image.tag_v2
    samples = 1 if tags.get(PLANES) == SEPARATE else tags.get(SAMPLES, 1)
    stored = -(-samples * max(tags.get(BITS, (1,))) // 8)
    stored = max(stored, 4) if tags.get(PHOTOMETRIC) == YCBCR else stored
    return int(stored) + BLOCK_DECODER.get(str(image.info.get("compression")), 0)


def _refuse_double_tags(image: TiffImageFile) -> None:
    """Refuses a TIFF that says a size twice: Pillow goes by the last one, and libtiff, which decodes it, by the first.

    Raises:
        ValueError: It does.
    """
    file = image.fp
    assert file is not None  # it is not decoded yet
    file.seek(0)
    start = file.read(4)
    order = "<" if start[:2] == b"II" else ">"
    head, entry = ("Q", 20) if 43 in start[2:] else ("H", 12)
    file.seek(image.tag_v2.offset)
    (count,) = struct.unpack(order + head, file.read(struct.calcsize(head)))
    tags = [struct.unpack_from(order + "H", file.read(entry))[0] for _ in range(count)]
    twice = [tag for tag in BLOCK_TAGS if tags.count(tag) > 1]
    if twice:
        raise ValueError(f"tag {twice[0]} stands twice in this TIFF: it is damaged")
