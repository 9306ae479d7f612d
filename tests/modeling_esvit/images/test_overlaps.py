# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that files whose parts are the same bytes again and again take neither memory nor time."""

import struct
import tracemalloc
from io import BytesIO

import pytest
from PIL import Image

from modeling_esvit.images import overlaps
from modeling_esvit.images.decoding import Record, UnreadableImageError, count_frames, decode


START = 8  # bytes before the first values


def write_tiff(tags, data):
    """Returns a TIFF of these tags (number, type, count, value), behind its data."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", START + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def write_strips(offsets, side=64):
    """Returns a TIFF of two strips of grey, and as many more as there are offsets."""
    data = bytes(side * side + len(offsets))
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    place, count = START + len(data), len(offsets)
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    return write_tiff([*tags, (273, 4, count, place), (278, 4, 1, side // 2), (279, 4, count, place)], data + table)


def write_repeated_tags(count, size):
    return write_tiff([(30_000 + number, 7, size, START) for number in range(count)], bytes(size))


def write_photograph(file_format, noted):
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, file_format, **({} if file_format == "JPEG" else {"exif": noted}))
    if file_format != "JPEG":
        return file.getvalue()
    cuts = [b"Exif\0\0" + noted[place : place + 65_000] for place in range(0, len(noted), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(cut) + 2) + cut for cut in cuts)
    return file.getvalue()[:2] + segments + file.getvalue()[2:]


def measure_peak(content):
    decode(Record(write_photograph("JPEG", b""), None, "first"))  # imports what decodes
    tracemalloc.start()
    try:
        decode(Record(content, None, "image"))
    except UnreadableImageError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_tags_of_the_same_bytes_take_no_memory(file_format):
    noted = write_repeated_tags(400, 100_000)
    content = noted if file_format == "TIFF" else write_photograph(file_format, noted)
    assert measure_peak(content) < 4_000_000  # of 40 million that the tags ask for


def test_strips_of_the_same_bytes_are_refused():
    with pytest.raises(UnreadableImageError, match="^many: the strips of this TIFF lie in each other: it is damaged"):
        decode(Record(write_strips([START + number for number in range(400)]), None, "many"))


def test_strips_of_their_own_bytes_are_decoded_in_any_order():
    half = 64 * 64 // 2
    for offsets in ([START, START + half], [START + half, START]):
        assert decode(Record(write_strips(offsets), None, "two")).size == (64, 64)


def write_gif(comments):
    file = BytesIO()
    Image.new("L", (8, 8), 90).save(file, "GIF")
    start = 13 + (3 << (file.getvalue()[10] & 7) + 1)  # behind the palette
    return file.getvalue()[:start] + comments + file.getvalue()[start:]


@pytest.mark.parametrize("file_format", ["GIF", "JPEG"])
def test_texts_in_very_many_pieces_are_refused(file_format):
    """Pillow joins each of them to a copy of all before: 2 MB of these take seconds, and 100 MB hours."""
    if file_format == "GIF":
        content = write_gif(b"!\xfe" + b"\x01x" * 200_000 + b"\0")
    else:
        photograph = write_photograph("JPEG", b"")
        content = photograph[:2] + (b"\xff\xe1" + struct.pack(">H", 9) + b"Exif\0\0x") * 120_000 + photograph[2:]
    with pytest.raises(UnreadableImageError, match="^many: its comments, or what a camera noted, are in too many pie"):
        decode(Record(content, None, "many"))


def test_long_texts_in_pieces_of_the_usual_size_are_read():
    for start in (b"!\xfe", b"!\xff\x0bXMP DataXMP"):
        content = write_gif(start + (b"\xff" + b"x" * 255) * 1000 + b"\0")
        assert decode(Record(content, None, "long")).getpixel((0, 0)) == (90, 90, 90)


def test_counting_pages_ends(monkeypatch):
    page = write_strips([START, START + 2048])
    file = BytesIO()
    with Image.open(BytesIO(page)) as image:
        image.save(file, "TIFF", save_all=True, append_images=[image] * 5)
    record = Record(file.getvalue(), None, "pages")
    assert count_frames(record) == 6
    monkeypatch.setattr(overlaps, "COUNTING_SECONDS", -1)
    assert count_frames(record) == 1


def test_the_tags_that_others_read_by_pillow_are_not_limited():
    content = write_photograph("PNG", write_repeated_tags(4, 100_000))
    with Image.open(BytesIO(content)) as image:
        assert len(image.getexif()) == 4
    assert decode(Record(content, None, "noted")).size == (8, 8)


def test_what_a_camera_noted_is_still_read():
    turned = write_tiff([(274, 3, 1, 6), (282, 5, 1, START), (283, 5, 1, START)], struct.pack("<II", 72, 1))
    image = Image.new("RGB", (8, 4))
    file = BytesIO()
    image.save(file, "PNG", exif=turned)
    assert decode(Record(file.getvalue(), None, "turned")).size == (4, 8)
