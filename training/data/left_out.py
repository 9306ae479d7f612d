# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says which files of a source of images are not read, by kind."""

import logging

from accelerate import PartialState

from training.data.sources import FolderSource, ImageSource


logger = logging.getLogger(__name__)


def describe_left_out(source: ImageSource) -> str:
    """Returns what lies beside the images of a source, such as "30 .heic: pip install pillow-heif", or nothing."""
    return source.left_out.describe() if isinstance(source, FolderSource) else ""


def warn_of_left_out(name: str, source: ImageSource) -> None:
    """Logs on the main process what is not read of the data called `name`, if there is any."""
    if (described := describe_left_out(source)) and PartialState().is_main_process:
        logger.warning("Not read in %s: %s.", name, described)
