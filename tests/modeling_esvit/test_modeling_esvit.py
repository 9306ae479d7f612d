# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What the EsViT classes promise beside the numbers of the backbone: sizes, errors, outputs, initial values, dtypes,
recomputation, compilation, export and offloading.
"""

import copy
import math

import numpy as np
import pytest
import torch
from accelerate import infer_auto_device_map
from PIL import Image
from transformers import AutoModelForPreTraining
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_esvit import (
    EsViTBackbone,
    EsViTConfig,
    EsViTForImageClassification,
    EsViTForPreTraining,
    EsViTInputError,
    EsViTModel,
)
from modeling_esvit.windows import index_relative_positions
from tests.helpers.tiny_models import CVT, VIL, VIT


def small_config(**fields):
    """Maps of 16, 8 and 4 tokens at 64 px, with window 4 and shifts in the first two stages."""
    sizes = {"image_size": 64, "embed_dim": 8, "depths": [2, 1, 2], "num_heads": [2, 2, 4], "window_size": 4}
    heads = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
    return EsViTConfig(**{**sizes, **heads, **fields})


@pytest.fixture
def batch():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "window", "parameters", "tensors"),
    [
        ("swin-tiny", 7, 27_519_354, 171),
        ("swin-tiny", 14, 27_569_754, 171),
        ("swin-small", 7, 48_837_258, 327),
        ("swin-small", 14, 48_968_298, 327),
        ("swin-base", 7, 86_743_224, 327),
        ("swin-base", 14, 86_917_944, 327),
        ("swin-large", 7, 194_995_476, 327),
    ],
)
def test_published_architectures(name, window, parameters, tensors):
    config = EsViTConfig.from_architecture(name, window_size=window)
    with torch.device("meta"):
        model = EsViTModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(list(model.parameters())) == tensors
    assert config.drop_path_rate == (0.1 if name == "swin-tiny" else 0.2)


# ---- inputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (None, "missing"),
        ([], "missing"),
        (torch.zeros(3, 64, 64), r"\(3, 64, 64\); expected \[batch, 3"),
        (torch.zeros(0, 3, 64, 64), r"\(0, 3, 64, 64\).*at least one image"),
        (torch.zeros(1, 4, 64, 64), r"\(1, 4, 64, 64\); expected \[batch, 3"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8; rescale and normalise"),
        ([torch.zeros(1, 3, 64, 64), [1.0]], "is a builtins.list, no tensor; make a tensor of it"),
        (np.zeros((1, 3, 64, 64), np.float32), r"is a numpy.ndarray, no tensor; pass torch.from_numpy\(array\)"),
        (Image.new("RGB", (64, 64)), "is a PIL.Image.Image, no tensor; make a tensor of it: AutoImageProcessor"),
        (torch.zeros(1, 3, 64, 3), "64 x 3 pixels is smaller than one patch of 4 x 4"),
    ],
)
def test_inputs_that_cannot_be_right(pixel_values, message):
    for model_class in (EsViTModel, EsViTForImageClassification, EsViTForPreTraining):
        with pytest.raises(EsViTInputError, match=message):
            model_class(small_config())(pixel_values)


def test_backbone_takes_one_tensor(batch):
    with pytest.raises(EsViTInputError, match="list of 2"):
        EsViTBackbone(small_config())([batch, batch])


def test_nan_stays_in_its_image(batch):
    batch[1, 0, 5, 5] = math.nan
    with torch.no_grad():
        output = EsViTModel(small_config()).eval()(batch).pooler_output
    assert output[0].isfinite().all() and output[1].isnan().all()


# ---- outputs ---------------------------------------------------------------------------------------------------------


def test_recorded_outputs():
    model = EsViTModel(small_config()).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, 50, 70), output_hidden_states=True, output_attentions=True)
    maps = [(2, 8, 12, 17), (2, 16, 6, 9), (2, 32, 3, 5), (2, 32, 3, 5)]
    assert [tuple(m.shape) for m in output.reshaped_hidden_states] == maps
    for state, reshaped in zip(output.hidden_states, output.reshaped_hidden_states, strict=True):
        torch.testing.assert_close(state, reshaped.flatten(2).transpose(1, 2))
    torch.testing.assert_close(model.encoder.norm(output.hidden_states[-1]), output.last_hidden_state)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(1))
    windows = [(2 * 3 * 5, 2, 16, 16)] * 2 + [(2 * 2 * 3, 2, 16, 16)] + [(2 * 1 * 2, 4, 16, 16)] * 2
    assert [tuple(weights.shape) for weights in output.attentions] == windows


@pytest.mark.parametrize("model_class", [EsViTBackbone, EsViTForImageClassification, EsViTForPreTraining])
def test_every_head_returns_attentions_and_hidden_states(model_class, batch):
    model = model_class(small_config()).eval()
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        output = model(batch, output_attentions=True, output_hidden_states=True)
        bare = model.esvit(batch, output_attentions=True, output_hidden_states=True)
        assert model(batch).attentions is None
    for weights, expected in zip(output.attentions, bare.attentions, strict=True):
        assert torch.equal(weights, expected)
    assert len(output.hidden_states) == len(bare.hidden_states) == 4


def test_backbone_maps(batch):
    names = ["stem", "stage1", "stage2", "stage3"]
    backbone = EsViTBackbone(small_config(out_features=names)).eval()
    assert backbone.channels == [8, 8, 16, 32] and list(backbone.hidden_states_norms) == names[:-1]
    with torch.no_grad():
        output = backbone(batch[..., :50])
        plain = backbone.esvit(batch[..., :50])
    assert [tuple(m.shape) for m in output.feature_maps] == [
        (2, 8, 16, 12),
        (2, 8, 16, 12),
        (2, 16, 8, 6),
        (2, 32, 4, 3),
    ]
    # The last map is the regions, after the pretrained final norm; the new norms start as plain LayerNorm.
    torch.testing.assert_close(output.feature_maps[-1].flatten(2).transpose(1, 2), plain.last_hidden_state)
    for feature_map in output.feature_maps[:-1]:
        torch.testing.assert_close(feature_map.mean(1), torch.zeros_like(feature_map[:, 0]), atol=1e-5, rtol=0)


def test_backbone_selects_stages(batch):
    everything = EsViTBackbone(small_config(out_features=["stem", "stage1", "stage2", "stage3"])).eval()
    some = EsViTBackbone(small_config(out_indices=[0, 2])).eval()
    assert some.out_features == ["stem", "stage2"]
    some.load_state_dict(everything.state_dict(), strict=False)
    with torch.no_grad():
        wanted, complete = some(batch).feature_maps, everything(batch).feature_maps
    assert len(wanted) == 2 and torch.equal(wanted[0], complete[0]) and torch.equal(wanted[1], complete[2])


def test_n_last_blocks(batch):
    model = EsViTModel(small_config()).eval()
    with torch.no_grad():
        widths = [model.n_last_blocks_features(batch, n).shape[1] for n in range(1, 6)]
        assert widths == [32, 64, 80, 88, 96]
        assert torch.equal(model.n_last_blocks_features(batch, 4)[:, -32:], model(batch).pooler_output)
    for n in (0, 6, 1.5, 2.0):
        with pytest.raises(ValueError, match=f"the 5 blocks of this model, got {n}"):
            model.n_last_blocks_features(batch, n)


def test_pretraining_outputs(batch):
    model = EsViTForPreTraining(small_config(head_batch_norm=True)).eval()
    with torch.no_grad():
        output = model([batch, torch.randn(3, 3, 32, 32)])
        torch.nn.init.uniform_(model.view_head.last_layer.weight_g, 0.5, 2.0)
        prototypes = model([batch]).view_prototypes
    assert output.region_features.shape == (2 * 16 + 3 * 4, 32) and output.view_embeddings.shape == (5, 8)
    for name in ("view_embeddings", "region_embeddings", "view_prototypes", "region_prototypes"):
        torch.testing.assert_close(output[name].norm(dim=1), torch.ones(len(output[name])))
    torch.testing.assert_close(prototypes.norm(dim=1), model.view_head.last_layer.weight_g[:, 0])
    assert "region_embeddings" not in EsViTForPreTraining(small_config(region_head=False))(batch)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([0, 3]), "single_label_classification"),
        (torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0]]), "multi_label_classification"),
    ],
)
def test_classification_loss(batch, labels, problem):
    model = EsViTForImageClassification(small_config(num_labels=4))
    output = model(batch, labels=labels)
    functional = torch.nn.functional
    loss = functional.cross_entropy if labels.ndim == 1 else functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(output.loss, loss(output.logits, labels))
    assert model.config.problem_type == problem


# ---- initial values --------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_initial_values(model):
    """Truncated normals of std 0.02 (cut at 2, so never seen cut), the uniform ones by their bound and their spread."""
    embed = model.esvit.encoder.patch_embed
    uniform = {embed.proj.weight: 1 / math.sqrt(48), embed.proj.bias: 1 / math.sqrt(48)}
    uniform |= {head.last_layer.weight_v: 1 / 16 for head in (model.view_head, model.region_head)}
    for parameter, bound in uniform.items():
        assert 0.9 * bound < parameter.abs().max() <= bound
        assert parameter.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std() == pytest.approx(0.02, rel=0.05) and module.weight.abs().max() > 0.06, name
            assert module.bias is None or (module.bias == 0).all(), name
    for stage in model.esvit.encoder.layers:
        for block in stage.blocks:
            assert block.attn.relative_position_bias_table.std() == pytest.approx(0.02, rel=0.15)
            assert torch.equal(block.attn.relative_position_index, index_relative_positions(block.attn.window))
    for head in (model.view_head, model.region_head):
        assert (head.last_layer.weight_g == 1).all() and not head.last_layer.weight_g.requires_grad
    assert not model.view_center.any() and not model.region_center.any()


WIDE = {"image_size": 112, "embed_dim": 96, "depths": [1, 2], "num_heads": [3, 6], "window_size": 7}
WIDE |= {"num_prototypes": 512, "head_hidden_size": 128, "head_bottleneck_size": 256}


def test_initial_values():
    torch.manual_seed(0)
    check_initial_values(EsViTForPreTraining(EsViTConfig(**WIDE)))


def test_initial_values_of_what_a_checkpoint_lacks(tmp_path):
    """Loading builds the model without memory, so that values which are not in the file are filled in afterwards."""
    torch.manual_seed(0)
    config = EsViTConfig(**WIDE, use_absolute_embeddings=True)
    source = EsViTModel(config)
    assert source.encoder.patch_embed.absolute_pos_embed.detach().std() == pytest.approx(0.02, rel=0.05)
    source.save_pretrained(tmp_path)
    model = AutoModelForPreTraining.from_pretrained(tmp_path)
    check_initial_values(model)
    for name, parameter in source.named_parameters():
        assert torch.equal(parameter, model.esvit.get_parameter(name))


# ---- copies and types ------------------------------------------------------------------------------------------------


def test_teacher_is_a_deep_copy(batch):
    student = EsViTForPreTraining(small_config(norm_last_layer=False))
    loss = student(batch).view_prototypes.sum()  # with the graph of a step alive
    teacher = copy.deepcopy(student).eval()
    loss.backward()
    with torch.no_grad():
        before = teacher(batch).view_embeddings
        for parameter in student.parameters():
            parameter.add_(1.0)
        assert torch.equal(teacher(batch).view_embeddings, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_is_kept(tmp_path, batch, dtype):
    EsViTForPreTraining(small_config()).to(dtype).save_pretrained(tmp_path)
    model = EsViTForPreTraining.from_pretrained(tmp_path).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    with torch.no_grad():
        output = model(batch.to(dtype))
        # open_clip issues 916 and 1021, accelerate issue 757: image processors give float32
        assert torch.equal(model(batch).view_embeddings, output.view_embeddings)
    assert output.region_features.dtype == dtype and output.view_embeddings.dtype == torch.float32
    assert output.view_embeddings.isfinite().all()
    assert EsViTForPreTraining.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


# ---- recomputation, compilation, export, offloading ------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_gradients_are_equal(batch, reentrant):
    model = EsViTForPreTraining(small_config(drop_path_rate=0.4)).double().train()
    groups = [batch.double(), torch.randn(3, 3, 40, 40, dtype=torch.float64)]

    def gradients():
        torch.manual_seed(1)  # the draws of DropPath, which recomputing must repeat
        model.zero_grad()
        output = model(groups)
        (output.view_embeddings[:, 0].sum() + output.region_embeddings[:, 1].sum()).backward()
        return [parameter.grad.clone() for parameter in model.esvit.parameters()]

    plain = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    for one, other in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


COMPILED = {"depths": [2, 1], "num_heads": [2, 2]}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_compiles_without_graph_break(batch, backend):
    model = EsViTModel(small_config(**COMPILED)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        output = compiled(batch, output_hidden_states=True)  # before anything has been recorded
        expected = model(batch, output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-5)
    for state, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_pretraining_step_compiles_without_graph_break(batch):
    model = EsViTForPreTraining(small_config(**COMPILED, drop_path_rate=0.0)).train()
    groups = [batch, torch.randn(3, 3, 36, 36)]

    def gradients(forward):
        output = forward(groups)
        loss = output.view_embeddings[:, 0].sum() + output.region_embeddings[:, 1].sum() + output.view_prototypes.sum()
        return torch.autograd.grad(loss, list(model.esvit.parameters()))

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for one, other in zip(gradients(compiled), gradients(model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_exports_with_dynamic_batch(batch):
    model = EsViTModel(small_config(**COMPILED)).eval()
    program = torch.export.export(
        model, (batch,), dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    )
    for size in (1, 5):
        images = torch.randn(size, 3, 64, 64)
        with torch.no_grad():
            output, expected = program.module()(images), model(images)
        torch.testing.assert_close(output["last_hidden_state"], expected.last_hidden_state)
        torch.testing.assert_close(output["pooler_output"], expected.pooler_output)


def test_parts_on_disk_give_the_same(tmp_path, batch):
    """At 44 px the windows are padded with what the projection makes of zeros, whose bias is not in memory here."""
    model = EsViTForPreTraining(small_config()).eval()
    model.save_pretrained(tmp_path / "model")
    places = {"esvit.encoder.patch_embed": "cpu", "esvit.encoder.layers": "disk", "esvit.encoder.norm": "cpu"}
    places |= {"view_head": "disk", "region_head": "cpu", "view_center": "cpu", "region_center": "cpu"}
    loaded = EsViTForPreTraining.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    ).eval()
    assert loaded.esvit.encoder.layers[0].blocks[0].attn.qkv.bias.is_meta
    with torch.no_grad():
        output, expected = loaded([batch[..., :44]]), model([batch[..., :44]])
    torch.testing.assert_close(output.view_embeddings, expected.view_embeddings)
    torch.testing.assert_close(output.region_prototypes, expected.region_prototypes)


@pytest.mark.parametrize("fields", [{}, VIT, VIL, CVT], ids=["swin", "vit", "vil", "cvt"])
def test_no_block_is_split_between_devices(fields):
    """transformers issues 29786 and 31400: where `device_map="auto"` cuts a block, its two branches cannot be added."""
    model = EsViTModel(EsViTConfig(**fields) if fields else small_config())
    total = sum(parameter.nbytes for parameter in model.parameters())
    blocks = [name for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    cuts = set()
    for share in range(1, 100):
        memory = {0: total * share // 50, 1: 2 * total}
        places = infer_auto_device_map(model, memory, no_split_module_classes=list(model._no_split_modules))
        cuts |= {block for block in blocks for name in places if name.startswith(f"{block}.")}
    assert len(blocks) > 1 and cuts == set()
