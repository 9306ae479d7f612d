# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the images of a source that cannot be read, and ends the work when there are too many."""

import logging
from collections.abc import Mapping

from accelerate import PartialState
from accelerate.utils import gather_object

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import EmptySourceError
from modeling_esvit.images.wording import list_reasons, show_number


logger = logging.getLogger(__name__)

# A few bad files never end a run, however small the source.
TOLERATED_UNREADABLE = 10


class TooManyUnreadableImagesError(EsViTError, OSError):
    """Raised when so many images cannot be read that something else must be wrong."""


def limit_unreadable(num_images: int, max_unreadable: float) -> float:
    """Returns how many images may be unreadable: the share `max_unreadable`, but at least a few unless that is 0."""
    return max(TOLERATED_UNREADABLE, max_unreadable * num_images) if max_unreadable > 0 else 0


class SkipLog:
    """Collects the unreadable images of a run, each once. `limit_unreadable` says how many there may be."""

    def __init__(self, num_images: int, max_unreadable: float = 0.01) -> None:
        self.skipped: dict[str, str] = {}
        self.unshared: dict[str, str] = {}  # those of them that no other process knows of yet
        self._num_images = num_images
        self._limit = limit_unreadable(num_images, max_unreadable)

    def add(self, skipped: Mapping[str, str]) -> None:
        """Adds `Batch.skipped` of any process.

        Raises:
            TooManyUnreadableImagesError: there are now more than the limit allows.
        """
        self.unshared |= {name: reason for name, reason in skipped.items() if name not in self.skipped}
        self.skipped |= skipped
        self._check()

    def share(self) -> None:
        """Tells every process what the others could not read. All of them call it.

        Raises:
            TooManyUnreadableImagesError: on all processes: together they are more than the limit allows.
        """
        for skipped in gather_object([self.unshared]):
            self.skipped |= skipped
        self.unshared = {}
        self._check()

    def _check(self) -> None:
        if len(self.skipped) > self._limit:
            raise TooManyUnreadableImagesError(
                f"more than {self._limit:.0f} of {self._num_images} images cannot be read; remove or repair them, or "
                f"raise --max_unreadable, which pretraining and fine-tuning have. {self.summary()}"
            )

    def warn(self) -> None:
        """Logs the summary as a warning, on the main process, if there are any unreadable images."""
        if self.skipped and PartialState().is_main_process:
            logger.warning(self.summary())

    def make_empty_error(self) -> EmptySourceError:
        """Returns the error that says that none of the images can be read, and why."""
        return EmptySourceError(f"0 of {show_number(self._num_images, 'images')} can be read. {self.summary()}")

    def summary(self, max_names: int = 20) -> str:
        """Returns one line for each skipped image, or an empty text."""
        if not self.skipped:
            return ""
        lines = [f"Skipped {show_number(len(self.skipped), 'unreadable images')}:"]
        lines += sorted(list_reasons(dict(sorted(self.skipped.items())), max_names))
        if len(self.skipped) > max_names:
            lines.append(f"... and {len(self.skipped) - max_names} more")
        return "\n  ".join(lines)
