# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`pipeline("image-feature-extraction")` on a model folder, and the image processor in it against torchvision."""

import functools
import http.server
import threading

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageColumn
from PIL import Image
from torchvision.transforms import v2
from transformers import AutoImageProcessor, AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_esvit import EsViTConfig, EsViTModel


FEATURES = Features({"photograph": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
POOLED = {"pool": True, "return_tensors": True}


def picture(width, height):
    """A smooth colour picture, as photographs are at the scale of a pixel."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    EsViTModel(EsViTConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4])).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def extract(folder):
    return pipeline("image-feature-extraction", model=str(folder))


@pytest.fixture
def server(tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_image_path_and_url_are_the_same(extract, folder, server, tmp_path):
    image = picture(300, 260)
    image.save(tmp_path / "picture.png")
    pooled = extract(image, **POOLED)
    assert pooled.shape == (1, 64)
    pixels = AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        torch.testing.assert_close(pooled, AutoModel.from_pretrained(folder)(pixels).pooler_output)
    for source in (str(tmp_path / "picture.png"), f"{server}/picture.png"):
        assert torch.equal(extract(source, **POOLED), pooled)


def test_without_pool_the_regions_as_lists(extract):
    image = picture(300, 260)
    regions = extract(image)
    assert np.array(regions).shape == (1, 49, 64)
    torch.testing.assert_close(torch.tensor(regions).mean(1), extract(image, **POOLED))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_colour_modes_are_converted(extract, mode):
    image = picture(300, 260).convert(mode)
    assert torch.equal(extract(image, **POOLED), extract(image.convert("RGB"), **POOLED))


def test_batches_of_different_sizes(extract):
    images = [picture(300, 260), picture(224, 500).convert("L"), picture(640, 230)]
    batched = extract(images, batch_size=2, **POOLED)
    for image, pooled in zip(images, batched, strict=True):
        torch.testing.assert_close(pooled, extract(image, **POOLED))
    assert [np.array(regions).shape for regions in extract(images, batch_size=2)] == [(1, 49, 64)] * 3


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_data_set_in_batches(extract, batch_size):
    """Read as it is asked for, in its order, whatever the batches."""
    images = [picture(300, 260), picture(224, 500), picture(640, 230)]
    rows = Dataset.from_dict({"photograph": images, "label": [0, 1, 0]}, features=FEATURES)
    pooled = list(extract(KeyDataset(rows, "photograph"), batch_size=batch_size, **POOLED))
    assert [tuple(each.shape) for each in pooled] == [(1, 64)] * 3
    for image, each in zip(images, pooled, strict=True):
        torch.testing.assert_close(each, extract(image, **POOLED))


@pytest.mark.parametrize(
    ("options", "regions"),
    [
        ({"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}}, 3 * 3),
        ({"do_center_crop": False}, 8 * 14),  # 256 x 426
        ({"do_resize": False, "do_center_crop": False}, 10 * 16),  # 300 x 500
        ({"size": {"height": 64, "width": 128}, "do_center_crop": False}, 2 * 4),
    ],
)
def test_options_at_call_time_are_respected(extract, folder, options, regions):
    image = picture(500, 300)
    assert extract(image, image_processor_kwargs=options, return_tensors=True).shape == (1, regions, 64)
    fixed = pipeline("image-feature-extraction", model=str(folder), image_processor_kwargs=options)
    assert fixed(image, return_tensors=True).shape == (1, regions, 64)
    assert extract(image, return_tensors=True).shape == (1, 49, 64)  # and are forgotten afterwards


def test_normalisation_can_be_changed_at_call_time(extract):
    image = picture(300, 260)
    options = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    assert not torch.allclose(extract(image, image_processor_kwargs=options, **POOLED), extract(image, **POOLED))


def test_model_in_half_precision(folder):
    extract = pipeline("image-feature-extraction", model=str(folder), dtype=torch.bfloat16)
    assert extract(picture(300, 260), **POOLED).dtype == torch.bfloat16


@pytest.mark.slow
def test_a_compiled_and_frozen_pipeline_gives_the_same_features(extract, folder):
    """As the line of the README says; in float32, so that they can be compared closely."""
    torch._dynamo.utils.counters.clear()
    compiled = pipeline("image-feature-extraction", model=str(folder))
    compiled.model.compile(dynamic=False, options={"freezing": True})
    for size in ((300, 260), (224, 500)):
        expected = extract(picture(*size), **POOLED)
        found = compiled(picture(*size), **POOLED)
        torch.testing.assert_close(found, expected, atol=2e-6 * expected.abs().max().item(), rtol=0)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


@pytest.mark.parametrize("size", [(500, 300), (256, 256), (224, 224), (333, 777), (301, 260), (100, 80)])
def test_processor_is_the_evaluation_transform(folder, size):
    """Each backend is exactly torchvision's transform of such images; the two are two levels apart at most."""
    image = picture(*size)
    transform = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    references = {
        "pil": v2.functional.to_image(transform(image)),
        "torchvision": transform(v2.functional.to_image(image)),
    }
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for backend, reference in references.items():
        processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
        pixels = processor(image, return_tensors="pt").pixel_values[0] * std + mean
        torch.testing.assert_close(pixels, reference.as_subclass(torch.Tensor) / 255, rtol=0, atol=1e-5)
    difference = references["pil"].int() - references["torchvision"].int()
    assert difference.abs().max() <= 2
