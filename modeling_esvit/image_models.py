# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A model for images with its image processor, of this project or any other of transformers."""

import inspect
from typing import Any

from transformers import AutoImageProcessor, AutoModel


class NoImageModelError(OSError):
    """What was named is a model for something else. As transformers raises if it finds no model."""


def load_image_model(name: str, model_options: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """
    Args:
        name: a model folder, or a name on the Hub.
        model_options: of `AutoModel.from_pretrained` alone.
        options: of both `from_pretrained`: `revision`, `trust_remote_code` and so on.

    Raises:
        NoImageModelError: the model does not take images.
        OSError: transformers finds no model of this name, or no image processor beside it.
    """
    model = AutoModel.from_pretrained(name, **(model_options or {}), **options)  # says what is wrong with a config.json
    inputs = inspect.signature(model.forward).parameters
    if "input_ids" in inputs and "pixel_values" not in inputs:  # what models of others call their images, nobody knows
        raise NoImageModelError(f"{name} is a {type(model).__name__}, which takes text and no images.")
    return model, AutoImageProcessor.from_pretrained(name, **options)
