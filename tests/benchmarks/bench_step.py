# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the full pretraining step of `training/pretrain.py` against the plain one, equal to it in result.

    python tests/benchmarks/bench_step.py     # Swin-T W7, 2 x 224 + 8 x 96 px, 65536 prototypes, batch 8
    python tests/benchmarks/bench_step.py --batch 4 --repeats 5
    python tests/benchmarks/bench_step.py --architecture cvt-tiny
    python tests/benchmarks/bench_step.py --batch 4 --only "reference, fp32" "ours, bf16" "ours, bf16, compiled"

All take turns, each in a process of its own, so that their memory adds up: at batch 4 about 5 GB each.
"""

import copy
import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling_esvit import EsViTConfig
from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.images.precision import has_amx, has_native_bfloat16
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.swin import EsViTDropPath
from tests.benchmarks.harness import (
    ALLOCATORS,
    RESULTS,
    Measurement,
    environment,
    name_by_processor,
    rows,
    table,
    take_turns,
    write_json,
)
from tests.benchmarks.reference import ReferenceStep


SCHEDULES = {"lr": 1e-4, "weight_decay": 0.04, "momentum_teacher": 0.996, "clip_grad": 3.0, "student_temp": 0.1}


def random_groups(batch: int, sizes: tuple[int, int], numbers: tuple[int, int]) -> list[torch.Tensor]:
    """Draws crops of random pixels, in groups `[crops * batch, 3, size, size]`."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(number * batch, 3, size, size, generator=generator)
        for size, number in zip(sizes, numbers, strict=True)
        if number
    ]


def pretraining(batch: int, folder: str, local_batch: int | None = None, **options):
    """Builds the real run on a folder of `batch` random pictures, of which a process takes all, or `local_batch`."""
    from training.options.pretrain_options import PretrainOptions
    from training.pretrain import Pretraining

    data = Path(folder) / "images"
    data.mkdir(parents=True, exist_ok=True)
    for index in range(batch):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{index}.png")
    defaults = {"freeze_last_layer": 0, "workers": 0, "tracker": "none", "epochs": 100, "mixed_precision": "no"}
    defaults["clip_grad"] = SCHEDULES["clip_grad"]
    run = Pretraining(
        PretrainOptions(
            data=str(data), output=f"{folder}/run", batch_size=local_batch or batch, **{**defaults, **options}
        )
    )
    # The reference takes constant values; the schedules begin with a learning rate of zero.
    run.plan.lr[:], run.plan.weight_decay[:], run.plan.momentum[:] = (
        SCHEDULES[name] for name in ("lr", "weight_decay", "momentum_teacher")
    )
    return run


def our_step(batch: int, sizes=(224, 96), numbers=(2, 8), device: str = "cpu", **options):
    """Returns an iteration: one update of the real program."""
    from training.data.loader import Batch

    folder = tempfile.TemporaryDirectory()
    run = pretraining(batch, folder.name, **options)
    groups = [group.to(device) for group in random_groups(batch, sizes, numbers)]
    item = Batch(groups=groups, positions=torch.arange(batch), labels=None, skipped={})

    def iteration():
        return run.train_step([item], 0).values[0]["loss"]

    iteration.run, iteration.folder = run, folder  # type: ignore[attr-defined]
    return iteration


def reference_step(batch: int, sizes=(224, 96), numbers=(2, 8), **options):
    """Returns the same update, written plainly, with its own copies of the networks."""
    with tempfile.TemporaryDirectory() as folder:
        run = pretraining(batch, folder, **options)
        student, teacher, temperature = run.student, run.teacher, run.plan.teacher_temp[0]
    del run
    groups = random_groups(batch, sizes, numbers)
    step = ReferenceStep(student, teacher, batch, **SCHEDULES, teacher_temp=temperature, freeze_last_layer=False)
    return functools.partial(step, groups)


def largest_difference(batch: int = 2, steps: int = 2, drop_path: bool = False, **options) -> dict[str, float]:
    """Returns how far losses and weights of both are apart at most after `steps` equal steps.

    Both draw their own stochastic depth; without `drop_path` there is none.
    """
    ours = our_step(batch, **options)
    student, teacher = ours.run.student, ours.run.teacher
    for module in student.modules():
        if isinstance(module, EsViTDropPath) and not drop_path:
            module.rate = 0.0
    plain_student, plain_teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    step = ReferenceStep(
        plain_student,
        plain_teacher,
        batch,
        **SCHEDULES,
        teacher_temp=ours.run.plan.teacher_temp[0],
        freeze_last_layer=False,
    )
    groups = random_groups(batch, options.get("sizes", (224, 96)), options.get("numbers", (2, 8)))
    loss = max(abs(float(ours()) - step(groups)) for _ in range(steps))
    pairs = {"teacher": (teacher, plain_teacher), "student": (student, plain_student)}
    return {"loss": loss, **{name: furthest(*pair) for name, pair in pairs.items()}}


def furthest(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Returns the largest difference of two networks' states.

    Keys' biases are left out, whose gradients are rounding noise that AdamW blows up to steps, and running statistics,
    which the plain forms leave alone.
    """
    differences = []
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        if name.endswith("qkv.bias"):
            a, b = (torch.cat([t.chunk(3)[0], t.chunk(3)[2]]) for t in (a, b))
        elif name.endswith("kv.bias"):
            a, b = (t.chunk(2)[1] for t in (a, b))
        differences.append(float((a - b).abs().max()))
    return max(differences)


def candidates(batch: int, architecture: str, **options) -> dict:
    """Returns what can take turns, by name; the first is the reference. Those of `list_extras` must be asked for."""
    options |= {"architecture": architecture}
    setups = {
        "reference, fp32": functools.partial(reference_step, batch, **options),
        "ours, fp32": functools.partial(our_step, batch, **options),
    }
    if EsViTConfig.from_architecture(architecture).architecture != "auto":  # whose blocks are not recomputed
        setups["ours, fp32, gradient checkpointing"] = functools.partial(
            our_step, batch, gradient_checkpointing=True, **options
        )
    if has_native_bfloat16("cpu"):
        setups["ours, bf16"] = functools.partial(our_step, batch, mixed_precision="bf16", **options)
    for name, form in list_extras().items():
        setups[name] = functools.partial(our_step, batch, **form, **options)
    return setups


def list_extras() -> dict[str, dict[str, str]]:
    """Returns further forms of our step, by name, as options: on a CPU with AMX, which computes them faster."""
    if not has_amx():
        return {}
    return {
        "ours, fp32 with bf16 products": {"matmul_precision": "medium"},
        "ours, bf16, losses' products in fp32": {"mixed_precision": "bf16", "matmul_precision": "highest"},
        "ours, bf16, compiled": {"mixed_precision": "bf16", "compile": "on"},
    }


def report(results: dict[str, Measurement]) -> str:
    reference = next(iter(results.values()))
    return table(
        ["step", "median s", "faster", "peak GB", "of the reference's"],
        (
            (
                name,
                f"{m.median:.2f}",
                f"{reference.median / m.median:.2f} x",
                f"{m.peak_bytes / 1e9:.2f}",
                f"{m.peak_bytes / reference.peak_bytes:.2f}",
            )
            for name, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--architecture", default="swin-tiny", help="backbone, by its published name")
    parser.add_argument("--batch", type=parse_count, default=8, help="images in a batch")
    parser.add_argument(
        "--sizes", type=parse_count, nargs=2, default=[224, 96], help="Pixels of global and local crops."
    )
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each is measured")
    parser.add_argument("--only", nargs="*", help="names of what takes turns, the first of which is the reference")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="glibc, tuned", help="allocator of memory")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="For the measurement, which report.py takes.")
    arguments = parser.parse_args()
    setups = candidates(arguments.batch, arguments.architecture, sizes=tuple(arguments.sizes))
    chosen = arguments.only or [name for name in setups if name not in list_extras()]
    if unknown := sorted(set(chosen) - set(setups)):
        parser.error(f"--only {unknown[0]!r} is none of {', '.join(map(repr, setups))}")
    setups = {name: setups[name] for name in chosen}
    results = take_turns(setups, repeats=arguments.repeats, allocator=arguments.allocator)
    print(report(results))
    if not has_native_bfloat16("cpu"):
        print("bf16 was not run: this CPU does not compute it natively.")
    name = "step" if arguments.architecture == "swin-tiny" else f"step_{arguments.architecture}"
    name += "" if arguments.allocator == "glibc, tuned" else "_default_allocator"
    settings = {name: getattr(arguments, name) for name in ("batch", "sizes", "allocator")}
    path = write_json(name_by_processor(name), settings, {"rows": rows(results.values())}, arguments.folder)
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
