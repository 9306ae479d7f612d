# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' common tests on CvT. `common.py` lists where they depart from the common ones."""

import unittest

from .common import EsViTBackboneTestMixin, EsViTHierarchicalTester, EsViTModelTestMixin


class EsViTCvtModelTester(EsViTHierarchicalTester):
    """Describes a CvT whose last stage is narrower than twice the width before it."""

    widths = [16, 32, 48]
    fields = {
        **{"architecture": "cvt", "stage_dims": widths, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        **{"patch_kernels": [3, 3, 3], "patch_strides": [2, 2, 2], "patch_paddings": [1, 1, 1]},
    }


class EsViTCvtModelTest(EsViTModelTestMixin, unittest.TestCase):
    model_tester_class = EsViTCvtModelTester


class EsViTCvtBackboneTest(EsViTBackboneTestMixin, unittest.TestCase):
    model_tester_class = EsViTCvtModelTester
