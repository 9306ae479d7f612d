# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention maps: what a map shows is what an output depends on, found by changing one token at a time."""

import pytest
import torch
from transformers import AutoModel, Dinov2Config, SwinConfig, ViTConfig

from modeling_esvit import EsViTBackboneError, EsViTConfig, EsViTForImageClassification, EsViTModel
from modeling_esvit.analysis.attention_maps import AttentionLayoutError, block_attentions, mass_mask
from modeling_esvit.analysis.token_places import TokenPlacesError
from tests.helpers.cvt_models import tiny_config


SWIN = {"architecture": "swin", "image_size": 64, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
SWIN |= {"window_size": 4, "drop_path_rate": 0.0}
VIL = {"architecture": "vil", "image_size": 64, "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]}
VIL |= {"window_size": 3, "drop_path_rate": 0.0}
DINO = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
CONFIGS = {
    "swin": lambda: EsViTConfig(**SWIN),
    "vil": lambda: EsViTConfig(**VIL),
    "vil exact": lambda: EsViTConfig(**VIL, vil_exact_window=True),
    "vil own": lambda: EsViTConfig(**VIL, vil_mode=-1),
    "vil positions": lambda: EsViTConfig(**VIL, absolute_positions=[1] * len(VIL["depths"])),
    "cvt": lambda: tiny_config(window_size=3),
    "vit": lambda: EsViTConfig.from_architecture("deit-tiny", image_size=64, embed_dim=8, depths=[2], num_heads=[2]),
    "dinov2": lambda: EsViTConfig(architecture="auto", backbone_config={**DINO, "image_size": 64}),
}
SIZES = {"whole windows": (64, 64), "padded": (72, 104)}  # at a stride of 4: 16 x 16 and 18 x 26 tokens


def make_model(name: str, seed: int = 0) -> EsViTModel:
    torch.manual_seed(seed)
    model = EsViTModel(CONFIGS[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.double().eval()


def attention_modules(model: EsViTModel) -> list[torch.nn.Module]:
    return [m for m in model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "proj")]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_map_is_a_distribution(name, size):
    model = make_model(name)
    for block in block_attentions(model, torch.randn(2, 3, *size, dtype=torch.float64)):
        maps = [block.token_map(token) for token in range(block.num_tokens + block.num_global)]
        for each in maps:
            total = each.tokens.sum(dim=(2, 3)) + each.to_global.sum(dim=2) + each.to_padding
            torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
        mean = torch.stack([each.tokens for each in maps[: block.num_tokens]]).mean(dim=0)
        torch.testing.assert_close(block.received(), mean, rtol=0, atol=1e-7)
        assert maps[0].image.shape[2:] == size


def swin_block(model, stage: int, block: int):
    """A function of the tokens `[1, h, w, C]` of one attention, its residual left out."""
    module = model.encoder.layers[stage]

    def attention(tokens: torch.Tensor) -> torch.Tensor:
        grid = (1, *tokens.shape[1:3])
        masks = module.make_shift_masks([grid], tokens)
        packed = tokens.flatten(1, 2)
        return module.blocks[block].attn(packed, torch.nn.Identity(), [grid], masks, {})[0].view(tokens.shape)

    return attention


def vil_block(model, stage: int):
    module = model.encoder.stages()[stage][1].attn

    def attention(tokens: torch.Tensor) -> torch.Tensor:
        h, w = tokens.shape[1:3]
        generator = torch.Generator().manual_seed(0)
        first = torch.randn(1, module.num_global, tokens.shape[3], generator=generator, dtype=tokens.dtype)
        output = module(torch.cat([first, tokens.flatten(1, 2)], dim=1), h, w)[0]
        return output[:, module.num_global :].view(tokens.shape)

    return attention


def depends(function, h: int, w: int, width: int) -> torch.Tensor:
    """Which output `[h * w]` of a function depends on which input `[h * w]`, by its derivative at a random place."""
    torch.manual_seed(1)
    tokens = torch.randn(1, h, w, width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x).sum(dim=3), tokens)
    return jacobian.abs().sum(dim=(0, 3, 6)).view(h * w, h * w) > 1e-12


@pytest.mark.parametrize("size", [(64, 64), (72, 104), (40, 36)], ids=str)
@pytest.mark.parametrize("stage, block", [(0, 0), (0, 1), (1, 1)])
def test_swin_maps_show_what_outputs_depend_on(stage, block, size):
    """Windows and shifts, also of padded maps; the padded zeros themselves cannot be seen in a derivative."""
    model = make_model("swin")
    found = block_attentions(model, torch.randn(1, 3, *size, dtype=torch.float64))[2 * stage + block]
    h, w = found.places.grid
    dependence = depends(swin_block(model, stage, block), h, w, 8 << stage)
    for token in range(h * w):
        support = found.token_map(token).tokens[0].amax(dim=0).flatten() > 1e-30  # a mask of -100 leaves e**-100
        assert torch.equal(support, dependence[token]), token


@pytest.mark.parametrize("name", ["vil", "vil exact", "vil own", "vil positions"])
def test_vil_maps_show_what_outputs_depend_on(name):
    """Chunks of 3 and their neighbours, on a map of 10 x 8 tokens. Through global tokens nothing goes in one block."""
    model = make_model(name)
    found = block_attentions(model, torch.randn(1, 3, 40, 32, dtype=torch.float64))[0]
    h, w = found.places.grid
    dependence = depends(vil_block(model, 0), h, w, 8)
    for token in range(h * w):
        assert torch.equal(found.token_map(token).tokens[0, 0].flatten() > 0, dependence[token])


ATTENTIONS = {  # number of the block, its attention, the projection of its values and that of its output
    "swin": lambda model: (1, model.encoder.layers[0].blocks[1].attn, "qkv", "proj"),
    "vil": lambda model: (0, model.encoder.stages()[0][1].attn, "kv", "proj"),
    "cvt": lambda model: (0, model.encoder.stage0[1].layers[0][0].fn, "qkv", "proj_out"),
    "vit": lambda model: (0, model.encoder.blocks[0].attn, "qkv", "proj"),
}


def record_values(module, values: str, output: str) -> dict:
    """What goes through the two projections in the calls that follow."""
    seen: dict = {}
    getattr(module, values).register_forward_hook(
        lambda _, __, result: seen.update(values=result[0] if isinstance(result, tuple) else result)
    )
    getattr(module, output).register_forward_pre_hook(lambda _, inputs: seen.update(output=inputs[0]))
    return seen


@pytest.mark.parametrize("name", ATTENTIONS)
def test_each_weight_is_at_the_token_whose_value_it_takes(name):
    """The values times a map are the output of the query, found by hooks."""
    model = make_model(name)
    number, module, *projections = ATTENTIONS[name](model)
    seen = record_values(module, *projections)
    block = block_attentions(model, torch.randn(2, 3, 72, 104, dtype=torch.float64))[number]
    (h, w), heads, g = block.places.grid, module.num_heads, block.num_global
    values, padding = seen["values"], 0.0
    if name == "swin":  # packed, with a row for the padding behind it
        values, padding = values[:-1], values[-1].unflatten(-1, (3, heads, -1))[2]
    if name == "cvt":  # padded before the projection: queries that see padding are left out below
        values = values[:, :h, :w]
    parts = 2 if name == "vil" else 3
    values = values.reshape(2, g + h * w, parts, heads, -1)[:, :, -1]
    outputs = seen["output"].reshape(2, g + h * w, heads, -1)
    compared = 0
    for token in range(h * w):
        each = block.token_map(token)
        weights = torch.cat([each.to_global, each.tokens.flatten(2)], dim=2).double()
        expected = torch.einsum("bht,bthd->bhd", weights, values) + each.to_padding[..., None] * padding
        if name != "cvt" or not each.to_padding.any():
            torch.testing.assert_close(outputs[:, g + token], expected, rtol=0, atol=1e-6)
            compared += 1
    assert compared > 0.7 * h * w


def test_padding_has_a_share():
    """A map of 9 x 13 tokens in windows of 4: those in the last row see three rows of padding."""
    block = block_attentions(make_model("swin"), torch.randn(1, 3, 36, 52, dtype=torch.float64))[0]
    assert block.places.grid == (9, 13)
    assert (block.query_map(0, 0).to_padding == 0).all()
    assert (block.query_map(51, 35).to_padding > 0.5).all()  # 15 of 16 places of its window


def test_class_token_and_entropy():
    model = make_model("vit")
    pixels = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    block = block_attentions(model, pixels)[-1]
    weights = model(pixels, output_attentions=True).attentions[-1]
    ours = block.global_map()
    torch.testing.assert_close(ours.tokens, weights[:, :, 0, 1:].unflatten(2, (4, 3)).float())
    torch.testing.assert_close(ours.to_global, weights[:, :, 0, :1].float())
    entropy = -(weights * weights.log2()).sum(dim=-1).mean(dim=-1)
    torch.testing.assert_close(block.entropy(), entropy.float())
    with pytest.raises(AttentionLayoutError, match="1 class or global tokens, so it has no token 1"):
        block.global_map(1)


def test_entropy_of_uniform_attention():
    """Equal logits: log2 of the keys that a query sees, whatever the padding."""
    model = make_model("swin")
    for module in attention_modules(model):
        torch.nn.init.zeros_(module.qkv.weight)
        torch.nn.init.zeros_(module.qkv.bias)
        torch.nn.init.zeros_(module.relative_position_bias_table)
    first, second, *_ = block_attentions(model, torch.randn(1, 3, 36, 52, dtype=torch.float64))
    torch.testing.assert_close(first.entropy(), torch.full((1, 2), 4.0))
    assert (second.entropy() < 4).all()  # the shift's mask takes keys away


def test_legacy_masks_in_training():
    """Maps of a training pass with the mask of the original's early runs: whole windows, masks of another map."""
    torch.manual_seed(0)
    model = EsViTModel(EsViTConfig(**SWIN, legacy_shift_mask=True)).train()
    pixels = torch.randn(16, 3, 32, 32)
    legacy = block_attentions(model, pixels)[1]
    fixed = block_attentions(model.eval(), pixels)[1]
    supports = [(block.query_map(0, 0).tokens > 1e-30).sum(dim=(1, 2, 3)).tolist() for block in (legacy, fixed)]
    assert len(set(supports[0])) > 1 and len(set(supports[1])) == 1
    whole = legacy.query_map(0, 0)
    torch.testing.assert_close(whole.tokens.sum(dim=(2, 3)), torch.ones(16, 2))


def test_heads_and_precision_of_other_classes():
    """Of a classifier, in bfloat16: weights in float32, from the backbone inside."""
    model = EsViTForImageClassification(EsViTConfig(**SWIN)).bfloat16().eval()
    blocks = block_attentions(model, torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
    assert len(blocks) == 4 and blocks[0].received().dtype == torch.float32


def test_broken_weights():
    model = EsViTModel(EsViTConfig(**SWIN)).eval()
    torch.nn.init.constant_(model.encoder.layers[1].blocks[0].attn.relative_position_bias_table, torch.nan)
    with pytest.raises(AttentionLayoutError, match="block 3 is not finite"):
        block_attentions(model, torch.randn(1, 3, 64, 64))


def test_models_of_others():
    config = Dinov2Config(
        **{k: v for k, v in DINO.items() if k != "model_type"}, image_size=64, attn_implementation="eager"
    )
    blocks = block_attentions(AutoModel.from_config(config).eval(), torch.randn(1, 3, 64, 80))
    assert len(blocks) == 2 and blocks[0].places.grid == (8, 10) and blocks[0].num_global == 1
    vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8)
    vit._attn_implementation = "eager"  # DINO's positions are of one size, unless it is asked for others
    [block] = block_attentions(AutoModel.from_config(vit).eval(), torch.randn(1, 3, 48, 80))
    assert block.places.grid == (6, 10) and block.global_map().tokens.shape == (1, 2, 6, 10)
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4, attn_implementation="eager"
    )
    with pytest.raises(AttentionLayoutError, match="only the weights of all patches of a ViT"):
        block_attentions(AutoModel.from_config(swin).eval(), torch.randn(1, 3, 64, 64))
    with pytest.raises(AttentionLayoutError, match="eager"):
        fused = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8)
        fused._attn_implementation = "sdpa"
        block_attentions(AutoModel.from_config(fused).eval(), torch.randn(1, 3, 64, 64))


def test_backbones_whose_attention_has_no_known_place():
    four = {"depths": [1, 1, 1, 1]}
    swin = {
        "model_type": "swinv2",
        "embed_dim": 8,
        "num_heads": [1, 1, 2, 4],
        "window_size": 4,
        "image_size": 32,
        **four,
    }
    with pytest.raises(AttentionLayoutError, match="swinv2 gives attention weights of shape"):
        block_attentions(
            EsViTModel(EsViTConfig(architecture="auto", backbone_config=swin)).eval(), torch.randn(1, 3, 32, 32)
        )
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32, 48, 64], **four}
    with pytest.raises(EsViTBackboneError, match="no attention weights"):
        block_attentions(
            EsViTModel(EsViTConfig(architecture="auto", backbone_config=resnet)), torch.randn(1, 3, 64, 64)
        )


def test_drawn_chunks_are_refused():
    model = EsViTModel(EsViTConfig(**VIL, vil_mode=1)).train()
    with pytest.raises(AttentionLayoutError, match="drawn and not recorded"):
        block_attentions(model, torch.randn(1, 3, 64, 64))
    block_attentions(model.eval(), torch.randn(1, 3, 64, 64))


def test_mass_mask():
    maps = torch.tensor([[[0.1, 0.4], [0.3, 0.2]], [[0.0, 0.0], [0.0, 2.0]]])
    assert mass_mask(maps).tolist() == [[[False, True], [True, False]], [[False, False], [False, True]]]
    assert mass_mask(maps, share=0.75)[0].tolist() == [[False, True], [True, True]]
    assert not mass_mask(torch.zeros(1, 2, 2)).any()


def test_points_outside():
    block = block_attentions(make_model("swin"), torch.randn(1, 3, 66, 64, dtype=torch.float64))[0]
    with pytest.raises(TokenPlacesError, match=r"\(64, 0\) is outside of the image of 64 x 66 pixels"):
        block.query_map(64, 0)
    with pytest.raises(TokenPlacesError, match=r"does not see the point \(0, 65\)"):
        block.query_map(0, 65)
