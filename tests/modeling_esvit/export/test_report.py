# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What is printed of an export says which files belong together, and how images are prepared."""

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.export.report import ExportReport, explain_preparation, explain_usage
from modeling_esvit.modeling_esvit import describe_preprocessing


SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": [32, 64]}


def test_files_and_preparation(tmp_path):
    config = EsViTConfig(**SWIN)
    files = ["model.onnx", "model.onnx.data"]
    processing = describe_preprocessing(config)
    notes = [*explain_usage(EsViTModel(config), "onnx", (32, 64)), explain_preparation(processing, (32, 64))]
    lines = str(ExportReport(tmp_path, [(32, 64)], 0.0, files, notes)).splitlines()
    assert lines[1] == "  hand over all of its files together: model.onnx, model.onnx.data"
    assert "input pixel_values float32 [batch, 3, 32, 64]" in lines[3]
    prepared = (
        "resize the shorter side to 73 px (bicubic), cut out the middle 32 x 64, divide by 255, subtract the mean"
    )
    assert prepared in lines[4] and lines[4].endswith("(0.485, 0.456, 0.406), divide by (0.229, 0.224, 0.225)")
    assert "[batch, 3, height, width]" in explain_usage(EsViTModel(config), "onnx", None)[0]
    assert "(or prepare another size)" in explain_preparation(processing, None)
