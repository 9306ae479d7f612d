# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the files of a model can only ask for so much; `tests/attack` tries thousands of them."""

import json
import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.model_limits import (
    BESIDE,
    MOST_TENSORS,
    SHARE,
    ModelLimitError,
    bound_build,
    check_counts,
    check_sizes,
    count_stored,
)
from modeling_esvit.images.models import NoImageModelError, load_image_model
from tests.helpers.tiny_runs import write_model


def test_counts_of_a_configuration():
    for fields, said in (
        ({"model_type": "esvit", "num_labels": 10**12}, "num_labels in its config.json is 1000000000000"),
        ({"model_type": "dinov2", "num_hidden_layers": 10**9}, "num_hidden_layers .* is 1000000000"),
        ({"model_type": "resnet", "depths": [1, 2**13]}, "depths .* is 8192, more than 4096"),
        ({"backbone_config": {"model_type": "dinov2", "num_hidden_layers": 5000}}, "num_hidden_layers .* is 5000"),
        ({"backbone_config": {"depths": [2**21]}}, "backbone_config"),
        ({"model_type": ["no", "type"], "num_labels": 2**21}, "num_labels"),
    ):
        with pytest.raises(ModelLimitError, match=said):
            check_counts(fields)
    check_counts({"model_type": "dinov2", "seed": 20_261_129, "num_labels": 21_841, "hidden_size": 4096})


def test_a_network_has_about_the_size_of_its_weights(tmp_path):
    write_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(1000))
    stored = count_stored(tmp_path)
    assert 500 < stored < 100_000
    with torch.device("meta"):
        with bound_build(lambda: stored):
            nn.Linear(SHARE * stored, 1)
        wide = SHARE * stored + BESIDE
        with pytest.raises(ModelLimitError, match=f"a network of {wide + 1} numbers .* at most {stored}"):
            with bound_build(lambda: stored):
                nn.Linear(wide + 1, 1)
        nn.Linear(wide + 1, 1)  # the limit ends with the block


def test_a_network_of_more_tensors_than_any_is_not_built():
    with torch.device("meta"), pytest.raises(ModelLimitError, match=f"more than {MOST_TENSORS} tensors"), bound_build():
        while True:
            nn.LayerNorm(1)


def test_other_threads_have_no_limit():
    with bound_build(lambda: 0), torch.device("meta"):
        built = []
        thread = threading.Thread(target=lambda: built.append(nn.Linear(2**13, 2**13, device="meta")))
        thread.start()
        thread.join()
    assert built


def check_fields(**fields):
    check_sizes(SimpleNamespace(to_dict=lambda: fields))


def test_sizes_of_images():
    for fields in ({"crop_size": {"height": 224, "width": 10**6}}, {"size": {"shortest_edge": 4096}}, {"size": 4096}):
        with pytest.raises(ModelLimitError, match="size of its image processor is .*, more than 2560 pixels"):
            check_fields(**fields)
    check_fields(size={"height": 2560, "width": 1920})  # of Donut
    check_fields(size={"shortest_edge": 1024, "height": None}, resample=10**9)


def test_pieces_of_images():
    for fields, said in (
        ({"max_num_patches": 300_000, "patch_size": 16}, "max_num_patches .* is 300000, more than 16384"),
        ({"max_image_tiles": 2000, "size": {"height": 560}}, "max_image_tiles .* is 2000, more than 106"),
        ({"max_patches": 2000, "crop_to_patches": True, "size": 448}, "max_patches .* is 2000, more than 167"),
        ({"max_crops": 10**9}, "max_crops"),
        ({"max_num_patches": 20_000, "encoder_patch_size": 16}, "max_num_patches .* is 20000, more than 16384"),
        ({"max_num_patches": 2000, "temporal_patch_size": 1, "size": 448}, "max_num_patches .* is 2000, more than 167"),
        ({"min_pixels": 40_000_000}, "min_pixels .* is 40000000, more than 4194304"),
        ({"max_image_tokens": 10**6}, "max_image_tokens"),
        ({"ensure_multiple_of": 10**6}, "more than 2560 pixels"),
        ({"image_grid_pinpoints": [[10**6, 336]]}, "more than 4096 pixels"),
    ):
        with pytest.raises(ModelLimitError, match=said):
            check_fields(**fields)
    check_fields(max_image_tiles=4, size={"height": 560, "width": 560}, do_center_crop=True, image_seq_length=10**6)
    # What processors of transformers ask for: NemotronH, Siglip2, Kimi, Glm5Next, Pix2Struct, Gemma4, Lfm2Vl, Step3.
    check_fields(max_num_patches=13312, patch_size=16)
    check_fields(max_num_patches=256, patch_size=16, tile_size=512, max_tiles=10)
    check_fields(max_patches=16384, patch_size=14)
    check_fields(max_image_tokens=8000, patch_size=14, temporal_patch_size=2, merge_size=2)
    check_fields(max_patches=2048, patch_size={"height": 16, "width": 16})
    check_fields(max_soft_tokens=280, patch_size=16, pooling_kernel_size=3)
    check_fields(max_num_patches=1024, encoder_patch_size=16, tile_size=512, max_tiles=10, max_image_tokens=256)
    check_fields(max_num_patches=2704, vision_patch_size=14, size={"height": 728, "width": 728})


def test_a_processor_of_endless_patches_is_refused_before_it_makes_any(tmp_path):
    write_model(tmp_path)
    fields = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 300_000}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(EsViTError, match="max_num_patches of its image processor is 300000"):
        load_image_model(str(tmp_path))


def test_names_of_tensors_do_not_reach_the_terminal(tmp_path, capfd):
    """transformers shows those that it does not know."""
    file = write_model(tmp_path) / "model.safetensors"
    save_file({**load_file(file), "\x1b]0;mine\x07": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(NoImageModelError, match=r"model.safetensors has a tensor with the name '\\x1b\]0;mine"):
        load_image_model(str(tmp_path))
    assert "\x1b]0;mine" not in "".join(capfd.readouterr())
