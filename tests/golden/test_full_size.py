# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares Swin-T, ViL and DeiT-S at full size, a projection head and both losses to printed digits, in float64.

The original (microsoft/esvit, MIT) printed them for weights and inputs that a hash function defines.
"""

import math

import numpy as np
import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.losses import esvit_loss, update_center
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput
from modeling_esvit.projection_head import EsViTProjectionHead


def hash_values(count: int, stream: int) -> torch.Tensor:
    """Returns `count` float64 values of [-0.5, 0.5): the murmur finaliser of position and stream."""
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + np.uint64(stream * 40503 + 1)).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(h / 2.0**32 - 0.5)


def rows(count: int, width: int, stream: int) -> torch.Tensor:
    return 2 * hash_values(count * width, stream).view(count, width)


def make_images(size: int) -> torch.Tensor:
    return 2 * hash_values(2 * 3 * size * size, 999).view(2, 3, size, size)


def fill(module: torch.nn.Module) -> None:
    """Fills each parameter from the stream of its rank among the sorted keys, by way of float32 as in the original."""
    for stream, (key, parameter) in enumerate(sorted(module.named_parameters())):
        value = hash_values(parameter.numel(), stream).view_as(parameter)
        if "relative_position_bias" in key:
            value = 2 * value
        elif key.endswith(".bias"):
            value = 0.2 * value
        elif key.endswith(".weight") and parameter.ndim == 1:
            value = 1 + 0.2 * value
        else:
            value = 2 * value / math.sqrt(math.prod(parameter.shape[1:]))
        with torch.no_grad():
            parameter.copy_(value.float())


def assert_printed(tensor: torch.Tensor, shape: tuple[int, ...], figures: str) -> None:
    """Checks the shape and, to the printed digits, mean, standard deviation, first four and last two entries."""
    assert tensor.shape == shape and tensor.dtype == torch.float64
    flat = tensor.flatten()
    ours = torch.cat([torch.stack([flat.mean(), flat.std()]), flat[:4], flat[-2:]])
    printed = torch.tensor([float(digits) for digits in figures.split()], dtype=torch.float64)
    torch.testing.assert_close(ours, printed, rtol=0, atol=5.1e-7)


def test_hash_values():
    printed = [-0.1824011377, 0.1495855956, -0.4459427700, -0.1088828717, -0.4825425569, -0.3803973557, 0.0498137078]
    ours = torch.cat([hash_values(4, 0), hash_values(3, 7)])
    torch.testing.assert_close(ours, torch.tensor(printed, dtype=torch.float64), rtol=0, atol=5.1e-11)


# Window; output, image size, shape, and mean, standard deviation, first four and last two entries.
SWIN_TINY = {
    7: [
        ("pooled", 224, (2, 768), "+0.001076  0.837990  -1.600016 -2.995806 1.083517 -0.258448  0.700902 0.059215"),
        (
            "tokens",
            224,
            (2, 49, 768),
            "+0.001076  1.001005  -1.012563 -3.404046 0.634038 -0.591902  -0.091148 0.333146",
        ),
        ("pooled", 96, (2, 768), "+0.000681  0.721260  -0.975313 -2.588141 0.693551 -0.719011  0.686364 -0.608031"),
        ("tokens", 96, (2, 9, 768), "+0.000681  1.002869  -1.372728 -2.501997 1.718754 -0.415298  -0.000676 -1.541014"),
        ("n_last_4", 224, (2, 2304), "+0.006353  0.779538  -0.471669 -0.943594 -1.231135 0.945889  0.700902 0.059215"),
        (
            "attention_11",
            224,
            (2, 24, 49, 49),
            "0.020408  0.012286  0.006573 0.041918 0.029639 0.008081  0.009122 0.021377",
        ),
        (
            "attention_1",
            96,
            (32, 3, 49, 49),
            "0.020408  0.021815  0.029691 0.006591 0.028895 0.008332  0.087225 0.245165",
        ),
        (
            "attention_5",
            96,
            (2, 12, 49, 49),
            "0.020408  0.043345  0.157659 0.065910 0.016571 0.090252  0.037979 0.163933",
        ),
    ],
    14: [
        ("pooled", 224, (2, 768), "+0.001098  0.847619  -1.654273 -3.056027 1.110307 -0.263676  0.662156 0.060726"),
        (
            "tokens",
            224,
            (2, 49, 768),
            "+0.001098  1.000758  -1.047308 -3.398030 0.506326 -0.755800  -0.072923 0.353475",
        ),
        ("pooled", 96, (2, 768), "+0.001155  0.632924  -0.850873 -2.141453 0.090643 -0.372934  0.666691 -0.759100"),
        ("tokens", 96, (2, 9, 768), "+0.001155  1.003829  -1.225189 -1.816600 0.326042 0.287289  0.077321 -1.999294"),
        ("n_last_4", 224, (2, 2304), "+0.006552  0.789532  -0.499128 -0.969930 -1.260373 0.977357  0.662156 0.060726"),
        (
            "attention_1",
            96,
            (8, 3, 196, 196),
            "0.005102  0.007399  0.006200 0.004431 0.002081 0.002183  0.024498 0.010818",
        ),
        (
            "attention_5",
            96,
            (2, 12, 196, 196),
            "0.005102  0.002907  0.009337 0.001954 0.002996 0.006410  0.001508 0.003265",
        ),
    ],
}


def outputs(model: EsViTModel, size: int) -> dict[str, torch.Tensor]:
    output = model(make_images(size), output_attentions=True)
    return {
        "pooled": output.pooler_output,
        "tokens": output.last_hidden_state,
        "n_last_4": model.n_last_blocks_features(make_images(size), 4),
        **{f"attention_{block}": weights for block, weights in enumerate(output.attentions)},
    }


@pytest.mark.slow
@pytest.mark.parametrize("window", [7, 14])
@torch.no_grad()
def test_swin_tiny(window):
    model = EsViTModel(EsViTConfig.from_architecture("swin-tiny", window_size=window)).double().eval()
    fill(model.encoder)
    ours = {size: outputs(model, size) for size in (224, 96)}
    for name, size, shape, figures in SWIN_TINY[window]:
        assert_printed(ours[size][name], shape, figures)


VIL_TINY = [
    ("pooled", 224, (2, 768), "-0.000826 0.544869  -0.380425 0.747314 -0.378982 0.052931  -0.322180 -0.218802"),
    ("tokens", 224, (2, 49, 768), "-0.000826 1.001642  -1.821933 1.364012 -0.602537 1.098291  -1.340473 -0.105528"),
    ("pooled", 96, (2, 768), "-0.001609 0.619775  -0.389813 0.809550 -0.309779 -0.313333  -0.316526 -0.580770"),
    ("tokens", 96, (2, 9, 768), "-0.001609 1.001691  -0.954127 2.170334 0.360173 0.405343  -1.401292 0.375932"),
    ("n_last_4", 224, (2, 2304), "+0.004456 0.543991  0.032404 0.023767 1.182680 -0.354038  -0.322180 -0.218802"),
]


@pytest.mark.slow
@torch.no_grad()
def test_vil_tiny():
    model = EsViTModel(EsViTConfig.from_architecture("vil-tiny")).double().eval()
    fill(model.encoder)
    ours = {size: outputs(model, size) for size in (224, 96)}
    for name, size, shape, figures in VIL_TINY:
        assert_printed(ours[size][name], shape, figures)


DEIT_SMALL = [
    ("pooled", 224, (2, 384), "-0.000199 0.993887  0.795749 0.430913 -0.639381 -0.449996  0.375462 0.417701"),
    ("tokens", 224, (2, 196, 384), "-0.001000 0.996140  0.717464 -0.014036 -0.445510 -0.117230  -0.372032 -0.235677"),
    ("pooled", 96, (2, 384), "-0.000986 0.998380  0.171708 0.050079 -0.267990 -0.316727  0.783852 0.400967"),
]


@pytest.mark.slow
@torch.no_grad()
def test_deit_small():
    model = EsViTModel(EsViTConfig.from_architecture("deit-small")).double().eval()
    fill(model.encoder)
    ours = {size: outputs(model, size) for size in (224, 96)}
    for name, size, shape, figures in DEIT_SMALL:
        assert_printed(ours[size][name], shape, figures)


@torch.no_grad()
def test_projection_head():
    head = EsViTProjectionHead(EsViTConfig(embed_dim=96, depths=[1], num_heads=[1], num_prototypes=128)).double().eval()
    fill(head)
    logits = head(rows(5, 96, 999)) @ head.last_layer().T
    assert_printed(logits, (5, 128), "-0.001866 0.033509  -0.004292 0.005405 -0.051803 -0.006666  0.000470 0.019019")


def logits_as_embeddings(view: torch.Tensor, region: torch.Tensor, features: torch.Tensor) -> EsViTForPreTrainingOutput:
    """Returns logits as embeddings: with the identity as prototypes they are the same."""
    identity = torch.eye(view.shape[1], dtype=view.dtype)
    return EsViTForPreTrainingOutput(
        view_embeddings=view,
        view_prototypes=identity,
        region_features=features,
        region_embeddings=region,
        region_prototypes=identity,
    )


LAYOUT = [(2, 9), (2, 4)]  # two images, two global crops with 9 regions and two local ones with 4: 52 student regions
CENTERS = {"view_center": 0.2 * hash_values(64, 1), "region_center": 0.2 * hash_values(64, 2)}


def student_and_teacher() -> tuple[EsViTForPreTrainingOutput, EsViTForPreTrainingOutput]:
    student = logits_as_embeddings(rows(8, 64, 3), rows(52, 64, 4), rows(52, 16, 5))
    teacher = logits_as_embeddings(rows(4, 64, 6), rows(36, 64, 7), rows(36, 16, 8))
    return student, teacher


@pytest.mark.parametrize(
    "teacher_temp, region_weight, printed",
    [(0.04, 0.5, 11.407493693), (0.055, 0.5, 11.587170949), (0.07, 0.5, 11.686007821), (0.07, 0.0, 12.289467001)],
)
def test_losses(teacher_temp, region_weight, printed):
    loss = esvit_loss(
        *student_and_teacher(), LAYOUT, **CENTERS, teacher_temp=teacher_temp, region_weight=region_weight
    ).loss
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(printed, rel=0, abs=5.1e-10)


def test_loss_of_mixed_views():
    """The original's targets were [[0.7, 0.3], [0.3, 0.7]] for every crop, in float32."""
    mixing = torch.full((4,), 0.7)
    loss = esvit_loss(
        *student_and_teacher(), LAYOUT, **CENTERS, teacher_temp=0.07, region_weight=0.0, mixing=mixing
    ).loss
    assert loss.item() == pytest.approx(12.383648077, rel=0, abs=5.1e-10)


def test_centers():
    _, teacher = student_and_teacher()
    printed = {"view": [0.06679596, -0.01427296, 0.05721749], "region": [-0.02508026, -0.01713615, -0.07160805]}
    for task, first in printed.items():
        center = CENTERS[f"{task}_center"].clone()
        update_center(center, teacher[f"{task}_embeddings"], teacher[f"{task}_prototypes"])
        torch.testing.assert_close(center[:3], torch.tensor(first, dtype=torch.float64), rtol=0, atol=5.1e-9)
