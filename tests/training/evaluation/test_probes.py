# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that each classifier is trained as if it were alone."""

import numpy as np
import torch
from torch import nn

from training.evaluation.probes import LinearProbes, Setting


def test_each_classifier_is_trained_as_if_alone():
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, 10, generator=generator), torch.randint(4, (6,), generator=generator)) for _ in range(8)]
    settings = [Setting("a", 10, 0.5), Setting("b", 3, 2.0), Setting("c", 10, 3.0)]
    together = LinearProbes(settings, 4, epochs=4, batch_size=128, seed=5, device="cpu")
    alone = []
    for setting in settings:
        linear = nn.Linear(setting.width, 4)
        nn.init.normal_(linear.weight, std=0.01, generator=torch.Generator().manual_seed(5))
        nn.init.zeros_(linear.bias)
        optimizer = torch.optim.SGD(linear.parameters(), lr=0.0, momentum=0.9)
        alone.append((setting, linear, optimizer))
    for number, (features, labels) in enumerate(batches):
        losses = together.step(features, labels)
        for index, (setting, linear, optimizer) in enumerate(alone):
            epoch = number // 2
            optimizer.param_groups[0]["lr"] = setting.lr * 128 / 256 * (1 + np.cos(np.pi * epoch / 4)) / 2
            loss = nn.functional.cross_entropy(linear(features[:, -setting.width :]), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(losses[index], loss.detach())
        if number % 2:
            together.end_epoch()
    for ours, (_, linear, _) in zip(together.linears, alone, strict=True):
        torch.testing.assert_close(ours.weight, linear.weight)
        torch.testing.assert_close(ours.bias, linear.bias)
    ranking = together.rank(batches[0][0])
    assert ranking.shape == (3, 6, 5) and (ranking[..., 4] == -1).all()
    assert torch.equal(ranking[1, :, 0], alone[1][1](batches[0][0][:, -3:]).argmax(dim=1))
