# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws which images are alike to a model: a map of features, and a sheet of nearest neighbours."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from modeling_esvit.images.decoding import decode
from training.features.bank import FeatureBank
from training.features.extraction import LabelledImages
from training.state.figure_files import shorten_name


THUMBNAIL = 160  # pixels
NAMED_CLASSES = 20  # more have no legend


def name_class(bank: FeatureBank, label: int) -> str:
    return str(label) if bank.class_names is None else bank.class_names[label]


def draw_map(points: np.ndarray, labels: Tensor, bank: FeatureBank, title: str) -> Figure:
    figure = Figure(figsize=(9.5, 7), layout="constrained")
    axes = figure.add_subplot()
    classes = labels.unique().tolist()
    few = len(classes) <= NAMED_CLASSES
    colours = colormaps["tab20" if few else "gist_rainbow"]
    for number, label in enumerate(classes):
        own = (labels == label).numpy()
        colour = colours(number) if few else colours(number / len(classes))
        marker = "os^D"[number % 4]
        x, y = points[own].T
        axes.scatter(x, y, s=14, color=[colour], marker=marker, label=name_class(bank, label), linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize="medium", wrap=True)
    axes.set_xlabel("Near points are similar images; axes have no unit. Healthy: images of a class lie together.")
    if few:
        figure.legend(loc="outside right upper", fontsize="small", markerscale=1.5)
    return figure


def read_thumbnail(images: LabelledImages, name: str, row: int) -> Image.Image:
    """Returns the image of a row of the bank, which lacks those before it that could not be read."""
    index = next(index for index in range(row, len(images)) if images.name(index) == name)
    picture = decode(images.source.read(next(images.items(range(index, index + 1)))))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture


def draw_neighbours(
    bank: FeatureBank, images: LabelledImages, queries: Tensor, similarity: Tensor, rows: Tensor
) -> Figure:
    """Draws a row for each query: the query, then its neighbours, each with its similarity above and its name below.

    A frame says whether they have the query's class.
    """
    figure = Figure(figsize=(1.5 * (rows.shape[1] + 1), 0.6 + 1.9 * len(queries)), layout="constrained")
    grid = figure.subplots(len(queries), rows.shape[1] + 1, squeeze=False)
    for cells, query, scores, found in zip(grid, queries.tolist(), similarity.tolist(), rows.tolist(), strict=True):
        titles = [name_class(bank, int(bank.labels[query])), *(f"{score:.2f}" for score in scores)]
        for cell, row, title in zip(cells, [query, *found], titles, strict=True):
            cell.imshow(read_thumbnail(images, bank.names[row], row))
            cell.set(xticks=[], yticks=[])
            cell.set_title(title, fontsize=8, fontweight="bold" if row == query else "normal")
            cell.set_xlabel(shorten_name(bank.names[row]), fontsize=6)
            same = bank.labels[row] == bank.labels[query]
            for spine in cell.spines.values():
                spine.set(color="black" if row == query else "tab:green" if same else "tab:red", linewidth=2.5)
    title = "Left: an image and its class. Then its neighbours with their cosines, green if of its class, else red."
    figure.suptitle(
        f"{title}\nHealthy: mostly green, far above the share of the class among all images.", fontsize=9, wrap=True
    )
    return figure
