# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures images a second of ours, timm's and transformers' own Swin-T, window 7, in turns.

python tests/benchmarks/bench_inference.py                       # batch 16, 224 px
python tests/benchmarks/bench_inference.py --batch 1 --size 448 --compiled no
"""

import argparse
import functools

import torch

from tests.benchmarks.harness import (
    ALLOCATORS,
    Measurement,
    cpu_has_amx,
    environment,
    rows,
    table,
    take_turns,
    write_json,
)


def ours(size: int) -> torch.nn.Module:
    from modeling_esvit import EsViTConfig, EsViTModel

    return EsViTModel(EsViTConfig.from_architecture("swin-tiny", window_size=7, image_size=size))


def transformers_swin(size: int, attention: str) -> torch.nn.Module:
    from transformers import SwinConfig, SwinModel

    # The defaults are Swin-T, window 7.
    return SwinModel._from_config(SwinConfig(image_size=size), attn_implementation=attention)


def timm_swin(size: int, fused: bool) -> torch.nn.Module:
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(fused)
    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=size, num_classes=0)


def extract(model, batch: int, size: int, *, compiled: bool = False, half: bool = False):
    """Returns an iteration that extracts features of one batch. `model` builds the network for an image size."""
    torch.manual_seed(0)
    network = model(size).eval().requires_grad_(False)
    if compiled:
        network.compile()
    images = torch.randn(batch, 3, size, size)

    def iteration():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return network(images)

    return iteration


MODELS = {
    "ours": ours,
    "timm": functools.partial(timm_swin, fused=False),
    "timm, fused attention": functools.partial(timm_swin, fused=True),
    "transformers, eager": functools.partial(transformers_swin, attention="eager"),
    "transformers, sdpa": functools.partial(transformers_swin, attention="sdpa"),
}


def candidates(batch: int, size: int, compiled: bool) -> dict:
    setups = {name: functools.partial(extract, model, batch, size, compiled=compiled) for name, model in MODELS.items()}
    if cpu_has_amx() and not compiled:
        setups["ours, bf16"] = functools.partial(extract, ours, batch, size, half=True)
    return setups


def speed_up(results: dict[str, Measurement], name: str) -> float:
    """Returns images a second of `name`, over those of the fastest that is not ours."""
    return min(m.median for other, m in results.items() if not other.startswith("ours")) / results[name].median


def report(results: dict[str, Measurement], batch: int) -> str:
    return table(
        ["model", "images/s", "peak GB", "of the fastest peer"],
        (
            (name, f"{batch / m.median:.1f}", f"{m.peak_bytes / 1e9:.2f}", f"{speed_up(results, name):.2f} x")
            for name, m in results.items()
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compiled", choices=["yes", "no", "both"], default="both")
    parser.add_argument("--threads", type=int, help="Default: one a core.")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="glibc, tuned")
    arguments = parser.parse_args()
    kinds = {"yes": [True], "no": [False], "both": [False, True]}[arguments.compiled]
    content: dict[str, object] = {"batch": arguments.batch, "size": arguments.size, "allocator": arguments.allocator}
    name = "inference" if arguments.allocator == "glibc, tuned" else "inference_default_allocator"
    for compiled in kinds:
        setups = candidates(arguments.batch, arguments.size, compiled)
        results = take_turns(
            setups,
            repeats=arguments.repeats,
            warmup=2,
            threads=arguments.threads,
            allocator=arguments.allocator,
        )
        print(f"\n{'compiled' if compiled else 'as they are'}\n{report(results, arguments.batch)}")
        content["compiled" if compiled else "plain"] = rows(results.values())
    if not cpu_has_amx():
        print("bf16 was not run: this CPU has no AMX.")
    print(f"{write_json(name, content)}; {environment()}")


if __name__ == "__main__":
    main()
