# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program of the package with a line instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from modeling_esvit.errors import EsViTError


INTERRUPTED = 130  # as shells say it of a program that Ctrl-C has ended


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the program with the message of an error of this project or of a file (status 1), or after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (EsViTError, OSError) as error:
        sys.exit(f"error: {error}")
