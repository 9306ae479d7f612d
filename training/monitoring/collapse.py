# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Watches for a collapse, the failure of self-distillation that raises no error.

The teacher gives every image the same distribution over prototypes, and the loss stays at ln K; or the features keep
few dimensions.
"""

import math

import torch


STUCK = 0.01  # distance of the loss from ln K, as a share of it
MIN_RANK = 3.0  # RankMe; of collapsed features it is 1
PATIENCE = 500  # steps


def compute_rank_me(features: torch.Tensor) -> float:
    """Returns the effective rank of features `[N, D]`, between 1 and min(N, D).

    The singular values are divided by their sum; the rank is exp of the entropy of these shares (RankMe, arXiv
    2210.02885, equation 1).
    """
    features = features.double()
    gram = features.T @ features if len(features) > features.shape[1] else features @ features.T
    singular_values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular_values / singular_values.sum()
    return float(torch.special.entr(share).sum().exp())


def spread(features: torch.Tensor) -> float:
    """Returns the standard deviation of unit vectors `[N, D]`, averaged over dimensions and scaled by sqrt(D).

    It is about 1 if they point everywhere, and 0 if all are the same (as in SimSiam, arXiv 2011.10566, section 4.1).
    """
    return float(features.std(dim=0, correction=0).mean() * math.sqrt(features.shape[1]))


class CollapseWatch:
    """Warns, once for each reason, when `PATIENCE` steps after the warm-up looked like a collapse."""

    def __init__(self, num_prototypes: int, warm_step: int):
        """Starts watching from `warm_step` on, when learning rate and teacher temperature are warmed up."""
        self.uniform = math.log(num_prototypes)
        self.warm_step = warm_step
        self.since: dict[str, int] = {}  # the step at which each sign was first seen without a break
        self.said: set[str] = set()

    def find_warnings(self, step: int, view_loss: float, rank: float) -> list[str]:
        """Returns the warnings that are due after `step` steps."""
        signs = {
            f"the view loss is within {STUCK:.0%} of ln K = {self.uniform:.2f}, so the teacher's distributions are all "
            "alike and nothing is learnt": abs(view_loss - self.uniform) <= STUCK * self.uniform,
            f"the effective rank of the teacher's features is below {MIN_RANK:g}, so they are nearly the same for all "
            "images": rank < MIN_RANK,
        }
        if step <= self.warm_step:
            return []
        return [self.advise(sign, step) for sign, seen in signs.items() if self.lasts(sign, seen, step)]

    def lasts(self, sign: str, seen: bool, step: int) -> bool:
        """Returns whether a sign has been seen for `PATIENCE` steps without a break, and was not reported yet."""
        if not seen:
            self.since.pop(sign, None)
            return False
        first = self.since.setdefault(sign, step)
        if step - first < PATIENCE or sign in self.said:
            return False
        self.said.add(sign)
        return True

    def advise(self, sign: str, step: int) -> str:
        """Returns the warning for a sign, with what to change."""
        return (
            f"Warning: since step {self.since[sign]}, {sign}. Start again with a lower --teacher_temp (0.04), a longer "
            "warm-up (--warmup_teacher_temp_epochs, --warmup_epochs), a lower --lr, or larger batches "
            f"(--gradient_accumulation_steps); at step {step}, more training will not repair it."
        )
