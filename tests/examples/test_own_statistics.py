# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks statistics of a model's BatchNorms against those of all images at once, and the folder that is written."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from examples.own_statistics import CHANGE, OwnStatisticsError, main, take_statistics
from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.images.data_errors import EmptySourceError
from modeling_esvit.storage.weights_record import WeightsRecord, read_weights_record, write_weights_record
from tests.helpers.tiny_models import HEADS, RESNET, VIT
from tests.helpers.tiny_runs import tiny_options, write_images
from training.options.pretrain_options import save_options


def save_model(folder, **fields) -> None:
    torch.manual_seed(0)
    EsViTForPreTraining(EsViTConfig(**HEADS, **fields)).save_pretrained(folder)


def test_every_image_counts_alike_and_nothing_of_before():
    """The first norm sees the images themselves; batches have different sizes and one mean."""
    norm = nn.BatchNorm2d(3, momentum=0.3)
    model = nn.Sequential(norm, nn.Dropout(0.5))
    norm.running_mean.fill_(7)
    batches = [torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(n)) for n in (2, 6)]
    assert take_statistics(model, batches) == 8
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches])
    torch.testing.assert_close(norm.running_mean, torch.cat(batches).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, (variances * torch.tensor([[2 / 8], [6 / 8]])).sum(0))
    assert norm.momentum == 0.3 and not any(module.training for module in model.modules())


def test_only_statistics_differ(images, tmp_path, capsys):
    save_model(tmp_path / "model", architecture="auto", backbone_config=RESNET, image_size=32)
    write_weights_record(tmp_path / "model", WeightsRecord("ada/resnet", license="mit"))
    main([str(tmp_path / "model"), str(images), "--output", str(tmp_path / "own"), "--batch_size", "5"])
    assert "with the statistics of 25 images" in capsys.readouterr().out
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "own"))
    same = {name: torch.equal(tensor, before[f"esvit.{name}"]) for name, tensor in after.items()}
    assert {name for name, equal in same.items() if not equal} == {name for name in after if is_statistic(name)}
    record = read_weights_record(tmp_path / "own")
    assert (record.source, record.license) == ("ada/resnet", "mit") and "BatchNorms" in record.changes


def test_the_model_of_a_run_keeps_what_is_recorded_of_it(tmp_path):
    """The run's folder, which stands for its model, says where the weights came from."""
    images = write_images(tmp_path / "images", 5)
    save_model(tmp_path / "run" / "teacher", architecture="auto", backbone_config=RESNET, image_size=32)
    save_options(tiny_options(images, tmp_path / "run"), tmp_path / "run" / "options.yaml")
    for place in ("run", "run/teacher"):
        output = tmp_path / f"own-{len(place)}"
        main([str(tmp_path / place), str(images), "--output", str(output), "--batch_size", "5"])
        record = read_weights_record(output)
        assert record.by_esvit and record.is_teacher and "random weights" in record.training
        assert record.changes == CHANGE


def test_an_unreadable_image_costs_no_other_one(tmp_path, capsys):
    """Of two batches of two images, one image each can be read."""
    images = write_images(tmp_path / "images", 4)
    save_model(tmp_path / "model", architecture="auto", backbone_config=RESNET, image_size=32)
    for name in ("01.png", "03.png"):
        (images / name).write_bytes(b"no image")
    main([str(tmp_path / "model"), str(images), "--output", str(tmp_path / "own"), "--batch_size", "2"])
    assert "with the statistics of 2 images" in capsys.readouterr().out


def is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def test_refused(images, tmp_path):
    save_model(tmp_path / "vit", **VIT)
    with pytest.raises(OwnStatisticsError, match="EsViTModel has no BatchNorms, .*nothing to change"):
        main([str(tmp_path / "vit"), str(images), "--output", str(tmp_path / "own")])
    with pytest.raises(OwnStatisticsError, match="vit exists: name another folder"):
        main([str(tmp_path / "vit"), str(images), "--output", str(tmp_path / "vit")])
    save_model(tmp_path / "model", architecture="auto", backbone_config=RESNET, image_size=32)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with pytest.raises(OwnStatisticsError, match="batch_size is 1, but one image has no variance"):
        main([str(tmp_path / "model"), str(images), "--output", str(tmp_path / "own"), "--batch_size", "1"])
    with pytest.raises(EmptySourceError, match="statistics take two images that can be read, and of the 1 here"):
        main([str(tmp_path / "model"), str(tmp_path / "broken"), "--output", str(tmp_path / "own")])
    assert not (tmp_path / "own").exists()
