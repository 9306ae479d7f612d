# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the small golden fixtures from a folder with the full golden files.

These (`swin_w7.outputs.safetensors`, ...) come from running the MIT-licensed original, microsoft/esvit at commit
2d6becd, on the CPU in float32.

    python tests/golden/make_fixtures.py FOLDER

What is left out: weights and cotangents, which are drawn again from their seeds (checked here, bit for bit); rows that
`golden.thin` drops; duplicates; and what no test reads (mixup, other backbones). Inputs stay float16, as they came.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.golden import COTANGENT_SEED, FIXTURES, cotangents, draw_weights, thin


SOURCE = "computed by the original, microsoft/esvit at 2d6becd (MIT)"
INPUT_PARTS = {
    **{"g0": ["g0"], "g1": ["g1"], "local": ["l0", "l1", "l2", "l3"]},
    **{"single": ["x101", "x168", "x200"], "oblong": ["x200x168"]},
}
VIL_COTANGENT_SEED = 301
UNREAD_OUTPUTS = ("bwd.c_head", "mc.npatch")


def write(name: str, tensors: dict[str, torch.Tensor], **header) -> None:
    """Writes thinned copies into `fixtures/NAME.safetensors`; header values are stored as JSON."""
    path = FIXTURES / f"{name}.safetensors"
    header = {key: json.dumps(value) for key, value in {"source": SOURCE, **header}.items()}
    save_file({key: thin(key, tensor).contiguous() for key, tensor in tensors.items()}, path, metadata=header)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KiB")


def original_order(
    folder: Path, weights: dict[str, torch.Tensor], full_size: str = "swin_tiny_w7"
) -> list[tuple[str, list[int]]]:
    """Returns (key, shape) in the order of the original's parameters, read off a full one, which has all keys."""
    full = json.loads((folder / "fullsize_state_dicts.json").read_text())["models"][full_size]["state_dict"]
    keys = [key for key in full if key in weights and not key.endswith("relative_position_index")]
    return [(key, list(weights[key].shape)) for key in keys]


def is_read(key: str, outputs: dict[str, torch.Tensor], last: str = "attn7") -> bool:
    if key.startswith("bwd.gradnorm."):  # for the gradients that are stored in part
        return key.replace("gradnorm", "grad_rows4") in outputs
    if key.endswith(".attn_last"):  # also stored by its number, if all layers are
        return all(key.replace("attn_last", name) not in outputs for name in (f"{last}.sel", last))
    return not any(part in key for part in UNREAD_OUTPUTS)


def backbone(folder: Path, name: str, full_size: str) -> None:
    weights = load_file(folder / f"{name}.weights.safetensors")
    outputs = load_file(folder / f"{name}.outputs.safetensors")
    with safe_open(folder / f"{name}.weights.safetensors", "pt") as file:
        config, seed = json.loads(file.metadata()["config"]), int(file.metadata()["seed"])
    parameters = original_order(folder, weights, full_size)
    drawn = draw_weights(parameters, seed)
    for key, value in weights.items():
        assert key.endswith("relative_position_index") or torch.equal(drawn[key], value), f"{key} is not from the seed"
    if "bwd.c_head" in outputs:
        view, region = cotangents(len(outputs["bwd.c_head"]), *outputs["bwd.c_head_dense"].shape)
        assert torch.equal(view, outputs["bwd.c_head"]) and torch.equal(region, outputs["bwd.c_head_dense"])
    last = f"attn{sum(config.get('depths') or [config['depth']]) - 1}"
    kept = {key.replace("attn_last", last): value for key, value in outputs.items() if is_read(key, outputs, last)}
    write(f"golden_{name}", kept, config=config, seed=seed, parameters=parameters, cotangent_seed=COTANGENT_SEED)


def without_aliases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drops the aliases of a ViL with shared weights, whose global projections are the local ones."""
    aliases = [key for key in weights if "_global." in key]
    assert all(torch.equal(weights[key], weights[key.replace("_global.", ".")]) for key in aliases)
    return {key: value for key, value in weights.items() if key not in aliases}


def vil(folder: Path) -> None:
    weights = without_aliases(load_file(folder / "vil_2262like.weights.safetensors"))
    outputs = load_file(folder / "vil_2262like.outputs.safetensors")
    modes = load_file(folder / "vil_2262like.modes.safetensors")
    with safe_open(folder / "vil_2262like.weights.safetensors", "pt") as file:
        config, seed = json.loads(file.metadata()["config"]), int(file.metadata()["seed"])
    parameters = original_order(folder, weights, "vil_2262")
    drawn = draw_weights(parameters, seed)
    assert drawn.keys() == weights.keys() and all(torch.equal(drawn[key], weights[key]) for key in weights)
    view, region = cotangents(len(outputs["bwd.c_head"]), *outputs["bwd.c_head_dense"].shape, seed=VIL_COTANGENT_SEED)
    assert torch.equal(view, outputs["bwd.c_head"]) and torch.equal(region, outputs["bwd.c_head_dense"])
    kept = {key: value for key, value in outputs.items() if is_read(key, outputs)}
    header = {"architecture": config["msvit"]["ARCH"], "cotangent_seed": VIL_COTANGENT_SEED}
    write("golden_vil", {**kept, **modes}, seed=seed, parameters=parameters, **header)


def vil_attention(folder: Path) -> None:
    path = folder / "vil_attention.safetensors"
    with safe_open(path, "pt") as file:
        variants = json.loads(file.metadata()["variants"])
    read = {name: variants[name] for name in ("base", "sharew_false", "norpe", "nglo0", "nglo2", "exact1")}
    shared = tuple(f"{name}.state" for name, variant in read.items() if variant["sharew"])
    kept = {
        key: value
        for key, value in load_file(path).items()
        if key.split(".")[0] in read and not (key.startswith(shared) and "_global." in key)
    }
    write("golden_vil_attention", kept, variants=read)


def cvt(folder: Path) -> None:
    weights = load_file(folder / "cvt_w7.weights.safetensors")
    with safe_open(folder / "cvt_w7.weights.safetensors", "pt") as file:
        config, seed = json.loads(file.metadata()["config"]), int(file.metadata()["seed"])
    tensors = original_order(folder, weights, "cvt_tiny")
    statistics = [(key, shape) for key, shape in tensors if key.endswith(("running_mean", "running_var"))]
    parameters = [(key, shape) for key, shape in tensors if ".running_" not in key and "num_batches" not in key]
    drawn = draw_weights(parameters, seed, statistics)
    assert all(torch.equal(drawn[key], weights[key]) for key in drawn)
    counts = {key: int(weights[key]) for key in weights.keys() - drawn.keys()}
    assert all(key.endswith("num_batches_tracked") for key in counts)
    outputs = load_file(folder / "cvt_w7.outputs.safetensors") | load_file(folder / "cvt_w7.trainmode.safetensors")
    kept = {key: value for key, value in outputs.items() if not key.endswith(".npatch")}
    header = {"parameters": parameters, "statistics": statistics, "counts": counts}
    write("golden_cvt", kept, config=config, seed=seed, **header)


def losses(folder: Path) -> None:
    kept = {
        key: value
        for key, value in load_file(folder / "losses.safetensors").items()
        if "mixup" not in key and not key.endswith(".loss")
    }
    write("golden_losses", kept)


def heads(folder: Path) -> None:
    tensors = load_file(folder / "optim_utils.safetensors")
    write("golden_heads", {key: value for key, value in tensors.items() if key.startswith("head.")})


def position_index(folder: Path) -> None:
    tensors = load_file(folder / "rel_index.safetensors")
    windows = ("swin_window7", "swin_window14", "vil_longformer_w3", "vil_longformer_w7")
    write("golden_position_index", {key: tensors[key][::5] for key in windows})


def inputs(folder: Path) -> None:
    tensors = load_file(folder / "inputs.safetensors")
    for part, names in INPUT_PARTS.items():
        write(f"golden_inputs.{part}", {name: tensors[name] for name in names})


def main(folder: Path) -> None:
    FIXTURES.mkdir(exist_ok=True)
    inputs(folder)
    backbone(folder, "swin_w7", "swin_tiny_w7")
    backbone(folder, "swin_w14", "swin_tiny_w7")
    backbone(folder, "vit_p16", "deit_small")
    vil(folder)
    vil_attention(folder)
    cvt(folder)
    losses(folder)
    heads(folder)
    position_index(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
