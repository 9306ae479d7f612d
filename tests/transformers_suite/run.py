# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs transformers' own common tests on our classes.

python tests/transformers_suite/run.py [pytest options]
"""

import os
import subprocess
import sys

from fetch_upstream import SUITE, prepare


if __name__ == "__main__":
    folder = prepare()
    paths = [str(SUITE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "tests/models/esvit", *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, cwd=folder, env=environment).returncode)
