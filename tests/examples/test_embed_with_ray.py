# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `embed_with_ray.py` on a local Ray with two actors."""

import subprocess
import sys

import numpy as np
import pytest

from modeling_esvit.embed.embedder import Embedder, embed
from modeling_esvit.embed.files import load_features
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import write_images, write_model


pytestmark = pytest.mark.slow
pytest.importorskip("ray")


def start(*arguments):
    command = [sys.executable, "-u", ROOT / "examples" / "embed_with_ray.py", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_two_actors_continue_a_stopped_call(tmp_path):
    """The first call computes all parts and fails at the end; the next one computes the two that are lost then."""
    model, images = write_model(tmp_path / "model"), write_images(tmp_path / "images", 24)
    (images / "broken.png").write_bytes(b"no image")
    output, report = tmp_path / "features.parquet", tmp_path / "features.parquet.unreadable.txt"
    command = [model, images, "--output", output, "--part_size", 5, "--dtype", "float32", "--actors", 2]
    with start(*command) as stopped:
        assert stopped.stdout.readline() == "5 of 5 parts are to be computed, 25 images in all.\n"
        report.mkdir()  # where a file is to be written, in the end
        _, error = stopped.communicate(timeout=600)
    assert stopped.returncode == 1 and error.splitlines()[-1].startswith("error: "), error
    report.rmdir()
    output.unlink(missing_ok=True)
    for number in (1, 4):
        (tmp_path / "features.parquet.parts" / f"part-{number:08d}.safetensors").unlink()
    with start(*command) as done:
        said, error = done.communicate(timeout=600)
    assert done.returncode == 0, error
    assert "2 of 5 parts are to be computed" in said and "24 of 25 images" in said
    expected = embed(Embedder.from_pretrained(str(model), dtype="float32"), str(images))
    found = load_features(output)
    assert found.names == expected.names
    np.testing.assert_allclose(found.view, expected.view, atol=1e-5)
    assert "broken.png" in report.read_text()
    assert not (tmp_path / "features.parquet.parts").exists()
