# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' common tests on Swin. `common.py` lists where they depart from the common ones."""

import unittest

from .common import EsViTBackboneTestMixin, EsViTHierarchicalTester, EsViTModelTestMixin


class EsViTSwinModelTester(EsViTHierarchicalTester):
    """Describes a Swin of window 4: the first two stages have shifted windows, the last has none."""

    fields = {"patch_size": 2}


class EsViTSwinModelTest(EsViTModelTestMixin, unittest.TestCase):
    model_tester_class = EsViTSwinModelTester

    def stages_of_states(self, is_backbone):
        """Backbones give maps before patch merging, the others tokens after it."""
        last = len(self.model_tester.depths) - 1
        return (0, *(stage if is_backbone else min(stage + 1, last) for stage in range(last + 1)))


class EsViTSwinBackboneTest(EsViTBackboneTestMixin, unittest.TestCase):
    model_tester_class = EsViTSwinModelTester
