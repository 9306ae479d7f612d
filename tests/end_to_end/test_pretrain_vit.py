# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of a ViT: steps of both tasks, recomputation, and all that is done with the result."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, read_losses, write_images
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining


NETWORK = "--architecture deit-tiny --patch_size 8 --image_size 32 --embed_dim 16 --depths 3 --num_heads 2"


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.mark.parametrize("changes", ["", "--gradient_checkpointing", "--task view"])
def test_three_steps_and_all_that_is_done_with_the_result(images, tmp_path, changes):
    """Saved, loaded by the Auto classes and by the pipeline: the view feature is the class token, not the mean."""
    paths = ["--data", str(images), "--output_dir", str(tmp_path)]
    given = f"{NETWORK} {HEADS} {CROPS} {LENGTH} {MEANS} --max_steps 3 --save_every 1 {changes}"
    run = Pretraining(parse_options([*paths, *given.split()]))
    run.run()
    losses = read_losses(tmp_path)
    assert len(losses) == 3 and all(torch.tensor(losses).isfinite())
    states = [load_file(tmp_path / f"checkpoints/step-0000000{n}/student/model.safetensors") for n in (2, 3)]
    moved = {name for name, value in states[1].items() if not torch.equal(value, states[0][name])}
    assert {"esvit.encoder.cls_token", "esvit.encoder.pos_embed", "esvit.encoder.blocks.2.mlp.fc2.weight"} <= moved
    loaded = AutoModel.from_pretrained(tmp_path / "teacher").eval()
    pixels = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        output, expected = loaded(pixels), run.learner.teacher.esvit.eval()(pixels)
    torch.testing.assert_close(output.pooler_output, expected.pooler_output)
    assert output.last_hidden_state.shape == (2, 5 * 7, 16)
    assert not torch.allclose(output.pooler_output, output.last_hidden_state.mean(dim=1))
    features = pipeline("image-feature-extraction", model=str(tmp_path / "teacher"))
    image = Image.open(next(images.iterdir())).convert("RGB")
    assert features(image, pool=True, return_tensors=True).shape == (1, 16)
