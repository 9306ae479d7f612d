# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures prototypes and both losses with their gradients, from bottleneck vectors on: ours against the plain form
(logits of all rows, softmax, a loop over the 18 pairs of views).

    python tests/benchmarks/bench_loss.py       # 65536 prototypes, batch 8, and memory at batch 2
    python tests/benchmarks/bench_loss.py --prototypes 8192 --batches 8 16
"""

import functools

import torch
from torch.nn import functional as F

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json


LAYOUT = [(2, 49), (8, 9)]  # crops, regions a crop: 2 x 224 and 8 x 96 px through Swin, window 7
BOTTLENECK, FEATURES = 256, 768
STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.04


def random_outputs(batch: int, prototypes: int, layout: list[tuple[int, int]], grad: bool):
    """Draws what a network returns: unit bottleneck vectors of views and regions, region features, prototypes' v."""
    generator = torch.Generator().manual_seed(int(grad))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    views = batch * sum(crops for crops, _ in layout)
    regions = batch * sum(crops * count for crops, count in layout)
    embeddings = [F.normalize(normal(count, BOTTLENECK), dim=-1).requires_grad_(grad) for count in (views, regions)]
    weights = [normal(prototypes, BOTTLENECK).requires_grad_(grad) for _ in ("view", "region")]
    return embeddings, weights, normal(regions, FEATURES)


def our_loss(batch: int, prototypes: int):
    from modeling_esvit.losses import esvit_loss
    from modeling_esvit.model_outputs import EsViTForPreTrainingOutput

    student, teacher = (random_outputs(batch, prototypes, LAYOUT[:n], n == 2) for n in (2, 1))
    center = torch.zeros(prototypes)
    norms = torch.ones(prototypes, 1)

    def output(embeddings, weights, features) -> EsViTForPreTrainingOutput:
        prototypes_ = [torch._weight_norm(v, norms, 0) for v in weights]
        return EsViTForPreTrainingOutput(
            view_embeddings=embeddings[0],
            view_prototypes=prototypes_[0],
            region_features=features,
            region_embeddings=embeddings[1],
            region_prototypes=prototypes_[1],
        )

    def iteration() -> list[torch.Tensor]:
        loss = esvit_loss(
            output(*student),
            output(*teacher),
            LAYOUT,
            view_center=center,
            region_center=center,
            teacher_temp=TEACHER_TEMP,
            student_temp=STUDENT_TEMP,
        ).loss
        loss.backward()
        return with_gradients(loss, student)

    return iteration


def plain_loss(batch: int, prototypes: int):
    from tests.benchmarks.reference import pair_losses

    student, teacher = (random_outputs(batch, prototypes, LAYOUT[:n], n == 2) for n in (2, 1))
    center = torch.zeros(prototypes)
    norms = torch.ones(prototypes, 1)

    def output(embeddings, weights, features):
        logits = [F.linear(z, torch._weight_norm(v, norms, 0)) for z, v in zip(embeddings, weights, strict=True)]
        return *logits, features, [count for _, count in LAYOUT]

    def iteration() -> list[torch.Tensor]:
        loss = pair_losses(output(*student), output(*teacher), batch, (center, center), STUDENT_TEMP, TEACHER_TEMP)
        loss.backward()
        return with_gradients(loss, student)

    return iteration


def with_gradients(loss: torch.Tensor, student) -> list[torch.Tensor]:
    """Returns the loss and the gradients, which are taken off the tensors."""
    values = [loss.detach()]
    for tensor in (*student[0], *student[1]):
        values.append(tensor.grad)
        tensor.grad = None
    return values


def candidates(batch: int, prototypes: int) -> dict:
    return {
        f"plain, batch {batch}": functools.partial(plain_loss, batch, prototypes),
        f"ours, batch {batch}": functools.partial(our_loss, batch, prototypes),
    }


def report(results: dict[str, Measurement]) -> str:
    """Returns the table; memory is without what the process holds before the first iteration."""
    lines = []
    for name, m in results.items():
        plain = results[f"plain, {name.split(', ')[1]}"]
        lines.append(
            (name, f"{m.median:.2f}", f"{plain.median / m.median:.2f} x", f"{(m.peak_bytes - m.start_bytes) / 1e9:.2f}")
        )
    return table(["loss and gradients", "median s", "faster", "extra GB"], lines)


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--prototypes", type=parse_count, default=65536, help="prototypes of each head")
    parser.add_argument("--batches", type=parse_count, nargs="+", default=[8, 2], help="images in the batches")
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each is measured")
    arguments = parser.parse_args()
    setups: dict = {}
    for batch in arguments.batches:
        setups.update(candidates(batch, arguments.prototypes))
    ours, plain = (setup(2, 1024)() for setup in (our_loss, plain_loss))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    results = take_turns(setups, repeats=arguments.repeats)
    print(report(results))
    path = write_json(
        "loss", {"prototypes": arguments.prototypes, "batches": arguments.batches}, {"rows": rows(results.values())}
    )
    print(f"{path}; {environment()}")


if __name__ == "__main__":
    main()
