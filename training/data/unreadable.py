# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the images of a source that cannot be read, and ends the work when there are too many."""

import logging
from collections.abc import Mapping

from accelerate import PartialState

from modeling_esvit.errors import EsViTError


logger = logging.getLogger(__name__)

# A few bad files never end a run, however small the source.
TOLERATED_UNREADABLE = 10


class TooManyUnreadableImagesError(EsViTError, OSError):
    """Raised when so many images cannot be read that something else must be wrong."""


class SkipLog:
    """Collects the unreadable images of a run, each once.

    At most the share `max_unreadable` of `num_images` may be unreadable. Up to TOLERATED_UNREADABLE are always allowed,
    however small the source, unless `max_unreadable` is 0.
    """

    def __init__(self, num_images: int, max_unreadable: float = 0.01) -> None:
        self.skipped: dict[str, str] = {}
        self._num_images = num_images
        self._limit = max(TOLERATED_UNREADABLE, max_unreadable * num_images) if max_unreadable > 0 else 0

    def add(self, skipped: Mapping[str, str]) -> None:
        """Adds `Batch.skipped` of any process.

        Raises:
            TooManyUnreadableImagesError: there are now more than the limit allows.
        """
        self.skipped.update(skipped)
        if len(self.skipped) > self._limit:
            raise TooManyUnreadableImagesError(
                f"more than {self._limit:.0f} of {self._num_images} images cannot be read; remove or repair them, or "
                f"raise max_unreadable. {self.summary()}"
            )

    def warn(self) -> None:
        """Logs the summary as a warning, on the main process, if there are any unreadable images."""
        if self.skipped and PartialState().is_main_process:
            logger.warning(self.summary())

    def summary(self, max_names: int = 20) -> str:
        """Returns one line for each skipped image, or an empty text."""
        if not self.skipped:
            return ""
        lines = [f"{len(self.skipped)} unreadable images were skipped:", *sorted(self.skipped.values())[:max_names]]
        if len(self.skipped) > max_names:
            lines.append(f"... and {len(self.skipped) - max_names} more")
        return "\n  ".join(lines)
