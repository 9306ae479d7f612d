# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads a model for images and its image processor, of this project or any other of transformers."""

import inspect
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModel

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.hub import require_hub
from modeling_esvit.storage.run_folders import find_model
from modeling_esvit.storage.weight_bars import hide_weight_bars


class NoImageModelError(EsViTError, OSError):
    """Raised when a name stands for something else than a model for images. An OSError, as of transformers."""


@contextmanager
def name_transformers_errors(name: str) -> Iterator[None]:
    """Repeats what transformers says of a model that it cannot load, with the name of the model.

    Raises:
        NoImageModelError: it is no model, none that transformers knows, or not for images; or a file of it is missing
            or damaged.
    """
    try:
        yield
    except OSError as error:
        if Path(name).exists():
            raise NoImageModelError(str(error)) from error
        raise NoImageModelError(f"there is no folder {name!r}, and as a name of a model on the Hub: {error}") from error
    except SafetensorError as error:
        raise NoImageModelError(f"The weights of {name} are damaged: {error}.") from error
    except ValueError as error:  # it may list all models there are
        raise NoImageModelError(f"{name} cannot be loaded as a model for images: {shorten(str(error), 400)}") from error


def load_image_model(name: str, model_options: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """Loads a model for images and its image processor.

    Args:
        name: a model folder, the folder of a run, or a name on the Hub.
        model_options: of `AutoModel.from_pretrained` alone.
        options: of both `from_pretrained`: `revision`, `trust_remote_code` and so on.

    Raises:
        NoImageModelError: the model does not take images alone, or is none that transformers knows.
        OSError: transformers finds no model of this name, or no image processor beside it.
    """
    name = find_model(name)
    require_hub(name, revision=options.get("revision"))
    with name_transformers_errors(name), hide_weight_bars():  # also what is wrong with a config.json
        model, loading = AutoModel.from_pretrained(name, **(model_options or {}), **options, output_loading_info=True)
    if any(key.startswith("pooler.") for key in loading["missing_keys"]):
        model.pooler = None  # as of DINO's ViTs: of random weights, its output would be none of this model
    inputs = inspect.signature(model.forward).parameters
    if "input_ids" in inputs:  # other models may call their images anything
        taken = "text beside images; name its vision model" if "pixel_values" in inputs else "text and no images"
        raise NoImageModelError(f"{name} is a {type(model).__name__}, which takes {taken}.")
    with name_transformers_errors(name):
        return model, AutoImageProcessor.from_pretrained(name, **options)


def fingerprint(model: torch.nn.Module) -> int:
    """Returns a checksum over some weights of each tensor, which tells apart two models of the same name."""
    some = [tensor.flatten()[:64].float().cpu().numpy().tobytes() for tensor in model.state_dict().values()]
    return zlib.crc32(b"".join(some))
