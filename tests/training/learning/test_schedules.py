# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks schedules against the original and against the logs of its authors."""

import numpy as np
import pytest

from tests.helpers.golden import load
from training.learning.schedules import ScheduleError, cosine_schedule, teacher_temp_schedule


SCHEDULES = {
    "lr": (5e-4, 1e-6, 10, 7, 3),
    "lr_startwarm": (5e-4, 1e-6, 5, 4, 2, 1e-5),
    "wd": (0.04, 0.4, 10, 7),
    "momentum": (0.996, 1.0, 10, 7),
    "all_warmup": (1.0, 0.0, 2, 5, 2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_cosine_schedule_is_exact(name):
    assert np.array_equal(cosine_schedule(*SCHEDULES[name]), load("golden_schedules")[name].numpy())


@pytest.mark.parametrize(
    "peak, steps, logged", [(1e-3, 2502, 0.00025939212681290886), (2e-3, 1251, 0.0005180447994195404)]
)
def test_learning_rate_of_the_authors_logs(peak, steps, logged):
    lr = cosine_schedule(peak, 1e-6, 300, steps, warmup_epochs=10)
    assert lr[201 * steps : 202 * steps].mean() == pytest.approx(logged, rel=1e-15)


def test_teacher_temperature():
    assert np.allclose(teacher_temp_schedule(0.04, 0.07, 3, 5), [0.04, 0.055, 0.07, 0.07, 0.07], rtol=1e-15)
    assert np.allclose(teacher_temp_schedule(0.04, 0.07, 0, 2), [0.07, 0.07])


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ScheduleError, match="11 epochs does not fit into 10"):
        cosine_schedule(1.0, 0.0, 10, 5, warmup_epochs=11)
    with pytest.raises(ScheduleError, match="3 epochs does not fit into 2"):
        teacher_temp_schedule(0.04, 0.07, 3, 2)
