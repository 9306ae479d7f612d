# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Damages bytes and JSON as accidents and strangers do, each time by one random change."""

import copy
import math
from random import Random
from typing import Any


# Texts are no names on a Hub but one; `own.py` and the class in it stand for code of a stranger.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 7, -1, -7, 1000, 10**6, 2**21, 2**31, 10**9, 10**12, 2**63, 10**30, -(10**9)),
    *(0.0, 0.5, -0.5, 1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *("", "x", "1", "gelu", "cls", "../../secret", "/dev/zero", "nobody/nothing", "own.Stranger", "\x00", "a" * 10_000),
    *([], [0], [1], [-1], [2, 2], [1] * 5, [10**9] * 4, [1.5], ["a"], [[1]], [None], [math.nan, 1.0, 1.0]),
    *({}, {"x": 1}, {"height": 8}, {"height": 10**9, "width": 10**9}, {"shortest_edge": 10**6}, {"model_type": "swin"}),
]
ADDED: dict[str, Any] = {
    "auto_map": {"AutoConfig": "own.Stranger", "AutoModel": "own.Stranger", "AutoImageProcessor": "own.Stranger"},
    "num_labels": 10**12,
    "id2label": {"a": "b"},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "attn_implementation": "nobody/kernels",
    "_attn_implementation": "flash_attention_2",
    "_attn_implementation_internal": "nobody/kernels",
    "dtype": "float8_e4m3fn",
    "torch_dtype": "load",
    "return_dict": False,
    "output_attentions": True,
    "output_hidden_states": True,
    "pruned_heads": {"0": [0]},
    "per_layer_config": {"0": {"hidden_size": 3}},
    "layer_types": ["full_attention"] * 3,
    "transformers_weights": "../secret.bin",
    "use_pretrained_backbone": True,
    "backbone": "resnet18",
    "backbone_kwargs": {"out_indices": [9]},
    "fusion_config": {"patch_embeddings": True},
    "model_type": "bert",
    "image_processor_type": "NoSuchProcessor",
    "feature_extractor_type": "own.Stranger",
    "num_hidden_layers": 10**9,
    "chunk_size_feed_forward": 3,
    "is_encoder_decoder": True,
    "out_indices": [7],
    "rope_scaling": {"rope_type": "own"},
    "tie_word_embeddings": True,
}


def mutate_bytes(random: Random, content: bytes, other: bytes = b"", first: int = 0, last: int | None = None) -> bytes:
    """Returns a content with one change between the places `first` and `last`; a splice takes the rest from `other`."""
    last = len(content) if last is None else min(last, len(content))
    place = random.randrange(first, max(last, first + 1))
    length = random.choice([1, 1, 2, 4, 8, 64])
    kind = random.choice(["bit", "byte", "extreme", "cut", "insert", "remove", "zero", "repeat", "splice"])
    if kind == "bit":
        middle = bytes([content[place] ^ 1 << random.randrange(8)]) if place < len(content) else b""
        return content[:place] + middle + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "splice":
        return content[:place] + (other or content)[place // 2 :]
    if kind == "repeat":
        return content[:place] + content[place : place + length] * random.choice([2, 100]) + content[place:]
    middles = {
        "byte": random.randbytes(1),
        "extreme": random.choice([b"\xff" * length, b"\x7f" + b"\xff" * length, b"\x80" + bytes(length)]),
        "insert": random.randbytes(length),
        "remove": b"",
        "zero": bytes(length),
    }
    gone = {"insert": 0, "remove": length}.get(kind, len(middles[kind]))
    return content[:place] + middles[kind] + content[place + gone :]


def list_places(value: Any, place: tuple = ()) -> list[tuple]:
    """Returns the keys that lead to each value inside a value of JSON."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in entries for found in [(*place, key), *list_places(each, (*place, key))]]


def mutate_json(random: Random, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns fields of which one, at any depth, is another, is missing or is new."""
    fields = copy.deepcopy(fields)
    if random.random() < 0.15 or not fields:
        name = random.choice(list(ADDED))
        fields[name] = ADDED[name] if random.random() < 0.5 else random.choice(VALUES)
        return fields
    *way, key = random.choice(list_places(fields))
    holder = fields
    for each in way:
        holder = holder[each]
    if random.random() < 0.1:
        del holder[key]
    else:
        holder[key] = random.choice(VALUES) if random.random() < 0.6 else perturb(random, holder[key])
    return fields


def perturb(random: Random, value: Any) -> Any:
    """Returns a value of the same type, near or far from the old one."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return random.choice([value + 1, value - 1, -value, value * 2, value * 1000, value / 2, str(value), [value]])
    if isinstance(value, str):
        return random.choice([value.upper(), value + "x", value[1:], [value], value + "\n" + value])
    if isinstance(value, list):
        return random.choice(
            [value[1:], value * 2, value[::-1], value + value[:1], {str(each): each for each in value}]
        )
    return list(value.items())
