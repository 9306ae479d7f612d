# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures a ViL: features of large images by sparse attention and by its dense form, and the pretraining step.

    python tests/benchmarks/bench_vil.py     # vil-tiny, features at 448 and 896 px, step of batch 2

All of a table take turns, each in a process of its own. The dense form keeps a logit for each pair of tokens: at 896 px
one head of one image has 50177^2 of them, 10 GB. It runs where the machine has the memory, `--dense_limit` GB.
"""

import functools

import torch

import tests.benchmarks.reference_vil as reference_vil
from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.bench_step import our_step, reference_step
from tests.benchmarks.harness import Measurement, environment, rows, table, take_turns, write_json


CONFIG = EsViTConfig.from_architecture("vil-tiny", num_prototypes=16)


def features(size: int, dense: bool):
    """Returns an iteration: one image of `size` px through the backbone, without gradients."""
    torch.manual_seed(0)
    model = EsViTForPreTraining(CONFIG).eval()
    image = torch.randn(1, 3, size, size)

    @torch.no_grad()
    def iteration():
        return reference_vil.backbone(model, image)[0] if dense else model.esvit(image).pooler_output

    return iteration


def dense_gigabytes(size: int) -> float:
    """Returns the GB of the logits of the first stage, their biases, and their softmax."""
    tokens = (size // CONFIG.patch_strides[0]) ** 2 + CONFIG.global_tokens[0]
    return 3 * 4 * CONFIG.num_heads[0] * tokens**2 / 1e9


def feature_candidates(size: int, limit: float) -> dict:
    """Returns the sparse form, and the dense one where it fits; the step's reference computes the same."""
    setups = {f"features, {size} px, sparse": functools.partial(features, size, dense=False)}
    if dense_gigabytes(size) <= limit:
        setups[f"features, {size} px, dense"] = functools.partial(features, size, dense=True)
    return setups


def step_candidates(batch: int) -> dict:
    drawn = {"architecture": "vil-tiny", "vil_mode": 1}
    everything = {"architecture": "vil-tiny", "vil_mode": 0}
    return {
        "step, dense (reference)": functools.partial(reference_step, batch, **everything),
        "step, all chunks": functools.partial(our_step, batch, **everything),
        "step, drawn chunks": functools.partial(our_step, batch, vil_mode_switch=1.0, **drawn),
    }


def report(results: dict[str, Measurement]) -> str:
    return table(
        ["ViL-T", "median s", "peak GB", "beyond its start, GB"],
        (
            (name, f"{m.median:.2f}", f"{m.peak_bytes / 1e9:.2f}", f"{(m.peak_bytes - m.start_bytes) / 1e9:.2f}")
            for name, m in results.items()
        ),
    )


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument(
        "--sizes", type=parse_count, nargs="*", default=[448, 896], help="sides of the images in pixels"
    )
    parser.add_argument("--batch", type=int, default=2, help="Of the step; 0: no step.")
    parser.add_argument("--repeats", type=parse_count, default=3, help="times that each is measured")
    parser.add_argument("--dense_limit", type=float, default=8.0, help="GB that a dense attention may take.")
    arguments = parser.parse_args()
    if arguments.batch < 0:
        parser.error(f"--batch {arguments.batch} is no number of images")
    for size in arguments.sizes:
        measure(f"vil_{size}", feature_candidates(size, arguments.dense_limit), arguments.repeats)
        if dense_gigabytes(size) > arguments.dense_limit:
            print(f"Not run: dense at {size} px, whose first attention takes {dense_gigabytes(size):.0f} GB.")
    if arguments.batch:
        measure("vil_step", step_candidates(arguments.batch), arguments.repeats, batch=arguments.batch)
    print(environment())


def measure(name: str, candidates: dict, repeats: int, **what) -> None:
    results = take_turns(candidates, repeats=repeats)
    print(report(results), flush=True)
    print(write_json(name, what, {"rows": rows(results.values())}), flush=True)


if __name__ == "__main__":
    main()
