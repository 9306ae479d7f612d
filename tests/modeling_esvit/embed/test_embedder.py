# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`modeling_esvit.embed`: what the model gives by hand, however images are read, parts made, and features written."""

import json
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from modeling_esvit.embed.embedder import Embedder, FeatureError, embed, embed_to_file
from modeling_esvit.embed.inputs import NoImagesError, find_images
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import DecodingOptions
from modeling_esvit.storage.locks import InUseError, lock


def test_models_of_others(images, tmp_path):
    """A class token that is pooled, and a feature map `[B, C, H, W]`."""
    torch.manual_seed(0)
    number = len(list(images.rglob("*.png")))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    vit = ViTModel(ViTConfig(image_size=32, patch_size=16, **small))
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    for model, shape in ((vit, (5, 8)), (resnet, (16, 16))):
        name = tmp_path / type(model).__name__
        model.save_pretrained(name)
        (name / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}})
        )
        features = embed(Embedder.from_pretrained(str(name)), [str(images)], regions=True)
        assert features.view.shape == (number, shape[1])
        assert features.regions.shape == (number, *shape)
    ViTModel(vit.config, add_pooling_layer=False).save_pretrained(tmp_path / "unpooled")
    shutil.copy(name / "preprocessor_config.json", tmp_path / "unpooled")
    with pytest.raises(FeatureError, match="ViTModel gives no pooler_output"):  # instead of one of random weights
        embed(Embedder.from_pretrained(str(tmp_path / "unpooled")), [str(images)])
    for side in (8, 64):
        with pytest.raises(FeatureError, match=f"ViTModel takes no images of {side} px: "):
            Embedder.from_pretrained(str(tmp_path / "ViTModel"), image_size=side)


def test_two_calls_do_not_write_one_output(images, folder, tmp_path):
    embedder, found = Embedder.from_pretrained(folder), find_images(str(images))
    output, parts = tmp_path / "x.npz", tmp_path / "x.npz.parts"
    parts.mkdir()
    with lock(parts, output), pytest.raises(InUseError, match="Another process is writing .*x.npz at this moment"):
        embed_to_file(embedder, found, output, settings={})
    embed_to_file(embedder, found, output, settings={})
    assert output.exists() and not parts.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": "bf16"}, "dtype is 'bf16'; choose one of 'auto', 'float32', 'float16', 'bfloat16'"),
        ({"dtype": "float64"}, "dtype is 'float64'; choose one of"),
        ({"compile": "yes"}, "compile is 'yes'; choose one of 'auto', 'on', 'off'"),
        ({"compile": True}, "compile is True; choose one of"),
        ({"device": "foo"}, "device foo cannot be used"),
    ],
)
def test_words_that_are_no_choice_are_refused(folder, given, message):
    with pytest.raises(EsViTError, match=message):
        Embedder.from_pretrained(folder, **given)


def test_features_that_are_not_finite(folder, images):
    embedder = Embedder.from_pretrained(folder)
    embedder.model.encoder.norm.weight.data.fill_(float("nan"))
    with pytest.raises(FeatureError, match=r"The feature of .*00\.png is not finite, nor are 10 more"):
        embed(embedder, [str(images)])


def test_images_in_memory_have_the_features_of_their_files(folder, images, by_hand):
    file = images / "00.png"
    embedder, expected = Embedder.from_pretrained(folder, dtype="float32"), by_hand[str(file)][0]
    array = np.asarray(Image.open(file))
    for given in (str(file), file, Image.open(file), array, [Image.fromarray(array)], iter([array / 255])):
        np.testing.assert_allclose(embed(embedder, given).view, expected[None], atol=1e-5)
    found = embed(embedder, [file, array.astype(np.int32), b"broken"])
    assert found.names == [str(file)] and list(found.unreadable) == ["image 1", "image 2"]


def make_batch(images: Path) -> dict[str, list]:
    """Returns rows of all kinds: two files by their bytes, one in memory, and three that cannot be read."""
    file = images / "00.png"
    good = [{"bytes": file.read_bytes(), "path": "a.png"}, file.read_bytes(), Image.open(file)]
    return {"photo": [*good, {"bytes": b"", "path": "b.png"}, None, str(file)]}


@pytest.mark.parametrize("copy", [lambda embedder: embedder, lambda embedder: pickle.loads(pickle.dumps(embedder))])
def test_an_embedder_is_called_on_batches(folder, images, by_hand, copy):
    embedder, (view, regions) = Embedder.from_pretrained(folder, dtype="float32"), by_hand[str(images / "00.png")]
    batch = make_batch(images)
    found = copy(embedder)(batch, "photo", regions=True, batch_size=2)
    assert found["unreadable"][:3] == [""] * 3 and list(found) == ["view", "regions", "unreadable"]
    for row in range(3):
        np.testing.assert_allclose(found["view"][row], view, atol=1e-5)
        np.testing.assert_allclose(found["regions"][row], regions, atol=1e-5)
    assert found["view"][3:] == found["regions"][3:] == [None] * 3
    for reason, start in zip(found["unreadable"][3:], ("row 3 (b.png): ", "row 4: ", "row 5 ("), strict=True):
        assert reason.startswith(start)
    assert "is no file of the data set" in found["unreadable"][5]
    opened = embedder({"photo": batch["photo"][5:]}, "photo", decoding=DecodingOptions(allow_paths=True))
    np.testing.assert_allclose(opened["view"][0], view, atol=1e-5)
    assert embedder({"photo": [None]}, "photo")["view"] == [None]


def test_what_is_no_batch(folder, images):
    embedder = Embedder.from_pretrained(folder)
    with pytest.raises(NoImagesError, match=r"no column 'image', only \['photo'\]: name one as image_column"):
        embedder(make_batch(images))
    with pytest.raises(NoImagesError, match="'image' is one image, not a batch of rows: map with batched=True"):
        embedder({"image": Image.new("RGB", (9, 9))})
    content = (images / "00.png").read_bytes()
    for wrong in (bytearray(content), [[0, 0], [0, 0]], torch.zeros(3, 9, 9), 7):
        with pytest.raises(NoImagesError, match=f"'image' has a {type(wrong).__name__} in row 1, which is no image"):
            embedder({"image": [content, wrong]})
    rows = datasets.Dataset.from_dict({"image": [str(images / "00.png")]}).cast_column("image", datasets.Image())
    with pytest.raises(NoImagesError, match=r"has a Tensor in row 0, .* map dataset.with_format\(None\)"):
        rows.with_format("torch").map(embedder, batched=True)


def test_data_sets_are_mapped(folder, images, by_hand):
    embedder, files = Embedder.from_pretrained(folder, dtype="float32"), sorted(map(str, images.rglob("*.png")))
    rows = datasets.Dataset.from_dict({"image": files, "n": range(len(files))})
    rows = rows.cast_column("image", datasets.Image())
    mapped = rows.map(embedder, batched=True, batch_size=4, remove_columns="image")
    assert mapped.column_names == ["n", "view", "unreadable"] and set(mapped["unreadable"]) == {""}
    np.testing.assert_allclose(mapped["view"], [by_hand[file][0] for file in files], atol=1e-5)


@pytest.mark.slow
def test_data_sets_are_mapped_by_several_processes(folder, images, by_hand, monkeypatch, tmp_path):
    """The model has computed in several threads before, whose locks processes must not inherit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embedder, files = Embedder.from_pretrained(folder, dtype="float32"), sorted(map(str, images.rglob("*.png")))
        embed(embedder, files)
        contents = [{"bytes": Path(file).read_bytes(), "path": file} for file in files] + [{"bytes": b"", "path": "b"}]
        rows = datasets.Dataset.from_dict({"image": contents}).cast_column("image", datasets.Image(decode=False))
        mapped = rows.map(embedder, batched=True, batch_size=4, num_proc=2)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(mapped["view"][: len(files)], [by_hand[file][0] for file in files], atol=1e-5)
    assert mapped["view"][len(files)] is None
    assert mapped["unreadable"][len(files)].startswith("row 1 (b): ")
