# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which errors mean that another process is gone; `test_launch.py` kills one."""

import pytest
from torch.distributed import DistBackendError

from modeling_esvit.programs.lost_process import LostProcessError, report_lost_process


@pytest.mark.parametrize(
    "error",
    [
        DistBackendError("NCCL error in: ProcessGroupNCCL.cpp: remote process exited"),
        RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer."
        ),
    ],
)
def test_a_failed_exchange_is_said_in_a_sentence(error, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(LostProcessError, match="^Process 1 of 4 .* lost another one.*the same command continues"):
        with report_lost_process():
            raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="^shapes cannot be multiplied$"), report_lost_process():
        raise RuntimeError("shapes cannot be multiplied")
