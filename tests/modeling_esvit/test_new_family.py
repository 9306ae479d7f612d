# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Adds a family of architectures in one file and one row, this one, and takes it through pretraining."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

from modeling_esvit import EsViTArchitectureError, EsViTConfig
from modeling_esvit.analysis.attention_maps import AttentionLayoutError, block_attentions
from modeling_esvit.analysis.token_places import region_stride, regions_of
from modeling_esvit.families import ARCHITECTURES, FAMILIES, register_family
from modeling_esvit.family import NETWORK_OPTIONS, Family, make_patch_grid
from modeling_esvit.tokens import EncoderOutput, EsViTInputError, EsViTMLP, EsViTStage, pack_groups, pool_groups, to_map
from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, read_losses, write_images
from training.pretrain import main


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class ToyBlock(EsViTStage):
    """A residual MLP of each token."""

    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim)
        self.mlp = EsViTMLP(config, config.embed_dim)

    def forward(self, tokens):
        return tokens + self.mlp(tokens, self.norm)


class ToyEncoder(nn.Module):
    """Patches, and blocks that never mix them: the feature of a region depends on its own pixels alone."""

    def __init__(self, config):
        super().__init__()
        self.patch_size = config.patch_size
        self.patches = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.blocks = nn.ModuleList(ToyBlock(config) for _ in range(config.depths[0]))
        self.norm = nn.LayerNorm(config.embed_dim)

    def input_embedding(self):
        return self.patches

    def check_size(self, height, width):
        if min(height, width) < self.patch_size:
            raise EsViTInputError(f"{height} x {width} pixels are less than a patch.")

    def forward(self, crops, request):
        maps = [self.patches(images).permute(0, 2, 3, 1) for images in crops]
        grids = [tuple(each.shape[:3]) for each in maps]
        states = [pack_groups(maps)]
        for block in self.blocks:
            states.append(block(states[-1]))
        tokens = self.norm(states[-1])
        maps = tuple(to_map(state, grids) for state in states) if request.maps else None
        return EncoderOutput(tokens, grids, pool_groups(tokens, grids), maps)


TOY = Family(
    key="toy",
    name="Toy",
    encoder=ToyEncoder,
    variants={"toy-tiny": {"embed_dim": 12, "depths": [2], "num_heads": [1], "patch_size": 8}},
    options=(*NETWORK_OPTIONS, "patch_size"),
    identity=("embed_dim", "depths", "patch_size"),
    token_grids=lambda config, height, width: [
        make_patch_grid(height // config.patch_size, width // config.patch_size, config.patch_size)
    ],
    validate=lambda config: None,
    unseen=lambda config: {"hidden_act": config.hidden_act},
    stages=lambda config: dict.fromkeys(["stem", "stage1", "stage2"], config.embed_dim),
)


@pytest.fixture
def toy() -> Iterator[None]:
    register_family(TOY)
    yield
    del FAMILIES["toy"], ARCHITECTURES["toy-tiny"]


def test_three_steps_and_the_places_of_its_regions(toy, tmp_path: Path):
    images = write_images(tmp_path / "images")
    paths = ["--data", str(images), "--output", str(tmp_path / "run")]
    given = f"--architecture toy-tiny {HEADS} {CROPS} {LENGTH} {MEANS} --image_size 32 --max_steps 3 --save_every 1"
    main([*paths, *given.split()])
    losses = read_losses(tmp_path / "run")
    assert len(losses) == 3 and torch.tensor(losses).isfinite().all()
    steps = [load_file(tmp_path / f"run/checkpoints/step-0000000{n}/student/model.safetensors") for n in (2, 3)]
    moved = {name for name, value in steps[1].items() if not torch.equal(value, steps[0][name])}
    assert "esvit.encoder.blocks.1.mlp.fc2.weight" in moved

    model = AutoModel.from_pretrained(tmp_path / "run" / "teacher").eval()
    assert isinstance(model.encoder, ToyEncoder) and region_stride(model.config) == 8
    image = torch.randn(1, 3, 44, 61)
    with torch.no_grad():
        regions, places = regions_of(model, image)
        assert places.grid == model.config.region_grid(44, 61) == (5, 7) and regions.shape == (1, 35, 12)
        for x, y, token in ((0, 0, 0), (20, 9, 9), (55, 39, 34)):
            assert places.token_at(x, y) == token
            changed = image.clone()
            changed[:, :, y, x] += 1
            moved = (regions_of(model, changed)[0] - regions).abs().amax(dim=(0, 2)) > 0
            assert moved.nonzero().flatten().tolist() == [token]
    assert len(model(image, output_hidden_states=True).hidden_states) == 3
    with pytest.raises(AttentionLayoutError, match="returns no attention weights"):
        block_attentions(model, image)


def test_options_of_other_families_are_refused(toy):
    with pytest.raises(EsViTArchitectureError, match="window_size is for a Swin or CvT or ViL; not for a Toy"):
        EsViTConfig.from_architecture("toy-tiny", window_size=7)
    with pytest.raises(EsViTArchitectureError, match="patch_size is for a Swin or ViL or ViT or Toy; not for a CvT"):
        EsViTConfig.from_architecture("cvt-tiny", patch_size=8)
