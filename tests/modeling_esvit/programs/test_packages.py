# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a missing package is one line, and that every program says so."""

import json

import pytest

from modeling_esvit.programs.packages import exit_without_package
from tests.helpers.commands import run_program
from tests.helpers.paths import ROOT


# What the extras bring, and other packages of this project do not.
EXTRAS = ["accelerate", "cv2", "datasets", "evaluate", "faiss", "gradio", "matplotlib", "psutil", "pyarrow", "ray"]
EXTRAS += ["skimage", "sklearn", "tensorboard"]
RUN_ALL = """
import json, runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))  # to import one is a ModuleNotFoundError
ends = {}
for path in sys.argv[2:]:
    sys.argv[0] = path
    try:
        runpy.run_path(path, run_name="__main__")
    except BaseException as error:
        ends[path] = repr(error)
print(json.dumps(ends))
"""


def test_a_missing_package_is_one_line():
    with pytest.raises(SystemExit) as ended, exit_without_package("pip install that"):
        import no_such_package  # noqa: F401
    assert ended.value.code == "error: this needs the package no_such_package: pip install that"
    with pytest.raises(ImportError), exit_without_package():
        from json import no_such_name  # noqa: F401


@pytest.mark.slow
def test_every_program_says_what_is_not_installed():
    """Runs the programs without any package of an extra, one after the other in one process."""
    programs = [*ROOT.glob("training/*.py"), *ROOT.glob("examples/*.py"), ROOT / "examples" / "app" / "app.py"]
    programs = sorted(path for path in programs if '__name__ == "__main__"' in path.read_text())
    done = run_program(["python", "-c", RUN_ALL, " ".join(EXTRAS), *programs], timeout=600)
    ends = json.loads(done.stdout.splitlines()[-1])
    assert set(ends) == set(map(str, programs))
    wrong = {path: end for path, end in ends.items() if not end.startswith('SystemExit("error: this needs the package')}
    assert not wrong
