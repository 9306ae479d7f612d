# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' common image processor tests on the evaluation transform that EsViT models are saved with.

Departures: `test_backends_equivalence` gets a generated image in place of the photograph that it would download,
and `backend_equivalence_atol` is 0.5 in place of 0.1, with the limit on the mean as it is: the test images are noise,
where PIL clamps to 0..255 between its two passes and torchvision does not, and ImageNet's small standard deviations
magnify the difference. `test_pil_can_load_without_torchvision` of transformers 5.20 (5.23 has it no more) is off: it
looks for the processor in `transformers.models.esvit`, where only a model of transformers' own can have one.
"""

import unittest
from unittest.mock import patch

import numpy as np
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.testing_utils import require_torch, require_vision

from modeling_esvit import EsViTConfig
from modeling_esvit.modeling_esvit import describe_preprocessing

from ... import test_image_processing_common as common


# As `import modeling_esvit` registers them; the common tests look processors up by name.
IMAGE_PROCESSOR_MAPPING_NAMES["esvit"] = {"torchvision": "BitImageProcessor", "pil": "BitImageProcessorPil"}


class EsViTImageProcessingTester(common.ImageProcessingTester):
    def __init__(self, parent):
        super().__init__(parent, **describe_preprocessing(EsViTConfig(image_size=32)))


@require_torch
@require_vision
@unittest.skipUnless(
    hasattr(common.ImageProcessingTestMixin, "image_processor_tester_class"),
    "the mixin of this older transformers has another interface",
)
class EsViTImageProcessingTest(common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = EsViTImageProcessingTester
    backend_equivalence_atol = 0.5

    test_pil_can_load_without_torchvision = None

    def test_backends_equivalence(self):
        coarse = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        with patch.object(common, "load_test_image", return_value=picture):
            super().test_backends_equivalence()
