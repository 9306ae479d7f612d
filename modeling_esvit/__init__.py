# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers the EsViT models with transformers' Auto classes, as soon as this package is imported."""

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends a program of this project in a line from here on)

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)
from transformers.models.bit.image_processing_bit import BitImageProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from .backbone_probe import EsViTBackboneError
from .configuration_esvit import EsViTArchitectureError, EsViTConfig
from .modeling_esvit import (
    EsViTBackbone,
    EsViTForImageClassification,
    EsViTForPreTraining,
    EsViTInputError,
    EsViTModel,
    EsViTPreTrainedModel,
)


__version__ = "0.1.0"

AutoConfig.register("esvit", EsViTConfig)
AutoModel.register(EsViTConfig, EsViTModel)
AutoBackbone.register(EsViTConfig, EsViTBackbone)
AutoModelForImageClassification.register(EsViTConfig, EsViTForImageClassification)
AutoModelForPreTraining.register(EsViTConfig, EsViTForPreTraining)
AutoImageProcessor.register(
    EsViTConfig, image_processor_classes={"pil": BitImageProcessorPil, "torchvision": BitImageProcessor}
)

__all__ = [
    "EsViTArchitectureError",
    "EsViTBackbone",
    "EsViTBackboneError",
    "EsViTConfig",
    "EsViTForImageClassification",
    "EsViTForPreTraining",
    "EsViTInputError",
    "EsViTModel",
    "EsViTPreTrainedModel",
]
