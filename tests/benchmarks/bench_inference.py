# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures images a second of Swin-T, window 7: ours, timm's, transformers', and our export in two other runtimes.

    python tests/benchmarks/bench_inference.py                       # batch 16, 224 px, all forms
    python tests/benchmarks/bench_inference.py --batch 1 --size 448 --forms plain
    python tests/benchmarks/bench_inference.py --forms plain frozen --dtypes bfloat16

Each form is a table: plain, compiled, compiled and frozen, and the same in bfloat16 on a CPU that computes it natively.
All candidates of a form take turns. The runtimes (onnxruntime, OpenVINO) optimise by themselves and stand in the table
of the frozen models. In the table int8, weights and rounded activations are multiplied as 8-bit numbers, beside ours in
the faster type. What is not installed is named as missing.
"""

import functools
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from modeling_esvit.images.decoding_arguments import parse_count
from modeling_esvit.images.precision import has_native_bfloat16, name_dtype
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks.harness import (
    ALLOCATORS,
    Measurement,
    environment,
    name_by_processor,
    rows,
    table,
    take_turns,
    write_json,
)


FORMS = ("plain", "compiled", "frozen", "int8")
DTYPES = {"": torch.float32, ", bf16": torch.bfloat16}  # by what follows the form in the name of a table
PACKAGES = {
    "timm": "timm",
    "onnxruntime": "onnxruntime",
    "OpenVINO": "openvino",
    "torchao": "torchao",
}  # by the name of the peer


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


def extract(model, batch: int, size: int, form: str, dtype: torch.dtype):
    """Returns an iteration that extracts features of one batch. `model` builds the network for an image size."""
    torch.manual_seed(0)
    network = model(size).eval().requires_grad_(False).to(dtype)
    if form != "plain":
        network.compile(dynamic=False, options={"freezing": True} if form == "frozen" else None)
    images = torch.randn(batch, 3, size, size, dtype=dtype)

    def iteration():
        with torch.inference_mode():
            return network(images)

    return iteration


def write_onnx(folder: str, size: int) -> Path:
    """Writes our model as ONNX; returns the file."""
    from modeling_esvit.export import export

    torch.manual_seed(0)
    ours(size).save_pretrained(f"{folder}/model")
    export(f"{folder}/model", f"{folder}/onnx", "onnx")
    return Path(folder, "onnx", "model.onnx")


def by_onnxruntime(batch: int, size: int, int8: bool = False):
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(folder, size)
        if int8:
            quantize_dynamic(path, path := path.with_name("int8.onnx"), weight_type=QuantType.QInt8)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = torch.randn(batch, 3, size, size).numpy()
    return lambda: session.run(None, {"pixel_values": images})


def by_openvino(batch: int, size: int, dtype: torch.dtype):
    import openvino

    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        core = openvino.Core()
        model = core.read_model(write_onnx(folder, size))
        model.reshape([batch, 3, size, size])
        compiled = core.compile_model(model, "CPU", settings)
    images = torch.randn(batch, 3, size, size).numpy()
    return lambda: compiled(images)


def by_torchao(batch: int, size: int):
    """Extracts by our model, frozen, with weights in int8 and activations that are rounded to it as they come."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    def quantized(size: int) -> torch.nn.Module:
        network = ours(size).eval()
        quantize_(network, Int8DynamicActivationInt8WeightConfig())
        return network

    return extract(quantized, batch, size, "frozen", torch.float32)


MODELS = {
    "ours": ours,
    "timm": functools.partial(timm_swin, fused=False),
    "timm, fused attention": functools.partial(timm_swin, fused=True),
    "transformers, eager": functools.partial(transformers_swin, attention="eager"),
    "transformers, sdpa": functools.partial(transformers_swin, attention="sdpa"),
}


def list_tables(forms: Sequence[str], dtypes: Sequence[str], has_bfloat16: bool) -> list[tuple[str, str]]:
    """Returns the tables as forms and names of types; int8 stands beside the faster type only."""
    chosen = [name for name, dtype in DTYPES.items() if name_dtype(dtype) in dtypes]
    names = [name for name in chosen if has_bfloat16 or not name]
    return [(form, name) for name in names for form in forms if form != "int8" or name == names[-1]]


def find_missing() -> list[str]:
    """Returns the peers that are not installed."""
    return [peer for peer, package in PACKAGES.items() if find_spec(package) is None]


def candidates(batch: int, size: int, form: str, dtype: torch.dtype) -> dict:
    setups = {name: functools.partial(extract, model, batch, size, form, dtype) for name, model in MODELS.items()}
    if form == "frozen":
        setups["OpenVINO, our export"] = functools.partial(by_openvino, batch, size, dtype)
        if dtype == torch.float32:
            setups["onnxruntime, our export"] = functools.partial(by_onnxruntime, batch, size)
    if form == "int8":
        setups = {"torchao, int8, ours": functools.partial(by_torchao, batch, size)}
        setups["onnxruntime, int8, our export"] = functools.partial(by_onnxruntime, batch, size, int8=True)
        setups["ours, frozen"] = functools.partial(extract, ours, batch, size, "frozen", dtype)
    missing = tuple(find_missing())
    return {name: setup for name, setup in setups.items() if not name.startswith(missing)}


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


@exit_with_message()
def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("--batch", type=parse_count, default=16, help="images in a batch")
    parser.add_argument("--size", type=parse_count, default=224, help="side of the images in pixels")
    parser.add_argument("--repeats", type=parse_count, default=9, help="times that each is measured")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="forms of the model")
    types = [name_dtype(dtype) for dtype in DTYPES.values()]
    parser.add_argument("--dtypes", nargs="+", choices=types, default=types, help="types of weights and images")
    parser.add_argument("--threads", type=parse_count, help="Default: one a core.")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="glibc, tuned", help="allocator of memory")
    arguments = parser.parse_args()
    missing, has_bfloat16 = find_missing(), has_native_bfloat16("cpu")
    content: dict[str, object] = {"missing": missing}
    settings = {name: getattr(arguments, name) for name in ("batch", "size", "allocator", "threads", "forms", "dtypes")}
    for form, name in list_tables(arguments.forms, arguments.dtypes, has_bfloat16):
        setups = candidates(arguments.batch, arguments.size, form, DTYPES[name])
        where = {"threads": arguments.threads, "allocator": arguments.allocator}
        results = take_turns(setups, repeats=arguments.repeats, warmup=2, **where)
        print(f"\n{form}{name}\n{report(results, arguments.batch)}", flush=True)
        content[f"{form}{name}"] = rows(results.values())
    if not has_bfloat16:
        print("bf16 was not run: this CPU does not compute it natively.")
    if missing:
        print(f"Not measured, because not installed: {', '.join(missing)} (pip install -e '.[bench,int8]').")
    name = "inference" if arguments.allocator == "glibc, tuned" else "inference_default_allocator"
    print(f"{write_json(name_by_processor(name), settings, content)}; {environment()}")


if __name__ == "__main__":
    main()
