# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the tables and pictures of RESULTS.md from what the benchmarks have saved.

python tests/benchmarks/report.py
"""

import json
from collections.abc import Callable
from pathlib import Path

from matplotlib import pyplot

from modeling_esvit.programs.parser import ProgramParser
from tests.benchmarks import count_step
from tests.benchmarks.bench_inference import DTYPES, FORMS
from tests.benchmarks.harness import RESULTS, table


FOLDER = Path(__file__).parent
Saved = dict  # the content of a benchmark's JSON file
Row = dict  # one of its measurements


def by_name(rows: list[Row], columns: dict[str, Callable[[Row], str]], corner: str = "") -> str:
    """Returns a line for each row, with its name first."""
    return table([corner, *columns], ((row["name"], *(cell(row) for cell in columns.values())) for row in rows))


def median(row: Row) -> str:
    return f"{row['median_seconds']:.2f}"


def peak(row: Row) -> str:
    return f"{row['peak_bytes'] / 1e9:.2f}"


def seconds_and_memory(saved: Saved) -> str:
    rows = saved["rows"]
    first = rows[0]
    columns = {
        "median s": median,
        "faster": lambda row: f"{first['median_seconds'] / row['median_seconds']:.2f} x",
        "peak GB": peak,
        "of the first": lambda row: f"{row['peak_bytes'] / first['peak_bytes']:.2f}",
    }
    return by_name(rows, columns)


def seconds_and_own_memory(saved: Saved) -> str:
    """Returns lines without the memory that the process holds before it begins, most of it when the work is small."""
    own = {"beyond its start, GB": lambda row: f"{(row['peak_bytes'] - row['start_bytes']) / 1e9:.2f}"}
    return by_name(saved["rows"], {"median s": median, "peak GB": peak} | own)


def loss(saved: Saved) -> str:
    by_name = {row["name"]: row for row in saved["rows"]}
    lines = []
    for name, row in by_name.items():
        plain = by_name[f"plain, {name.split(', ')[1]}"]
        extra = (row["peak_bytes"] - row["start_bytes"]) / 1e9
        faster = plain["median_seconds"] / row["median_seconds"]
        lines.append((name, f"{row['median_seconds']:.2f}", f"{faster:.2f} x", f"{extra:.2f}"))
    return table(["", "median s", "faster", "extra GB"], lines)


def inference(saved: Saved) -> str:
    kinds = [f"{form}{dtype}" for dtype in DTYPES for form in FORMS if f"{form}{dtype}" in saved]
    tables = [inference_of(kind, saved[kind], saved["batch"]) for kind in kinds]
    if saved.get("missing"):
        tables.append(f"Not installed there: {', '.join(saved['missing'])}.")
    return "\n\n".join(tables)


def inference_of(kind: str, rows: list[Row], batch: int) -> str:
    best = min(row["median_seconds"] for row in rows if not row["name"].startswith("ours"))
    columns = {
        "images/s": lambda row: f"{batch / row['median_seconds']:.1f}",
        "of the fastest peer": lambda row: f"{best / row['median_seconds']:.2f} x",
        "peak GB": peak,
    }
    return by_name(rows, columns, corner=kind)


def views(saved: Saved) -> str:
    first = saved["rows"][0]["median_seconds"]
    columns = {
        "images/s a core": lambda row: f"{saved['images'] / row['median_seconds']:.0f}",
        "ms an image": lambda row: f"{row['median_seconds'] / saved['images'] * 1e3:.2f}",
        "faster": lambda row: f"{first / row['median_seconds']:.2f} x",
    }
    return by_name(saved["rows"], columns)


def streams(saved: Saved) -> str:
    speed = {"samples/s": lambda row: f"{saved['images'] / row['median_seconds']:.0f}"}
    return by_name(saved["rows"], speed | {"peak GB": peak})


def extraction(saved: Saved) -> str:
    alone = saved["rows"][0]["median_seconds"]
    columns = {
        "images/s": lambda row: f"{saved['images'] / row['median_seconds']:.1f}",
        "of the model's speed": lambda row: f"{alone / row['median_seconds']:.0%}",
        "peak GB": peak,
    }
    return by_name(saved["rows"], columns)


def startup(saved: Saved) -> str:
    first = saved["rows"][0]
    share = f"of the first ({len(first['seconds'])} alternations)"
    columns = {"median s": median, share: lambda row: f"{row['median_seconds'] / first['median_seconds']:.3f}"}
    return by_name(saved["rows"], columns)


def profiles(saved: Saved) -> str:
    columns = {
        "s": lambda row: f"{row['seconds']:.2f}",
        "in matrix products": lambda row: f"{row['products']:.0%}",
        "in linear layers and prototypes": lambda row: f"{row['linear']:.0%}",
        "bare `torch.mm` of the same shapes": lambda row: f"{row['bare']:.0%}",
    }
    return by_name(saved["rows"], columns)


def growth(saved: Saved) -> str:
    name = saved["benchmark"]
    picture = RESULTS / f"{name}.png"
    draw(saved, picture)
    rows = ((r["value"], r["name"], f"{r['seconds']:.3f}", f"{r['peak_bytes'] / 1e9:.2f}") for r in saved["rows"])
    return f"![{name}]({picture.relative_to(FOLDER)})\n\n" + table([saved["unit"], "", "s", "peak GB"], rows)


def counts(saved: Saved) -> str:
    return table(
        ["backbone", "parameters", "paper, 10^6", "10^9 multiply-adds, 224 px", "published"],
        (
            (
                r["name"],
                f"{r['parameters']:,}",
                r["paper_millions"] or "",
                f"{r['multiply_adds'] / 1e9:.2f}",
                r["published_billions"] or "",
            )
            for r in saved["rows"]
        ),
    )


def draw(saved: Saved, path: Path) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, label, scale in ((axes[0], "seconds", "seconds", 1.0), (axes[1], "peak_bytes", "peak GB", 1e9)):
        for name in dict.fromkeys(row["name"] for row in saved["rows"]):
            rows = [row for row in saved["rows"] if row["name"] == name]
            axis.plot([r["value"] for r in rows], [r[key] / scale for r in rows], marker="o", label=name)
        values = sorted({row["value"] for row in saved["rows"]})
        axis.set_xscale("log", base=2)
        axis.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(saved["unit"])
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


OTHERS = ("cvt-tiny", "deit-small", "resnet-50", "pvt-small")  # beside Swin; ViL has a benchmark of its own
CROPS = "2 x {sizes[0]} + 8 x {sizes[1]} px"
# Titles take what a benchmark was told from its file, so that none is of other settings than its table.
SECTIONS: dict[str, tuple[str, Callable[[Saved], str]]] = {
    "counts": ("Backbones beside the published figures (EsViT, Table 1; Swin, Table 1)", counts),
    "step": (f"Pretraining step, Swin-T W7, {CROPS}, 65536 prototypes", seconds_and_memory),
    "step_default_allocator": (
        f"Pretraining step, Swin-T W7, {CROPS}, glibc's allocator as it comes",
        seconds_and_memory,
    ),
    **{f"step_{name}": (f"Pretraining step, {name}, {CROPS}, fp32", seconds_and_memory) for name in OTHERS},
    "vil_step": ("Pretraining step, ViL-T, batch {batch}, 2 x 224 + 8 x 96 px, fp32", seconds_and_own_memory),
    "vil_448": ("ViL-T, features of one image of 448 px", seconds_and_own_memory),
    "vil_896": ("ViL-T, features of one image of 896 px", seconds_and_own_memory),
    **{
        f"backbone_{name}": (f"Backbone, {name}, forward and backward, {CROPS}, fp32", seconds_and_memory)
        for name in ("vil-tiny", "cvt-tiny", "deit-small", "resnet-50")
    },
    "loss": ("Loss, prototypes and their gradients, {prototypes} prototypes", loss),
    "inference": ("Feature extraction, Swin-T W7, {size} px, batch {batch}", inference),
    "inference_default_allocator": (
        "Feature extraction, Swin-T W7, {size} px, batch {batch}, glibc's allocator as it comes",
        inference,
    ),
    "pipeline": ("From JPEGs of 500 x 375 px to view features, Swin-T W7, fp32, batches of 16", extraction),
    "views": ("Views: decode a {size[0]} x {size[1]} JPEG, 2 x 224 + 8 x 96 px crops, one core", views),
    "stream": ("Streams of JPEGs of 500 x 375 px, shuffled and decoded, one core", streams),
    "startup": ("From a new process to the features of a first image through `pipeline`", startup),
    "profile": ("Where the time goes, step and loss at batch {batch}, extraction at 16, under the profiler", profiles),
    "step_amx": (f"On a CPU with AMX: pretraining step, Swin-T W7, {CROPS}", seconds_and_memory),
    "inference_amx": ("On a CPU with AMX: feature extraction, Swin-T W7, {size} px", inference),
    "pipeline_bfloat16_compiled_amx": ("On a CPU with AMX: from JPEGs to features, bf16, compiled, frozen", extraction),
    "count_step": (f"A step on a GPU, counted without one: Swin-T W7, {CROPS}, {{mixed_precision}}", count_step.report),
    "gpu_swin-tiny": ("One GPU, Swin-T W7", seconds_and_memory),
    "gpu_swin-base": ("One GPU, Swin-B W7", seconds_and_memory),
    "growth_batch": ("Growth with the batch", growth),
    "growth_prototypes": ("Growth with the number of prototypes", growth),
    "growth_image_size": ("Growth with image size", growth),
    "growth_processes": ("One and two processes", growth),
    "growth_inference": ("Feature extraction, growth with image size", growth),
    "growth_knn": ("k-NN, growth with the bank", growth),
}


def make_title(name: str, saved: Saved) -> str:
    """Returns the title of a section, with the settings of its file; the oldest files do not say the sizes of crops."""
    return SECTIONS[name][0].format(**{"sizes": [224, 96]} | saved)


def section(name: str) -> str:
    title, make = SECTIONS[name]
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"## {name if '{' in title else title}\n\nNot measured."
    saved = json.loads(path.read_text())
    title = make_title(name, saved)
    e = saved["environment"]
    batch = f"batch {saved['batch']}, " if "batch" in saved else ""
    where = (
        f"{batch}{e['date']}, commit {e['commit']}, {e['cores']} cores of {e['processor']}"
        f" (bfloat16: {e['bfloat16']}), torch {e['torch']}, transformers {e['transformers']}"
    )
    return f"## {title}\n\n{make(saved)}\n\n{where}."


def main() -> None:
    ProgramParser(__doc__).parse_args()
    notes = (FOLDER / "NOTES.md").read_text()
    text = "\n\n".join([notes.rstrip(), *(section(name) for name in SECTIONS)])
    (FOLDER / "RESULTS.md").write_text(text + "\n")
    print(FOLDER / "RESULTS.md")


if __name__ == "__main__":
    main()
