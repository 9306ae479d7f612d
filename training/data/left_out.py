# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says what lies beside the images of a source and is not read, by kind."""

import logging

from accelerate import PartialState

from training.data.sources import ImageSource
from training.data.unreadable import SkipLog


logger = logging.getLogger(__name__)


def warn_of_left_out(name: str, source: ImageSource) -> None:
    """Logs on the main process what is not read of the data called `name`, if there is any: "30 .heic" and so on."""
    if (described := source.left_out.describe()) and PartialState().is_main_process:
        logger.warning("Not read in %s: %s.", name, described)


def repeat_left_out(name: str, source: ImageSource, skipped: SkipLog) -> None:
    """Logs at the end of a program what is not read of the data called `name`: files and images, by kind and name."""
    warn_of_left_out(name, source)
    skipped.warn()
