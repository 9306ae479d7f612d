# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows the progress of long work: as a bar in a terminal or notebook, elsewhere as a plain line now and then."""

import io
import os
import sys
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as PlainTqdm


LINE_EVERY = 60.0  # seconds between two lines where there is no terminal
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed} so far, {remaining} left{postfix}\n"


def is_watched() -> bool:
    """Returns whether somebody looks at what is drawn anew in place: in a terminal, or in a notebook.

    A terminal of no width, as some containers and job runners give, shows no bar.
    """
    if is_notebook():
        return True
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def is_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook, and not one that only has its packages."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


class ProgressLines(PlainTqdm):
    """Prints a line where tqdm would draw its bar, for the files into which the output of programs is sent."""

    def __init__(self, **options: Any):
        super().__init__(**options | {"mininterval": LINE_EVERY, "maxinterval": LINE_EVERY})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Prints a line, but none at the beginning and the end: what a program has done is said by itself."""
        if msg is None and 0 < self.n < (self.total or 0):
            values = {key: value for key, value in self.format_dict.items() if key not in ("prefix", "bar_format")}
            self.fp.write(self.format_meter(**values, prefix=self.desc, bar_format=LINE))

    def close(self) -> None:
        """Ends it without the last words of a bar."""
        self.fp = io.StringIO()
        super().close()


def show_progress(description: str, total: int, unit: str, *, shown: bool = True, **options: Any) -> Any:
    """Returns a bar of tqdm, or what prints lines in its place. `shown` is for one of several processes."""
    options |= {"desc": description, "total": total, "unit": unit, "disable": not shown}
    return tqdm(**options, dynamic_ncols=True) if is_watched() else ProgressLines(**options)
