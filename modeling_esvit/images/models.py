# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads a model for images and its image processor, of this project or any other of transformers.

Its files may be a stranger's. Whatever they hold, the outcome is a model that computes features of an image, or a
`NoImageModelError` of one line; no code in them is run unless the user asks for it.
"""

import inspect
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import httpx
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import CONFIG_NAME, ModelOutput, cached_file

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.hub import find_reachable_model
from modeling_esvit.images.model_limits import bound_build, check_counts, check_sizes, count_stored
from modeling_esvit.images.model_places import check_fields, check_files
from modeling_esvit.images.transform import make_evaluation_transform
from modeling_esvit.storage.weight_bars import hide_weight_bars


# What transformers, torch and the code of a model raise for fields that nobody foresaw.
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(NotImplementedError, RuntimeError, StopIteration, TypeError, ValueError, StrictDataclassError),
    *(SafetensorError, UnpicklingError, struct.error, httpx.HTTPError),
)
LONGEST_REASON = 400  # characters: transformers may list all models there are
DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
TRIALS = ((64, 64), (96, 64))  # width, height of the images that a model is tried with


class NoImageModelError(EsViTError, OSError):
    """Raised when a name stands for something else than a model for images. An OSError, as of transformers."""


@contextmanager
def name_transformers_errors(name: str) -> Iterator[None]:
    """Repeats what transformers says of a model that it cannot load, in one line with the name of the model.

    Raises:
        NoImageModelError: it is no model, none that transformers knows, or not for images; or a file of it is missing
            or damaged, or holds what cannot be.
    """
    try:
        yield
    except NoImageModelError:
        raise
    except OSError as error:
        reason = join_lines(error)
        if Path(name).exists():
            raise NoImageModelError(reason) from error
        raise NoImageModelError(
            f"there is no folder {name!r}, and as a name of a model on the Hub: {reason}"
        ) from error
    except SafetensorError as error:
        raise NoImageModelError(
            f"The weights of {name} are damaged: {join_lines(error)}. Copy or download them again."
        ) from error
    except FAILURES as error:
        raise NoImageModelError(f"{name} cannot be loaded as a model for images: {shorten_error(error)}") from error


def shorten_error(error: Exception) -> str:
    """Returns the message of an error in one line, with its kind where that says more."""
    kind = "" if type(error) is ValueError or isinstance(error, EsViTError) else f"{type(error).__name__}: "
    return f"{kind}{shorten(str(error), LONGEST_REASON)}"


def join_lines(error: Exception) -> str:
    """Returns the message of an error in one line."""
    return " ".join(str(error).split())


def load_image_model(
    name: str,
    model_options: dict[str, Any] | None = None,
    *,
    device: torch.device | str = "cpu",
    one_size: bool = True,
    **options: Any,
) -> tuple[Any, Any]:
    """Loads a model for images and its image processor, and tries them.

    Args:
        name: a model folder, the folder of a run, or a name on the Hub.
        model_options: of `AutoModel.from_pretrained` alone.
        device: where the model goes.
        one_size: whether the processor must make all images one size.
        options: of both `from_pretrained`: `revision`, `trust_remote_code` and so on.

    Raises:
        NoImageModelError: the model does not take images alone, is none that transformers knows, lacks weights, or
            does not compute; or there is none of this name, or no image processor beside it.
    """
    options = {"trust_remote_code": False} | options  # transformers would ask on a terminal
    name = find_reachable_model(name, options.get("revision"))
    with name_transformers_errors(name), hide_weight_bars():
        model, loading = load_network(name, model_options or {}, options)
        parameters = {key for key, _ in model.named_parameters()}
        missing = [key for key in loading["missing_keys"] if key in parameters]
        if any(key.startswith("pooler.") for key in missing):
            model.pooler = None  # as of DINO's ViTs: of random weights, its output would be none of this model
        check_inputs(name, model)
        require_weights(name, [key for key in missing if not key.startswith("pooler.")])
        processor = AutoImageProcessor.from_pretrained(name, **options)
        check_sizes(processor)
        model = model.to(device)
        try_model(model, processor, one_size)
    return model, processor


def load_configuration(name: str, **options: Any) -> Any:
    """Loads a configuration of transformers; see `load_image_model`.

    Raises:
        NoImageModelError: there is none of this name, or a field of it cannot be.
    """
    with name_transformers_errors(name), bound_build():
        read_fields(name, **choose_download_options(options))
        return AutoConfig.from_pretrained(name, **{"trust_remote_code": False} | options)


def read_fields(name: str, **options: Any) -> dict[str, Any]:
    """Returns the fields of a model's `config.json`, and checks them before a configuration is made of them.

    Args:
        options: For the download.

    Raises:
        ModelLimitError: a number is far larger than any is.
        ModelPlaceError, PlaceError, WeightNameError: see `check_fields` and `check_files`.
        OSError: there is no such model.
    """
    if os.path.isdir(name):
        check_files(Path(name))
    fields = PreTrainedConfig.get_config_dict(name, **options)[0]
    check_counts(fields)
    check_fields(fields)
    return fields


def load_network(name: str, model_options: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns a network with its weights, and what transformers says of loading these."""
    config = load_configuration(name, **options)
    with guard_weights(name, **options):
        return AutoModel.from_pretrained(name, config=config, **model_options, **options, output_loading_info=True)


@contextmanager
def guard_weights(name: str, beside: int = 0, **options: Any) -> Iterator[None]:
    """Checks the weights of a model, and bounds the network that the block builds for them.

    Those that the block itself downloads are checked when the first tensor is made.

    Args:
        beside: how many numbers the network may have that are not stored.
        options: of `from_pretrained`.

    Raises:
        ModelLimitError, ModelPlaceError, PlaceError, WeightNameError: see `bound_build` and `check_files`.
        OSError: there is no such model.
    """
    folder = Path(str(cached_file(name, CONFIG_NAME, **choose_download_options(options)))).parent

    def measure() -> int:
        check_files(folder)
        return count_stored(folder) + beside

    with bound_build(measure):
        yield


def choose_download_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in DOWNLOAD_OPTIONS if options.get(name) is not None}


def check_inputs(name: str, model: Any) -> None:
    """Checks that a model takes images alone.

    Raises:
        NoImageModelError: it takes text.
    """
    inputs = inspect.signature(model.forward).parameters
    if "input_ids" in inputs:  # other models may call their images anything
        taken = "text beside images; name its vision model" if "pixel_values" in inputs else "text and no images"
        raise NoImageModelError(f"{name} is a {type(model).__name__}, which takes {taken}.")


def require_weights(name: str, missing: list[str]) -> None:
    """Checks that no weights are missing, which transformers replaces by random ones.

    Raises:
        NoImageModelError: some are.
    """
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NoImageModelError(f"{name} lacks weights that its config.json describes: {sorted(missing)[0]}{more}.")


@torch.no_grad()  # not inference_mode: a tensor that the model caches here must serve training as well
def try_model(model: Any, processor: Any, one_size: bool) -> None:
    """Tries a model with one image, as its processor prepares it.

    Raises:
        ValueError: the processor makes images of several sizes, or the model gives no output with names.
    """
    model.eval()
    pixels = [make_evaluation_transform(processor)(Image.new("RGB", size, "gray")) for size in TRIALS]
    if one_size and pixels[0].shape != pixels[1].shape:
        sizes = " and ".join("x".join(map(str, each.shape[:0:-1])) for each in pixels)
        raise ValueError(f"its image processor makes images of several sizes ({sizes}), not of one.")
    if not isinstance(model(pixels[0][None].to(model.device, model.dtype)), ModelOutput):
        raise ValueError("its output has no names (return_dict in its config.json).")


def fingerprint(model: torch.nn.Module) -> int:
    """Returns a checksum over some weights of each tensor, which tells apart two models of the same name.

    They are rounded to bfloat16, so that a model has one checksum, whether it is loaded in that or in float32.
    """
    heads = [tensor.flatten()[:64].to(torch.bfloat16) for tensor in model.state_dict().values()]
    some = [head.float().cpu().numpy().tobytes() for head in heads]
    return zlib.crc32(b"".join(some))
