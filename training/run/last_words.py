# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a run with one clear message, in one process or in many."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from modeling_esvit.programs.ending import describe_stop
from training.options.command import exit_with_message
from training.options.errors import SharedError
from training.state.interruption import EXIT_CODE, InterruptedRunError


@contextmanager
def exit_as_one() -> Iterator[None]:
    """Ends one of the processes of a run by [`exit_with_message`], and an interrupted run with its own exit status.

    When all processes fail for the same reason, only the main one reports it.
    """
    with exit_with_message():
        try:
            yield
        except InterruptedRunError as error:
            exit_unless_main(EXIT_CODE)
            print(error, file=sys.stderr)
            sys.exit(EXIT_CODE)
        except KeyboardInterrupt as error:
            name, code = describe_stop(error)
            exit_unless_main(code)
            print(
                f"\nEnded at once by {name}. The same command continues from the last checkpoint, if there is one.",
                file=sys.stderr,
            )
            sys.exit(code)
        except SharedError:
            exit_unless_main(1)
            raise


def exit_unless_main(code: int) -> None:
    """Ends every process but the main one without a message, when all of them fail for the same reason.

    They wait a little: a launcher that sees one of them end stops the others, maybe before the main one has printed its
    message.
    """
    if int(os.environ.get("RANK", 0)):
        time.sleep(1)
        sys.exit(code)
