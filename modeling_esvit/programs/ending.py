# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program of the package with a line instead of a traceback."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modeling_esvit.errors import EsViTError


INTERRUPTED = 130  # as shells say it of a program that Ctrl-C has ended


@contextmanager
def exit_with_message(
    is_for_user: Callable[[BaseException], bool] | None = None, get_message: Callable[[BaseException], str] = str
) -> Iterator[None]:
    """Ends the program with the message of an error of this project or of a file (status 1), or after Ctrl-C.

    Args:
        is_for_user: whether a user can put such an error right; others keep their tracebacks. By default all are.
        get_message: what is said of it.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (EsViTError, OSError) as error:
        if is_for_user is not None and not is_for_user(error):
            raise
        sys.exit(f"error: {get_message(error)}")
