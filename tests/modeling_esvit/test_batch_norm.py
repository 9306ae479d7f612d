# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""BatchNorm over all processes: two of them (gloo, on the CPU) equal one that holds the joint batch."""

import copy
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modeling_esvit import EsViTBackboneError, EsViTConfig, EsViTForPreTraining
from modeling_esvit.batch_norm import EsViTBatchNorm, convert_norm, join_batches
from tests.helpers.cvt_models import HEADS, tiny_config


SHARES = (3, 5)  # images of each process
# A fork need not import anything. Beside a GPU, autograd refuses to compute in one.
START = "fork" if sys.platform == "linux" and not torch.accelerator.is_available() else "spawn"


def norm_of(dims: int) -> nn.Module:
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](4).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(4, generator=generator) + 0.5)
    return norm


def batch_of(dims: int) -> torch.Tensor:
    values = torch.randn(
        sum(SHARES), 4, *(7, 5, 3)[:dims], generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    return 1000 + values  # a mean far from zero, where sums of squares would lose all digits of the variance


def weighted(output: torch.Tensor, first: int = 0) -> torch.Tensor:
    """A loss of some rows of a batch, whose gradient differs everywhere."""
    rows = torch.arange(first, first + len(output), dtype=output.dtype).view(-1, *[1] * (output.ndim - 1))
    return (output.sin() * (1 + rows)).sum()


RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
CONFIGS = {
    "cvt": tiny_config(head_batch_norm=True),
    "resnet": EsViTConfig(architecture="auto", backbone_config=RESNET, **HEADS),
}


NETWORKS = [("cvt", False), ("cvt", True), ("resnet", False)]  # and whether its blocks are recomputed


def student(name: str) -> EsViTForPreTraining:
    torch.manual_seed(0)
    return EsViTForPreTraining(CONFIGS[name]).double().train()


def crops(share: slice) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = [(sum(SHARES), 3, 32, 32), (sum(SHARES), 3, 16, 24)]
    return [torch.randn(*size, generator=generator, dtype=torch.float64)[share] for size in sizes]


def loss_of(output) -> torch.Tensor:
    """Of the logits of both tasks, so that every parameter takes part, as DistributedDataParallel wants it."""
    view = output.view_embeddings @ output.view_prototypes.T
    region = output.region_embeddings @ output.region_prototypes.T
    return view.square().sin().sum() + region[:, 0].sum()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # a fork has no other threads
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    first = sum(SHARES[:rank])
    share = slice(first, first + SHARES[rank])
    results = {}
    for dims in (1, 2, 3):
        holder = nn.ModuleDict({"norm": norm_of(dims)})
        join_batches(holder)
        rows = batch_of(dims)[share].requires_grad_()
        weighted(holder["norm"](rows), first).backward()
        results[f"module {dims}"] = (
            rows.grad,
            {n: p.grad for n, p in holder.named_parameters()},
            dict(holder.named_buffers()),
        )
    for name, recomputed in NETWORKS:
        model = student(name)
        join_batches(model)
        if recomputed:
            model.gradient_checkpointing_enable()
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        loss_of(wrapped(crops(share))).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results[f"{name} {recomputed}"] = (gradients, dict(model.named_buffers()))
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method=START)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_module(dims, shares):
    norm, rows = norm_of(dims), batch_of(dims).requires_grad_()
    weighted(norm(rows)).backward()
    (first, parameters, buffers), (second, others, same) = (share[f"module {dims}"] for share in shares)
    torch.testing.assert_close(torch.cat([first, second]), rows.grad, rtol=1e-9, atol=1e-9)
    for name, parameter in norm.named_parameters():
        torch.testing.assert_close(parameters[f"norm.{name}"] + others[f"norm.{name}"], parameter.grad)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffers[f"norm.{name}"], buffer)
        assert torch.equal(buffers[f"norm.{name}"], same[f"norm.{name}"])


@pytest.mark.parametrize(("name", "recomputed"), NETWORKS)
def test_a_network(name, recomputed, shares):
    """Gradients, here averages over processes, and running statistics of backbone and heads."""
    model = student(name)
    loss_of(model(crops(slice(None)))).backward()
    (gradients, buffers), (others, same) = (share[f"{name} {recomputed}"] for share in shares)
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == trained.keys() and len(buffers) > 6
    for key, parameter in trained.items():
        torch.testing.assert_close(2 * gradients[key], parameter.grad, rtol=1e-7, atol=1e-9, msg=key)
        assert torch.equal(gradients[key], others[key])
    for key, buffer in model.named_buffers():
        torch.testing.assert_close(buffers[key], buffer)
        assert torch.equal(buffers[key], same[key])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_process_equals_torch(dims):
    """Outputs, gradients and running statistics, in training and evaluation."""
    torchs, rows = norm_of(dims), batch_of(dims)
    ours = EsViTBatchNorm(4).double()
    ours.load_state_dict(torchs.state_dict())
    for training in (True, True, False):
        inputs = [rows.clone().requires_grad_() for _ in range(2)]
        outputs = [norm.train(training)(x) for norm, x in zip((ours, torchs), inputs, strict=True)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            weighted(output).backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
        for (name, buffer), expected in zip(ours.named_buffers(), torchs.buffers(), strict=True):
            torch.testing.assert_close(buffer, expected, msg=name)


def test_joining_keeps_the_tensors():
    model = student("cvt")
    before = copy.copy({**dict(model.named_parameters()), **dict(model.named_buffers())})
    join_batches(model)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(before) == list(after) and all(after[name] is tensor for name, tensor in before.items())
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 5 + 4 and all(norm.joint for norm in norms)


def test_joining_keeps_what_timm_does_after_a_norm():
    torch.manual_seed(0)
    plain = timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Identity)
    own = convert_norm(plain)
    images = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(own(images), plain(images))
    assert list(own.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4), nn.LazyBatchNorm2d()],
)
def test_norms_that_cannot_be_joined(norm):
    with pytest.raises(EsViTBackboneError, match=f"{type(norm).__name__}.* cannot normalise over several processes"):
        convert_norm(norm)
