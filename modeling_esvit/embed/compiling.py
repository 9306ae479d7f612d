# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes batches of pixel values with a model that is compiled once enough images are left to repay the compilation.

forward = BatchForward(model, partial(compute_features, model), mode="auto")
forward.expect(images=1_200_000, batch_size=64)
for pixels in batches:                               # [B, 3, H, W]; the last one may be smaller
    features, *others = forward(pixels)

"auto" times a few batches, forecasts what compiling costs and saves, says so in a line, and keeps the compiled model
only if its first batches are faster. On a CPU with AMX the compiled model is also frozen: torch lays its weights out
for the products. Features of the compiled and of the eager model differ by rounding.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modeling_esvit.errors import EsViTError, require_choice
from modeling_esvit.images.precision import has_amx


MODES = AUTO, ON, OFF = "auto", "on", "off"
TIMED = 2  # batches that are timed, after one that may be slower
SECONDS_A_LAYER = 0.8  # of compiling, on two cores: 109 s for the 130 layers of a Swin-T

Outputs = Sequence[Tensor]  # [B, ...] each


class CompileError(EsViTError, RuntimeError):
    """Raised when a model cannot be compiled here, though `--compile on` asks for it."""


@dataclass(frozen=True)
class Forecast:
    """Holds what compiling a model is expected to cost and to save.

    seconds: that compiling takes.
    saved: seconds an image that the compiled model is faster.
    images: that are left to compute.
    """

    seconds: float
    saved: float
    images: int

    @property
    def repaid_after(self) -> float:
        """Returns the number of images after which compiling has saved the time that it took; infinite for never."""
        return self.seconds / self.saved if self.saved > 0 else math.inf

    @property
    def is_repaid(self) -> bool:
        return self.repaid_after < self.images

    def describe(self) -> str:
        if self.is_repaid:
            return (
                f"Compiles the model: about {self.seconds:.0f} s, repaid after about {self.repaid_after:,.0f} of "
                f"{self.images:,} images that are left."
            )
        if self.saved <= 0:
            return "Does not compile: on this CPU, models of this type are not expected to be faster for it."
        return (
            f"Does not compile: the {self.images:,} images that are left are too few to repay about "
            f"{self.seconds:.0f} s, which takes about {self.repaid_after:,.0f}."
        )


def estimate_seconds(model: nn.Module) -> float:
    """Returns about how many seconds it takes to compile a model, by the number of its layers."""
    return SECONDS_A_LAYER * sum(next(module.children(), None) is None for module in model.modules())


def estimate_gain(device: torch.device, dtype: torch.dtype) -> float:
    """Returns how many times as fast a compiled model is expected to be, as measured of Swin-T on CPUs.

    Two CPUs with AMX gave 1.04 and 1.21 in float32, 1.35 and 1.11 in bfloat16, of which these are the means. A GPU was
    not measured: its figure is what the fused passes over memory are expected to give.
    """
    if device.type != "cpu":
        return 1.3
    if has_amx():
        return 1.22 if dtype == torch.bfloat16 else 1.12
    return 1.1 if dtype == torch.float32 else 1.0


def choose_compiler_options(device: torch.device) -> dict[str, Any] | None:
    """Returns the compiler's options for a device: frozen on a CPU with AMX, which other CPUs are slower with."""
    return {"freezing": True} if device.type == "cpu" and has_amx() else None


def explain_failure(what: str, error: RuntimeError) -> str:
    """Says what cannot be compiled, with the first line of the compiler's error."""
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return f"{what} cannot be compiled here: {reason}."


def announce(line: str) -> None:
    """Prints a line on the main process, above a progress bar."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    if PartialState().is_main_process:
        tqdm.write(line, file=sys.stderr)


def time_call(function: Callable[[Tensor], Outputs], pixels: Tensor) -> tuple[Outputs, float]:
    """Returns the outputs of a batch and the seconds that they took."""
    synchronize = torch.accelerator.synchronize if pixels.device.type != "cpu" else lambda: None
    synchronize()
    started = time.perf_counter()
    outputs = function(pixels)
    synchronize()
    return outputs, time.perf_counter() - started


class BatchForward:
    """Computes batches of pixel values, eagerly at first, and compiled if that is asked for or repaid.

    Only batches of one shape are compiled for, so that nothing is compiled twice. A batch of at least half as many
    images is filled up to it; smaller ones, and images of another size, are computed eagerly.
    """

    def __init__(self, model: Any, compute: Callable[[Tensor], Outputs], mode: str = OFF):
        """Takes the model, a function that computes outputs `[B, ...]` of pixel values with it, and one of MODES.

        Raises:
            ChoiceError: there is no such mode.
        """
        require_choice("compile", mode, MODES)
        self.model, self.compute, self.mode = model, compute, mode
        self.compiled: Callable[[Tensor], Outputs] | None = None
        self.shape: tuple[int, ...] | None = None  # of the batches that are timed and compiled for
        self.size = self.images = 0
        self.seconds: list[float] = []  # of eager batches
        self.compiled_seconds: list[float] = []
        self.run = {AUTO: self.run_timed, ON: self.run_first_compiled, OFF: compute}[mode]
        self.has_declined = False

    def expect(self, images: int, batch_size: int) -> None:
        """Notes how many images come, in batches of what size."""
        self.images = images
        if self.compiled is not None:
            return
        if self.size != min(batch_size, images):
            self.size, self.shape, self.seconds = min(batch_size, images), None, []
        if self.mode == AUTO:
            self.run = self.run_timed

    @torch.no_grad()  # not inference_mode: linear layers are trained on what is computed here
    def __call__(self, pixels: Tensor) -> Outputs:
        """Returns the outputs of pixel values `[B, 3, H, W]`.

        Raises:
            CompileError: the model cannot be compiled, and the mode is "on".
        """
        self.images -= len(pixels)
        if self.shape is None and self.size:
            self.shape = (self.size, *pixels.shape[1:])
        if not self.fits(pixels):
            return self.compute(pixels)
        missing = self.size - len(pixels)
        outputs = self.run(torch.cat([pixels, pixels[:missing]]) if missing else pixels)
        return [output[: len(pixels)] for output in outputs] if missing else outputs

    def fits(self, pixels: Tensor) -> bool:
        """Tells whether a batch has the expected shape, or can be filled up to it."""
        return (
            self.shape is not None and pixels.shape[1:] == self.shape[1:] and self.size / 2 <= len(pixels) <= self.size
        )

    def run_timed(self, pixels: Tensor) -> Outputs:
        """Computes a batch eagerly, and decides once enough of them are timed, if more are to come."""
        outputs, seconds = time_call(self.compute, pixels)
        self.seconds.append(seconds)
        if len(self.seconds) > TIMED and self.images > 0:
            self.decide()
        return outputs

    def decide(self) -> None:
        """Chooses to go on compiled if the images that are left repay it, else eagerly, and says which."""
        gain = estimate_gain(self.model.device, self.model.dtype)
        saved = min(self.seconds) / self.size * (1 - 1 / gain)
        forecast = Forecast(estimate_seconds(self.model), saved, self.images)
        self.run = self.run_first_compiled if forecast.is_repaid else self.compute
        if forecast.is_repaid or not self.has_declined:
            announce(forecast.describe())
        self.has_declined = not forecast.is_repaid

    def run_first_compiled(self, pixels: Tensor) -> Outputs:
        """Computes a batch with the model, compiling it first.

        Raises:
            CompileError: that is impossible, and the mode is "on".
        """
        options = choose_compiler_options(pixels.device)
        self.compiled = torch.compile(self.compute, dynamic=False, options=options)
        try:
            outputs, seconds = time_call(self.compiled, pixels)
        except RuntimeError as error:  # the nearest public base of what compilers raise
            reason = explain_failure(type(self.model).__name__, error)
            if self.mode == ON:
                raise CompileError(f"{reason} Leave out --compile on.") from error
            return self.return_to_eager(f"Does not compile: {reason}", self.compute(pixels))
        if self.mode == AUTO:
            announce(f"Compiled the model in {seconds:.0f} s.")
        self.run = self.run_checked if self.mode == AUTO else self.compiled
        return outputs

    def run_checked(self, pixels: Tensor) -> Outputs:
        """Computes a batch compiled; returns to the eager model if that was faster."""
        assert self.compiled is not None
        outputs, seconds = time_call(self.compiled, pixels)
        self.compiled_seconds.append(seconds)
        if len(self.compiled_seconds) <= TIMED:
            return outputs
        fastest, eager = min(self.compiled_seconds), min(self.seconds)
        if fastest > eager:
            slower = f"a batch takes {fastest:.3g} s compiled and {eager:.3g} s as it is"
            return self.return_to_eager(f"Goes on without compiling: {slower}.", outputs)
        self.run = self.compiled
        return outputs

    def return_to_eager(self, line: str, outputs: Outputs) -> Outputs:
        """Says why all further batches are computed eagerly; returns the outputs of this one."""
        announce(line)
        self.mode, self.compiled, self.run = OFF, None, self.compute
        return outputs


def add_compile_argument(parser: argparse.ArgumentParser, default: str = AUTO) -> None:
    parser.add_argument(
        "--compile",
        choices=MODES,
        default=default,
        help="compile the model, and freeze it on a CPU with AMX; auto does so if the images repay the time (default: "
        "%(default)s)",
    )
