# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the features of a collection for a search, keeps them in a file, and reuses that file the next time.

features = embed_or_reuse(embedder, find_images("photographs/"), Path("features.parquet"))

The file is one of `python -m modeling_esvit.embed`. What cannot be read is said in its words.
"""

from pathlib import Path

from modeling_esvit.embed.embedder import Embedder, describe_losses, embed_images, embed_to_file
from modeling_esvit.embed.files import Features, check_output, load_features
from modeling_esvit.embed.inputs import Images
from modeling_esvit.embed.origin import check_origin, make_origin
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from modeling_esvit.images.names import show_name


def embed_or_reuse(
    embedder: Embedder, images: Images, file: Path | None = None, decoding: DecodingOptions = DEFAULT
) -> Features:
    """Returns the features of images, and prints what they lack.

    Args:
        file: where they are kept, or taken from if the file exists; None to keep them in memory alone.
        decoding: how the images are decoded.

    Raises:
        OutputError: the file holds features of other images or another model, or none, or its suffix names no format;
            or no image can be read.
        FeatureError: the model gives no view feature, or one that is not finite.
    """
    if file is None:
        features = embed_images(embedder, images)
        for line in describe_losses(images, features.unreadable):
            print(line)
        return features
    check_output(file, overwrite=True)
    settings = {**embedder.describe(), **decoding.describe()}
    if not file.exists():
        embed_to_file(embedder, images, file, settings=settings)
        return load_features(file)
    features = check_origin(load_features(file), make_origin(settings, images.identify()), file)
    print(f"reuses the features of {len(features.names)} of {len(images)} images: {show_name(str(file))}")
    for line in describe_losses(images, {}):
        print(line)
    return features
