# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the kernels that torch's compiler makes of a function, and the bytes that they move, without compiling them.

The compiler traces the forward and the backward pass, decides what is kept between them, and fuses operations. What it
would then write as code is counted. It fuses as it does for a CPU, because for a GPU it asks that GPU.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._functorch.aot_autograd import aot_function, make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.compile_fx import _recursive_joint_graph_passes, _recursive_post_grad_passes, view_to_reshape
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._inductor.lowering import fallback_handler, lowerings
from torch._inductor.scheduler import NopKernelSchedulerNode
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule


Counts = tuple[int, int]  # kernels and bytes
# A product of half precision that is float32: torch has none for a CPU. As on a GPU it is one kernel of a library.
PRODUCT = torch.ops.aten.mm.dtype


def count_graph(graph: GraphModule, inputs: Sequence[Tensor], mode: FakeTensorMode, is_inference: bool) -> Counts:
    """Fuses the operations of a traced graph, and counts the kernels that remain, those of libraries included."""
    view_to_reshape(graph)
    with V.set_fake_mode(mode):
        _recursive_post_grad_passes(graph, is_inference=is_inference)
    lowering = GraphLowering(graph, example_inputs=inputs, shape_env=mode.shape_env, is_inference=is_inference)
    with (
        V.set_fake_mode(mode),
        V.set_debug_handler(DebugContext()),
        V.set_graph_handler(lowering),
        V.set_extern_kernel_nodes([]),
        patch.dict(lowerings, {PRODUCT: fallback_handler(PRODUCT, add_to_fallback_set=False)}),
    ):
        lowering.run(*inputs)
        lowering.init_wrapper_code()
        lowering._update_scheduler()
        kernels = [node for node in lowering.scheduler.nodes if not isinstance(node, NopKernelSchedulerNode)]
        return len(kernels), sum(node.get_read_write_buffers_sizes() for node in kernels)


def partition(joint: GraphModule, inputs: Sequence[Tensor], **options: Any) -> tuple[GraphModule, GraphModule]:
    """Cuts the graph of both passes in two, as torch's compiler does."""
    _recursive_joint_graph_passes(joint)
    return min_cut_rematerialization_partition(joint, inputs, **options)


def count_compiled(
    function: Callable[..., Any], inputs: Sequence[Tensor], mode: FakeTensorMode
) -> tuple[Any, list[Counts]]:
    """Counts the compiled forward pass of a function of tensors, and its backward pass if gradients are on.

    Args:
        function: Returns tensors.
        inputs: Fake tensors of `mode`, which is active and has a `shape_env`.

    Returns: what the function returns, and a list to which the counts are added: those of the forward pass are there,
    those of the backward pass when it has run.
    """
    counts: list[Counts] = []

    def count(graph: GraphModule, examples: Sequence[Tensor], is_inference: bool = False) -> Callable[..., Any]:
        kept = GraphModule(graph, copy.deepcopy(graph.graph))  # the passes of the compiler change the other
        counts.append(count_graph(graph, examples, mode, is_inference))
        return make_boxed_func(kept.forward)

    compiled = aot_function(
        function,
        fw_compiler=count,
        bw_compiler=count,
        inference_compiler=lambda graph, examples: count(graph, examples, is_inference=True),
        partition_fn=partition,
        decompositions=select_decomp_table(),
    )
    return compiled(*inputs), counts
