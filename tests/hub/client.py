# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes a small loopback Hub, and runs the real clients against it in a process."""

import json
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from tests.hub.loopback_hub import LoopbackHub
from tests.hub.protocol import Repository
from tests.hub.repositories import imagenet_1k, imagenet_1k_wds


TOKENS = {"hf_granted_secret": "granted", "hf_other_secret": "other"}
GRANTED, OTHER = TOKENS


@cache
def small_repositories() -> list[Repository]:
    """Returns two repositories: 5 and 2 parquet files, 4 and 2 tar files."""
    return [imagenet_1k(train=5, validation=2, test=0), imagenet_1k_wds(train=4, validation=2)]


def small_hub() -> LoopbackHub:
    """Returns a Hub with a log, faults and uploads of its own."""
    return LoopbackHub(small_repositories(), TOKENS)


def client(hub: LoopbackHub, home: Path, *scripts: str, token: str | None = None, **variables: str) -> Any:
    """Runs scripts one after the other in a process whose clients know this Hub only, and returns their `result`."""
    program = "\n".join(["import json", *map(textwrap.dedent, scripts), "print('RESULT', json.dumps(result))"])
    environment = hub.environment(home, token, OMP_NUM_THREADS="1", **variables)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=home, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])
