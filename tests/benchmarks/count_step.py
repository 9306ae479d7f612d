# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the kernels that a GPU launches for each part of a training step, and the bytes that they move, without a GPU.

    python tests/benchmarks/count_step.py                       # Swin-T W7, 2 x 224 + 8 x 96 px, batch 128, bf16
    python tests/benchmarks/count_step.py --recipe vil_tiny_region --batch 32

Two steps are counted, the eager one and that of `--compile`. Their tensors have no values, and lie on the CPU, because
only there does torch run a backward pass without a GPU; paths, attention and types are those of a GPU. Each operation,
or each kernel into which the compiler fuses some, reads and writes its tensors once. The compiler fuses as for a CPU:
on a GPU the count may differ. Milliseconds are bytes at 4.3 TB/s, what an H200 gives.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import _pop_mode_temporarily
from transformers.initialization import no_init_weights

from modeling_esvit.cross_entropy import ChunkResult, Method, Rows, compute_chunk
from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.losses import EsViTLoss, esvit_loss, make_crop_layout
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import table, write_json
from tests.helpers.compiled_counter import Counts, count_compiled
from tests.helpers.kernel_counter import KernelCounter, gpu_kernels
from training.learning.networks import build_networks, make_view_options
from training.options.pretrain_options import PretrainOptions, parse_options
from training.run.estimate import Counter as MemoryCounter
from training.views.on_device import PARAMETERS, augment, make_statistics


BANDWIDTH = 4.3e12
SHOWN = 14  # operations in the table
# The same count of the code before it was written for a GPU (Swin-T W7, batch 128, bf16): kernels and bytes.
BEFORE = {
    **{"augmentation": (572, 61.0e9), "teacher": (516, 66.5e9), "student": (862, 143.9e9)},
    **{"loss": (1595, 153.1e9), "backward": (1247, 320.5e9)},
}


@dataclass
class Part:
    """Holds the count of a part of the step."""

    name: str
    kernels: int
    bytes: int


def build_networks_without_values(options: PretrainOptions, device: torch.device) -> tuple[nn.Module, ...]:
    """Builds student and teacher, for `device`, on torch's device that has no values."""
    with torch.device("meta"), no_init_weights():
        return build_networks(options, device)


def make_fake_crops(options: PretrainOptions, device: torch.device) -> list[torch.Tensor]:
    """Returns the crops of a batch as bytes, in groups."""
    groups = make_view_options(options).groups
    size = options.batch_size
    return [torch.empty(len(g) * size, 3, *g[0].size, dtype=torch.uint8, device=device) for g in groups]


def compute_loss(options: PretrainOptions, networks, outputs, views: list[torch.Tensor], chunk=None) -> EsViTLoss:
    """Computes the loss of the outputs of student and teacher as a GPU does, with this function for a chunk."""
    student, teacher = networks
    half = torch.bfloat16 if options.mixed_precision == "bf16" else None
    return esvit_loss(
        *outputs,
        make_crop_layout(views, options.batch_size, student.config.region_grid),
        view_center=teacher.view_center,
        region_center=teacher.region_center,
        teacher_temp=options.teacher_temp,
        student_temp=options.student_temp,
        method=Method(chunk=chunk, product_type=half),
        **options.loss_weights(),
    )


class CountedStep:
    """Takes the parts of a step on tensors without values, and counts each.

    Attributes:
        counters: By the name of the part.
        peak: The most bytes alive at a time, beside student and teacher; gradients are counted.
    """

    def __init__(self, options: PretrainOptions, device: torch.device):
        """Runs the forward pass; on a CPU also the backward pass."""
        self.options, self.device = options, device
        self.counters: dict[str, KernelCounter] = {}
        memory = MemoryCounter()
        networks = build_networks_without_values(options, device)
        with FakeTensorMode(allow_non_fake_inputs=True), gpu_kernels():
            self.student, self.teacher = (network.to_empty(device=device) for network in networks)
            with memory:
                self.outputs = self.take(make_fake_crops(options, device))
        self.peak = memory.peak

    def count(self, name: str) -> KernelCounter:
        self.counters[name] = KernelCounter()
        return self.counters[name]

    def take(self, crops: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns what the parts of the forward pass give."""
        options, device = self.options, self.device
        parameters = [torch.empty(len(group), PARAMETERS, device=device) for group in crops]
        statistics = make_statistics(device)
        with self.count("augmentation"):
            views = [augment(*group, statistics) for group in zip(crops, parameters, strict=True)]
        half = torch.bfloat16 if options.mixed_precision == "bf16" else None
        with torch.autocast(device.type, torch.bfloat16, enabled=half is not None):
            with torch.no_grad(), self.count("teacher"):
                targets = self.teacher(views[:1])
            with self.count("student"):
                predictions = self.student(views)
        with self.count("loss"):
            loss = compute_loss(options, (self.student, self.teacher), (predictions, targets), views)
        if device.type == "cpu":
            with self.count("backward"):
                loss.loss.backward()
        return [
            *views,
            *(value for value in (*targets.values(), *predictions.values()) if value is not None),
            loss.loss,
        ]

    def parts(self) -> list[Part]:
        return [Part(name, *counter.total()) for name, counter in self.counters.items()]

    def operations(self) -> dict[str, Counts]:
        """Returns the counts of each operation in all parts, by torch's name for it, the most frequent first."""
        kernels: Counter[str] = sum((counter.kernels for counter in self.counters.values()), Counter())
        moved: Counter[str] = sum((counter.bytes for counter in self.counters.values()), Counter())
        return {name: (number, moved[name]) for name, number in kernels.most_common()}


class CompiledStep:
    """Takes the parts of a compiled step on tensors without values, and counts each.

    What is compiled is what a run compiles: augmentation, networks, and the body of the losses' chunks.
    """

    def __init__(self, options: PretrainOptions, device: torch.device):
        self.options, self.device = options, device
        self.mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
        self.half = torch.bfloat16 if options.mixed_precision == "bf16" else None
        networks = build_networks_without_values(options, device)
        with self.mode, gpu_kernels():
            student, teacher = (network.to_empty(device=device) for network in networks)
            self.counts = self.take(student, teacher, make_fake_crops(options, device))

    def take(self, student: nn.Module, teacher: nn.Module, crops: list[torch.Tensor]) -> dict[str, Counts]:
        """Returns the counts of all parts, by name."""
        views, augmentation = [], []
        for group in crops:
            inputs = (group, torch.empty(len(group), PARAMETERS, device=self.device), make_statistics(self.device))
            augmented, counts = count_compiled(augment, inputs, self.mode)
            views.append(augmented)
            augmentation += counts
        with torch.no_grad():
            targets, (forward,) = self.run(teacher, views[:1])
        predictions, counts = self.run(student, views)
        loss = self.count_loss(student, teacher, predictions, targets, views)
        sum(value.float().sum() for value in predictions.values() if value is not None).backward()
        parts = {"augmentation": add_counts(augmentation), "teacher": forward, "student": counts[0]}
        return parts | {"loss": loss, "backward": counts[1]}

    def run(self, network: nn.Module, views: list[torch.Tensor]):
        """Returns a network's output, and the counts of its passes."""
        state = dict([*network.named_parameters(), *network.named_buffers()])

        def call(*tensors: torch.Tensor):
            own, inputs = tensors[: len(state)], list(tensors[len(state) :])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half is not None):
                return torch.func.functional_call(network, dict(zip(state, own, strict=True)), (inputs,))

        return count_compiled(call, [*state.values(), *views], self.mode)

    def count_loss(self, student: nn.Module, teacher: nn.Module, predictions, targets, views) -> Counts:
        """Counts both losses: the compiled body of a chunk as often as it is called, and what is around it."""
        compiled: list[Counts] = []

        def count_chunk(rows: Rows, needs_entropy: bool) -> ChunkResult:
            with _pop_mode_temporarily():
                result, counts = count_compiled(lambda *r: compute_chunk(Rows(*r), needs_entropy), rows, self.mode)
            compiled.extend(counts)
            return ChunkResult(*result)

        with KernelCounter() as around, torch.no_grad():
            compute_loss(self.options, (student, teacher), (predictions, targets), views, count_chunk)
        return add_counts([*compiled, around.total()])


def add_counts(counts: list[Counts]) -> Counts:
    kernels, sizes = zip(*counts, strict=True)
    return sum(kernels), sum(sizes)


def report(saved: dict[str, Any]) -> str:
    """Returns a count as tables: by part, beside the code before and the compiled step; and by operation, if saved."""
    eager = {row["name"]: (row["kernels"], row["bytes"]) for row in saved["rows"]}
    forms = {"before": saved.get("before"), "eager": eager, "compiled": saved["compiled"]}
    forms = {name: {**form, "together": add_counts(list(form.values()))} for name, form in forms.items() if form}
    header = ["part", *(f"{unit} {name}" for name in forms for unit in ("kernels", "GB")), "ms eager"]
    lines = [
        (
            part,
            *(cell for form in forms.values() for cell in format_counts(form[part])),
            f"{moved / BANDWIDTH * 1e3:.0f}",
        )
        for part, (_, moved) in forms["eager"].items()
    ]
    operations = [(f"`{name}`", *format_counts(counts)) for name, counts in saved.get("operations", {}).items()]
    tables = [table(header, lines), table(["operation, eager", "kernels", "GB"], operations[:SHOWN])]
    return "\n\n".join(tables if operations else tables[:1])


def format_counts(counts: Counts) -> tuple[str, str]:
    return str(counts[0]), f"{counts[1] / 1e9:.1f}"


def make_step_options(recipe: str, batch: int, precision: str) -> PretrainOptions:
    """Returns the options of a run with a recipe, as a GPU would take them."""
    arguments = ["--recipe", recipe, "--batch_size", str(batch), "--mixed_precision", precision]
    has_attention = parse_options(arguments).architecture != "resnet-50"
    return parse_options([*arguments, "--attn_implementation", "sdpa" if has_attention else "auto"])


def name_result(recipe: str) -> str:
    """Returns the name of the file for a recipe, which may be one's own, named by its path."""
    return "count_step" if recipe == "swin_tiny_w7" else f"count_step_{Path(recipe).stem}"


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--recipe", default="swin_tiny_w7", help="recipe whose step is counted")
    parser.add_argument("--batch", type=parse_count, default=128, help="images in a batch")
    parser.add_argument("--mixed_precision", choices=["no", "bf16"], default="bf16", help="autocast of the step")
    arguments = parser.parse_args()
    options = make_step_options(arguments.recipe, arguments.batch, arguments.mixed_precision)
    step = CountedStep(options, torch.device("cpu"))
    is_known = (arguments.recipe, arguments.batch, arguments.mixed_precision) == ("swin_tiny_w7", 128, "bf16")
    content = {
        "rows": [asdict(part) for part in step.parts()],
        "operations": step.operations(),
        "peak_bytes": step.peak,
    }
    content["compiled"] = CompiledStep(options, torch.device("cpu")).counts
    content |= {"before": BEFORE} if is_known else {}
    print(report(content))
    print(f"peak memory: {step.peak / 1e9:.1f} GB beside the weights, gradients included")
    print(write_json(name_result(arguments.recipe), vars(arguments), content))


if __name__ == "__main__":
    main()
