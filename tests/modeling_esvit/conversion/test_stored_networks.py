# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Networks are found under every wrapper and nesting; tensors that are no weights are refused, by the command."""

import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_checkpoint import read_checkpoint, read_file
from modeling_esvit.conversion.stored_networks import list_networks, select_network
from modeling_esvit.convert_original.converter import main
from tests.helpers.paths import FIXTURES


CHECKPOINT = FIXTURES / "checkpoint_swin_tiny.pth"
HUGE = 10**12


@pytest.fixture(scope="module")
def teacher() -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in read_file(CHECKPOINT)["teacher"].items()}


def prefix(state_dict, before: str) -> dict[str, torch.Tensor]:
    return {before + name: tensor for name, tensor in state_dict.items()}


def wrap_inside(state_dict, wrapper: str) -> dict[str, torch.Tensor]:
    """Puts a wrapper around each block and the whole, as FSDP and activation checkpointing do."""
    return {wrapper + name.replace("blocks.0.", f"blocks.0.{wrapper}"): each for name, each in state_dict.items()}


OTHERS = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
LAYOUTS = {
    "compiled": lambda net: prefix(net, "_orig_mod."),
    "DDP, then compiled": lambda net: {"teacher": prefix(net, "_orig_mod.module."), **OTHERS},
    "compiled, then DDP": lambda net: {"model": prefix(net, "module._orig_mod."), **OTHERS},
    "FSDP": lambda net: wrap_inside(net, "_fsdp_wrapped_module."),
    "activation checkpointing": lambda net: {"state_dict": wrap_inside(net, "_checkpoint_wrapped_module.")},
    "Lightning": lambda net: {"state_dict": prefix(net, "model."), "pytorch-lightning_version": "2.5", **OTHERS},
    "Lightning, both": lambda net: {
        "state_dict": prefix(net, "teacher.backbone.") | prefix({name: each + 1 for name, each in net.items()
                                                                 if each.is_floating_point()}, "student.backbone.")
    },
    "DeepSpeed": lambda net: {"module": net, "dp_world_size": 8, **OTHERS},
    "DeepSpeed in Lightning": lambda net: {"module": prefix(net, "_forward_module.model."), **OTHERS},
    "MoCo": lambda net: {"state_dict": prefix(net, "module.encoder_q.") | {"module.queue": torch.ones(4)}},
    "EMA": lambda net: {"model_ema": prefix(net, "module."), **OTHERS},
    # pytorch-lightning pull 9938: torch's AveragedModel counts beside its network
    "SWA": lambda net: {"n_averaged": torch.tensor(3), **prefix(net, "module.")},
    "SWA in DDP": lambda net: {"swa": prefix({"n_averaged": torch.tensor(3), **prefix(net, "module.")}, "module.")},
    "ema_pytorch": lambda net: {"initted": torch.tensor(True), "step": torch.tensor(5), **prefix(net, "ema_model.")},
    # LSKNet issue 48
    "averages beside the tensors": lambda net: {
        "state_dict": prefix(net, "backbone.")
        | {"ema_backbone_" + name.replace(".", "_"): each for name, each in net.items()}
    },
    "nested": lambda net: {"checkpoint": {"networks": {"teacher": prefix(net, "module._orig_mod.backbone.")}}},
    "heads beside the backbone": lambda net: {
        "state_dict": {
            ("model." if name.startswith("head") else "model.backbone.") + name: each for name, each in net.items()
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wrapped_network_is_converted_to_the_same_model(layout, teacher, tmp_path, capsys):
    torch.save(LAYOUTS[layout](teacher), tmp_path / "x.pth")
    main([str(tmp_path / "x.pth"), str(tmp_path / "out")])
    shown = capsys.readouterr().out
    main([str(CHECKPOINT), str(tmp_path / "plain")])
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "plain"))
    names = {name for name in expected if not name.endswith("_center")}
    assert names == {name for name in found if not name.endswith("_center")}
    assert all(torch.equal(found[name], expected[name]) for name in names)
    assert ("optimizer" in shown) == ("optimizer" in LAYOUTS[layout](teacher))


@pytest.mark.parametrize(
    "key, place",
    [
        ("model_ema", "model_ema"),
        ("state_dict.encoder_k", "state_dict.encoder_k"),
        ("encoder_q", "state_dict.encoder_q"),
        ("state_dict.module.encoder_q", "state_dict.encoder_q"),
    ],
)
def test_the_key_takes_any_entry_or_prefix(teacher, tmp_path, key, place):
    both = prefix(teacher, "module.encoder_q.") | prefix(teacher, "module.encoder_k.")
    torch.save({"state_dict": both, "model_ema": teacher}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", key).source == place
    with pytest.raises(
        ConversionError, match="several networks: state_dict.encoder_k, state_dict.encoder_q, model_ema"
    ):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="no 'student' network; it has state_dict.encoder_k, .*Choose .* --key"):
        read_checkpoint(tmp_path / "x.pth", "student")


def test_a_mapping_that_holds_itself_ends(teacher):
    content: dict = {"teacher": teacher}
    content["self"] = content
    assert [network.name for network in list_networks(content)][:1] == ["teacher"]


def test_shards_of_fsdp_are_named(tmp_path):
    torch.save({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="shards of FSDP; save a full state dict"):
        read_checkpoint(tmp_path / "x.pth")


NAME = "layers.0.blocks.0.attn.qkv.weight"
NO_WEIGHTS = {
    "bool": (lambda tensor: tensor > 0, "holds bool, not float64, float32, float16, bfloat16"),
    "integer": (lambda tensor: tensor.long(), "holds int64"),
    "int8": (lambda tensor: tensor.to(torch.int8), "holds int8"),
    "uint8": (lambda tensor: tensor.to(torch.uint8), "holds uint8"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "holds complex64"),
    "float8": (lambda tensor: tensor.to(torch.float8_e4m3fn), "holds float8_e4m3fn"),
    "sparse": (lambda tensor: tensor.to_sparse(), "no plain array of values .sparse_coo"),
    "sparse rows": (lambda tensor: tensor.to_sparse_csr(), "no plain array of values .sparse_csr"),
    "meta": (lambda tensor: tensor.to("meta"), "no plain array of values .meta"),
    "repeated": (lambda tensor: torch.zeros(1).expand(HUGE, 96), "shape .1000000000000, 96., 384000000000000 bytes"),
    "overlapping": (lambda tensor: torch.zeros(200).as_strided((100, 100), (1, 1)), "40000 bytes, of which .* has 800"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("entry", [NAME, "layers.0.blocks.0.attn.relative_position_index", "dino_loss"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_tensors_that_are_no_weights_are_refused(kind, entry, teacher, tmp_path):
    change, message = NO_WEIGHTS[kind]
    if entry == "dino_loss":
        content = {"teacher": teacher, "dino_loss": {"center": change(torch.ones(1, 32))}}
    else:
        content = {"teacher": {**teacher, entry: change(teacher[NAME])}}
    torch.save(content, tmp_path / "x.pth")
    if entry.endswith("index") and "holds" in message:
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])  # a table that the model makes itself
        return
    with pytest.raises(SystemExit, match=f"^error: The tensor .*{message}"):
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_only_network_needs_no_key():
    network = select_network({"layers.0.blocks.0.x": torch.ones(1)}, None, "file")
    assert network.name == "the whole file" and network.others == []


def nest(teacher, times: int) -> dict:
    for _ in range(times):
        teacher = {"deeper": teacher}
    return teacher


def double(teacher, times: int) -> dict:
    """Returns mappings that lead to the same network in 2 to the power of `times` ways."""
    for _ in range(times):
        teacher = {"left": teacher, "right": teacher}
    return teacher


@pytest.mark.parametrize("way, times", [(nest, 3000), (double, 25)])
def test_entries_without_end_are_refused_by_the_command(way, times, teacher, tmp_path):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        torch.save(way(teacher, times), tmp_path / "x.pth")
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(SystemExit, match="The file nests its entries without end: (deeper|left|right)"):
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])


def test_a_value_that_float32_cannot_hold_is_refused_by_the_command(teacher, tmp_path):
    name = next(name for name in teacher if name.endswith("qkv.weight"))
    teacher = {key: each.double() if each.is_floating_point() else each.clone() for key, each in teacher.items()}
    teacher[name][0, 0] = 1e60
    torch.save({"teacher": teacher}, tmp_path / "x.pth")
    with pytest.raises(SystemExit, match=f"NaN or infinite values in float32 .*: {name}"):
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_no_checkpoint_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(SystemExit, match="x.pth is no checkpoint: it is no regular file"):
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])
