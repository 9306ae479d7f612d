# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program with one clear message, in one process or in many."""

import os
import sys
import time


def leave_word_to_main(code: int) -> None:
    """Ends every process but the main one without a message, when all of them fail for the same reason. They wait a
    little: a launcher that sees one of them end stops the others, maybe before the main one has printed its message.
    """
    if int(os.environ.get("RANK", 0)):
        time.sleep(1)
        sys.exit(code)


def message_of(error: BaseException) -> str:
    """Returns the message of an error, without the traceback that torch puts around one of a worker."""
    text = str(error).strip()
    return text.rpartition(f"{type(error).__name__}: ")[2] if text.startswith("Caught ") else text
