# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Watches for a collapse, the failure of self-distillation that raises no error.

The teacher gives every image the same distribution over prototypes, and the loss stays at ln K; or the features keep
few dimensions.
"""

import math
from collections.abc import Mapping

import torch


STUCK = 0.01  # distance of the loss from ln K, as a share of it
MIN_RANK = 3.0  # RankMe; of collapsed features it is 1
PATIENCE = 500  # steps
CHANCE_TIMES = 2  # matches are wrong if fewer than so many times those of chance are right
FEW = 0.2  # share of the regions of a view; regions that choose fewer have collapsed to a few
NO_MATCHES: Mapping[str, float | None] = {}


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

    def __init__(self, num_prototypes: int, warm_step: int, feature_step: int | None = None):
        """Starts watching from `warm_step` on, when learning rate and teacher temperature are warmed up.

        Args:
            feature_step: The step from which on the most similar regions are the targets of the region task; None if
                they never are.
        """
        self.uniform = math.log(num_prototypes)
        self.warm_step, self.feature_step = warm_step, feature_step
        self.since: dict[str, int] = {}  # the step at which each sign was first seen without a break
        self.said: set[str] = set()

    def find_warnings(
        self, step: int, view_loss: float, rank: float, matches: Mapping[str, float | None] = NO_MATCHES
    ) -> list[str]:
        """Returns the warnings that are due after `step` steps.

        Args:
            matches: See `average_matches`; empty if they were not measured.
        """
        stuck = (
            f"the view loss is within {STUCK:.0%} of ln K = {self.uniform:.2f}, so the teacher's distributions are all "
            "alike and nothing is learnt"
        )
        low = (
            f"the effective rank of the teacher's features is below {MIN_RANK:g}, so they are nearly the same for all "
            "images"
        )
        if step <= self.warm_step:
            return []
        signs = [("loss", stuck, abs(view_loss - self.uniform) <= STUCK * self.uniform), ("rank", low, rank < MIN_RANK)]
        found = [self.advise(sign, reason, step) for sign, reason, seen in signs if self.lasts(sign, seen, step)]
        return found + self.find_wrong_matches(step, matches)

    def find_wrong_matches(self, step: int, matches: Mapping[str, float | None]) -> list[str]:
        """Returns the warning that regions learn from wrong targets, if it is due."""
        accuracy, chance = matches.get("region_match_accuracy"), matches.get("region_match_chance")
        if self.feature_step is None or step <= self.feature_step or accuracy is None or chance is None:
            return []
        distinct = matches["region_match_distinct"] or 0.0
        few = min(CHANCE_TIMES * chance, (1 + chance) / 2)  # of few regions, twice those of chance would be all
        if not self.lasts("matches", accuracy < few or distinct < FEW, step):
            return []
        return [
            f"Warning: since step {self.since['matches']}, the region task learns from wrong matches ({accuracy:.0%} "
            f"are right, chance {chance:.0%}; {distinct:.0%} of the regions are chosen at all). Start again with "
            "--region_matching location, or from a trained model (--init_from)."
        ]

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

    def advise(self, sign: str, reason: str, step: int) -> str:
        """Returns the warning for a sign, with what to change."""
        return (
            f"Warning: since step {self.since[sign]}, {reason}. Start again with a lower --teacher_temp (0.04), a "
            "longer warm-up (--warmup_teacher_temp_epochs, --warmup_epochs), a lower --lr, or larger batches "
            f"(--gradient_accumulation_steps); at step {step}, more training will not repair it."
        )
