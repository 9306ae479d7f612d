# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks the loading of models by one wrong field in a `config.json` or `preprocessor_config.json` of each family, and
by damaged weights: headers of safetensors, indexes, pickles.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import timm
import torch
import transformers
from PIL import Image

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.embedder import Embedder
from modeling_esvit.modeling_esvit import describe_preprocessing
from tests.attack.mutations import mutate_bytes, mutate_json
from tests.attack.original_checkpoints import craft
from tests.attack.outcomes import Attack, Surface, WrongError
from tests.helpers.tiny_models import CVT, DINO_V2, HIERA, PVT, RESNET, SWIN_V2, VIL, VIT, auto_config
from training.features.frozen_models import load_frozen
from training.learning.init_from import load_network


SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
OWN = {"swin": SWIN, "cvt": CVT, "vil": VIL, "vit": VIT}
BACKBONES = {
    "resnet": RESNET,
    "pvt": PVT,
    "hiera": HIERA,
    "timm": {"model_type": "timm_backbone", "backbone": "test_resnet"},
}
OTHERS = {
    "dinov2": DINO_V2,
    "swinv2": SWIN_V2,
    "plain resnet": RESNET,
    "plain swin": {"model_type": "swin", **SWIN, "window_size": 4},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "plain vit": {
        **{"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "image_size": 32, "patch_size": 8},
    },
}
TIMM = "test_vit"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
# Code of a stranger, which must never run.
CODE = "from pathlib import Path\n(Path(__file__).parent / 'canary').touch()\nPath('{canary}').touch()\n"


def write_models(folder: Path) -> list[Path]:
    """Writes a small model of each family, with its image processor and code that must not run."""
    torch.manual_seed(0)
    models: dict[str, Any] = {name: EsViTModel(EsViTConfig(**fields)) for name, fields in OWN.items()}
    models |= {f"auto {name}": EsViTModel(auto_config(fields)) for name, fields in BACKBONES.items()}
    for name, fields in OTHERS.items():
        models[name] = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**fields))
    for name, model in models.items():
        model.save_pretrained(folder / name)
        side = getattr(model.config, "image_size", 32)
        described = describe_preprocessing(EsViTConfig(image_size=side))
        if name.startswith("plain"):
            described |= {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
            described |= {"do_center_crop": False}
        (folder / name / PROCESSOR).write_text(json.dumps(described))
        (folder / name / "own.py").write_text(CODE.format(canary=folder / "canary"))
    write_timm(folder / "timm")
    return [folder / name for name in [*models, "timm"]]


def write_stored(folder: Path) -> list[Path]:
    """Writes the same models, and one each whose weights are in several files and in a pickle."""
    models = write_models(folder)
    for name in ("sharded", "pickled"):
        shutil.copytree(folder / "plain vit", folder / name)
        (folder / name / WEIGHTS).unlink()
    model = transformers.AutoModel.from_pretrained(folder / "plain vit")
    model.save_pretrained(folder / "sharded", max_shard_size="10KB")
    torch.save(model.state_dict(), folder / "pickled" / PICKLE)
    return [*models, *[folder / "sharded", folder / "pickled"] * 3]


def write_timm(folder: Path) -> None:
    """Writes a model as timm keeps them."""
    model = timm.create_model(TIMM, pretrained=False)
    timm.models.save_for_hf(model, folder, model_config={"architecture": TIMM}, safe_serialization=True)


def load_and_compute(folder: Path, random: Random) -> None:
    """Loads a model by one of the ways that commands have, and computes features."""
    pixels = Image.new("RGB", (50, 40), "red")
    if folder.name == "timm":
        model = load_frozen(f"timm:local-dir:{folder}")
        model.features(model.transform(pixels)[None])
        return
    way = random.choice(["frozen", "embedder", "size", "start"])
    if way == "frozen":
        frozen = load_frozen(str(folder))
        frozen.features(torch.stack([frozen.transform(pixels), frozen.transform(pixels.rotate(90, expand=True))]))
    elif way == "start":
        load_network(str(folder))
    else:
        embedder = Embedder.from_pretrained(str(folder), device="cpu", dtype="float32", compile="off",
                                            image_size=64 if way == "size" else None)  # fmt: skip
        embedder.features([embedder.prepare(pixels)], regions=True)


def prepare(write: Callable[[Path], list[Path]], change: Callable[[Path, Random], None], folder: Path) -> Attack:
    models = write(folder)
    tried = folder / "tried"

    def attack(random: Random) -> None:
        model = random.choice(models)
        place = tried / model.name
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(model, place)
        change(place, random)
        try:
            load_and_compute(place, random)
        except Exception as error:
            if "\n" in str(error):
                raise WrongError(f"an error of several lines: {str(error)[:80]!r}") from error
            raise
        finally:
            if (folder / "canary").exists():
                raise WrongError("code of the model was executed")

    return attack


def change_field(file: str, place: Path, random: Random) -> None:
    path = place / (file if (place / file).exists() else CONFIG)
    path.write_text(json.dumps(mutate_json(random, json.loads(path.read_text()))))


def change_stored(place: Path, random: Random) -> None:
    """Damages the header of the weights, its length or the JSON behind it, or else their index or pickle."""
    if (place / INDEX).exists():
        (place / INDEX).write_text(json.dumps(mutate_json(random, json.loads((place / INDEX).read_text()))))
        return
    if (place / PICKLE).exists():
        change_pickle(place / PICKLE, place.parents[1] / "canary", random)
        return
    path = place / WEIGHTS
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    if random.random() < 0.5:
        path.write_bytes(mutate_bytes(random, content, first=0, last=end))
        return
    header = json.dumps(mutate_json(random, json.loads(content[8:end]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def change_pickle(path: Path, canary: Path, random: Random) -> None:
    """Damages a pickle of weights, or puts something else into it than a tensor."""
    if random.random() < 0.5:
        path.write_bytes(mutate_bytes(random, path.read_bytes()))
        return
    tensors = torch.load(path, weights_only=True)
    name = random.choice(list(tensors))
    torch.save({**tensors, name: craft(random, tensors[name], canary)}, path)


SURFACES = [
    Surface("config.json, one field wrong", partial(prepare, write_models, partial(change_field, CONFIG)), 6),
    Surface(
        "preprocessor_config.json, one field wrong", partial(prepare, write_models, partial(change_field, PROCESSOR)), 3
    ),
    Surface("headers, indexes and pickles of weights", partial(prepare, write_stored, change_stored), 2),
]
