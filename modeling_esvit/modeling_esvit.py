# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the EsViT models: backbone, feature maps, classifier, and the networks of pretraining.

They are those of Li et al., "Efficient Self-supervised Vision Transformers for Representation Learning" (ICLR 2022,
arXiv 2106.09785).
"""

import copy
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, cached_file, output_capturing
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import (
    OutputRecorder,
    capture_outputs,
    maybe_install_capturing_hooks,
)

from .backbone_probe import find_built_size
from .configuration_esvit import EsViTConfig
from .model_outputs import EsViTForPreTrainingOutput, EsViTImageClassifierOutput, EsViTModelOutput
from .projection_head import EsViTProjectionHead, EsViTPrototypes
from .tokens import EncoderRequest, EsViTInputError, EsViTLayer, EsViTStage, check_pixels, pool_groups


AUTO_MAP = {
    "AutoConfig": "configuration_esvit.EsViTConfig",
    "AutoModel": "modeling_esvit.EsViTModel",
    "AutoBackbone": "modeling_esvit.EsViTBackbone",
    "AutoModelForImageClassification": "modeling_esvit.EsViTForImageClassification",
    "AutoModelForPreTraining": "modeling_esvit.EsViTForPreTraining",
}


# A published model is two files of weights: the backbone alone, which everything loads, and heads and centres. This
# variant of the index of the weights names both.
PRETRAINING_VARIANT = "pretraining"
PRETRAINING_INDEX = f"model.safetensors.index.{PRETRAINING_VARIANT}.json"
DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def describe_preprocessing(config: EsViTConfig) -> dict:
    """Returns the paper's evaluation transform as fields of a [`BitImageProcessor`].

    The shortest edge is resized to 256, bicubic, the centre cropped to 224, and ImageNet's statistics normalise. Other
    construction sizes keep that ratio.
    """
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(max(height, width) * 256 / 224)},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_convert_rgb": True,
    }


def write_preprocessing(config: EsViTConfig, file: Path) -> None:
    """Writes the paper's evaluation transform as the file that `AutoImageProcessor` reads."""
    file.write_text(json.dumps(describe_preprocessing(config), indent=2) + "\n", encoding="utf-8")


class EsViTPreTrainedModel(PreTrainedModel):
    """Initialises weights, and saves folders that also load where this package is not installed."""

    config: EsViTConfig
    config_class = EsViTConfig
    base_model_prefix = "esvit"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    # What adds a branch to its input must be on one device.
    _no_split_modules = [
        *("EsViTSwinLayer", "EsViTSwinPatchEmbed", "EsViTCvtLayer", "EsViTViTLayer"),
        *("EsViTViLAttentionBlock", "EsViTViLMLPBlock"),
    ]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": OutputRecorder(EsViTStage, index=0),
        "attentions": OutputRecorder(EsViTLayer, index=1),
    }

    def post_init(self):
        super().post_init()
        if self.config.family.wraps_backbone:  # which may be unable to recompute its blocks
            encoder: Any = self.base_model.encoder
            self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # transformers looks for the attention interface in this file only; ours is in the file of the architecture.
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialises a module as the original does.

        Linear layers get truncated normals, convolutions torch's default. A module with an `init_weights` initialises
        its own parameters, and may replace these rules.
        """
        std = self.config.initializer_range
        own = None if isinstance(module, PreTrainedModel) else getattr(module, "init_weights", None)
        if own is not None:
            own(std)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.weight[0].numel())
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, EsViTForPreTraining):
            init.zeros_(module.view_center)
            if module.region_center is not None:
                init.zeros_(module.region_center)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):  # type: ignore[override]
        """Saves the model as [`PreTrainedModel.save_pretrained`] does, with all that loading it takes.

        The folder also holds the code files, `auto_map` entries for every head, and the evaluation transform (a
        `preprocessor_config.json` that is already there is kept).
        """
        folder = Path(save_directory)
        processor_file = folder / "preprocessor_config.json"
        if is_main_process and not folder.is_file() and not processor_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_preprocessing(self.config, processor_file)
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


def copy_without_hooks(module: Any, copies: dict[int, Any]) -> Any:
    """Returns a module of the same parameters, all the way down, without the hooks that record outputs.

    copies: those made so far, so that a module that is there twice stays one.
    """
    if module is None or id(module) in copies:
        return copies.get(id(module))
    copies[id(module)] = copied = copy.copy(module)
    copied._modules = {name: copy_without_hooks(each, copies) for name, each in module._modules.items()}
    hooks = [(key, hook) for key, hook in module._forward_hooks.items() if hook.__module__ != output_capturing.__name__]
    copied._forward_hooks = OrderedDict(hooks)
    if isinstance(module, PreTrainedModel):
        copied._output_capturing_hooks_installed = False
    return copied


class EsViTModel(EsViTPreTrainedModel):
    """Computes regions, and their mean as the view feature."""

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [
        r"^(view|region)_(head\.|center$)",
        r"^classifier\.",
        r"^hidden_states_norms\.",
    ]

    def __init__(self, config: EsViTConfig):
        super().__init__(config)
        self.encoder: Any = config.family.encoder(config)
        self.num_features = config.hidden_size
        self.post_init()

    def post_init(self):
        super().post_init()
        # Installed at once: a first installation inside a compiled forward would break its graph. A backbone installs
        # them itself. It is not known by its class: of code that comes with a folder, transformers makes copies.
        self._output_capturing_hooks_installed = self.config.family.wraps_backbone
        maybe_install_capturing_hooks(self)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what pickle and `torch.save(model)` store: all but the hooks of transformers, which are no objects
        that can be stored.
        """
        modules = {name: copy_without_hooks(each, {}) for name, each in self._modules.items()}
        return super().__getstate__() | {"_modules": modules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.config.family.wraps_backbone:
            self.encoder.install_hooks()
        else:
            self._output_capturing_hooks_installed = False
            maybe_install_capturing_hooks(self)

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.input_embedding()

    def check_crops(self, pixel_values: torch.Tensor | list[torch.Tensor] | None) -> list[torch.Tensor]:
        """Returns the input as a list of groups, in the type of the weights. Values are not looked at.

        Raises:
            EsViTInputError: its type or shape cannot be right.
        """
        if pixel_values is None or (isinstance(pixel_values, list | tuple) and not pixel_values):
            raise EsViTInputError("pixel_values is missing; pass a float tensor [batch, channels, height, width].")
        given = pixel_values if isinstance(pixel_values, list | tuple) else [pixel_values]
        crops = [check_pixels(images) for images in given]
        for images in crops:
            shape = tuple(images.shape)
            if images.ndim != 4 or shape[0] == 0 or shape[1] != self.config.num_channels:
                raise EsViTInputError(
                    f"pixel_values has shape {shape}; expected [batch, {self.config.num_channels}, height, width] with "
                    "at least one image."
                )
            self.encoder.check_size(*shape[2:])
        dtype = next(self.encoder.input_embedding().parameters()).dtype
        return [images.to(dtype) for images in crops]

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | list[torch.Tensor] | None = None,
        output_maps_before_merging: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EsViTModelOutput:
        """Computes regions and view features.

        Args:
            pixel_values: normalised images `[B, channels, H, W]` of any size that the architecture takes, or a list of
                such tensors (groups of crops of different sizes), which go through the backbone together.
            output_maps_before_merging: take `reshaped_hidden_states` before patch merging.

        Raises:
            EsViTInputError: wrong rank, type or number of channels, or a size that the architecture cannot take.
        """
        crops = self.check_crops(pixel_values)
        with_maps = bool(kwargs.get("output_hidden_states", self.config.output_hidden_states))
        request = EncoderRequest(
            attentions=bool(kwargs.get("output_attentions", self.config.output_attentions)),
            maps=with_maps and len(crops) == 1,
            before_merging=output_maps_before_merging,
        )
        output = self.encoder(crops, request)
        return EsViTModelOutput(
            last_hidden_state=output.tokens,
            pooler_output=output.pooled,
            reshaped_hidden_states=output.maps,
        )

    def n_last_blocks_features(self, pixel_values: torch.Tensor, n: int = 4, append_mean: bool = False) -> torch.Tensor:
        """Computes the feature of the paper's linear probe.

        It is the outputs of the last `n` blocks, counted over all stages and before patch merging, each averaged over
        its tokens (those of the last stage after the final norm), concatenated in order. Swin-T with n = 4: `[B,
        2304]`; the last C entries are the view feature.

        A ViT gives the class tokens, each after the final norm, and with `append_mean` also the mean of the regions:
        DeiT-S with n = 4 `[B, 1536]`, with n = 1 and the mean `[B, 768]`. A backbone of transformers gives its view
        feature alone, n = 1.

        Raises:
            ValueError: n is no integer between 1 and the number of blocks.
        """
        num_blocks = sum(self.config.depths)
        if not isinstance(n, int) or n not in range(1, num_blocks + 1):
            raise ValueError(f"n must be an integer between 1 and the {num_blocks} blocks of this model, got {n}.")
        output = self.encoder(self.check_crops(pixel_values), EncoderRequest(last_blocks=n))
        means = [pool_groups(output.tokens, output.grids)] if append_mean else []
        return torch.cat([*output.last_blocks, *means], dim=-1)


def find_unused_parameters(config: EsViTConfig, stages: tuple[str, ...]) -> set[str]:
    """Returns the names of parameters of an [`EsViTModel`] on which the maps of `stages` do not depend.

    They are found by a backward pass without values.
    """
    built = find_built_size(config.backbone_config) if config.family.wraps_backbone else None
    height, width = built or ((config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size)
    with torch.device("meta"), torch.enable_grad(), no_init_weights():
        model = EsViTModel(config).eval().requires_grad_(True)  # all, also what the last map alone does not need
        images = torch.empty(1, config.num_channels, height, width)
        maps = model(images, output_hidden_states=True, output_maps_before_merging=True).reshaped_hidden_states
        wanted = [each for stage, each in zip(config.stage_names, maps, strict=True) if stage in stages]
        sum(each.sum() for each in wanted).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is None}


class EsViTBackbone(BackboneMixin, EsViTPreTrainedModel):
    """Computes feature maps for detection and segmentation heads.

    Each returned stage has a LayerNorm. The last stage's is the pretrained final norm; the others, which pretraining
    does not have, are new and to be trained with the head.
    """

    _auto_class = "AutoBackbone"
    _keys_to_ignore_on_load_unexpected = [r"^(view|region)_(head\.|center$)", r"^classifier\."]

    def __init__(self, config: EsViTConfig):
        super().__init__(config)
        self.esvit = EsViTModel(config)
        self.num_features = list(config.family.stages(config).values())
        self.hidden_states_norms = nn.ModuleDict(
            {
                stage: nn.LayerNorm(width, eps=config.layer_norm_eps)
                for stage, width in zip(self.out_features, self.channels, strict=True)
                if stage != self.stage_names[-1] and not config.family.wraps_backbone
            }
        )
        self._output_capturing_hooks_installed = True  # by EsViTModel; BackboneMixin would install them a second time
        self.post_init()
        self.freeze()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Loads the model as [`PreTrainedModel.from_pretrained`] does, but frozen parameters stay frozen."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()  # a pair with output_loading_info=True
        return loaded

    def freeze(self) -> None:
        """Takes the gradient from parameters on which none of the maps depends: DDP would wait for it."""
        if self.stage_names[-1] in self.out_features and not self.config.family.wraps_backbone:
            return
        unused = find_unused_parameters(self.config, tuple(self.out_features))
        for name, parameter in self.esvit.named_parameters():
            parameter.requires_grad_(name not in unused)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """Computes from `[B, channels, H, W]` a map `[B, C_s, H_s, W_s]` for each of `out_features`."""
        if isinstance(pixel_values, list | tuple):
            raise EsViTInputError(
                f"A backbone takes one tensor, got a list of {len(pixel_values)}: groups of several sizes have no map."
            )
        outputs = self.esvit(pixel_values, output_maps_before_merging=True, **kwargs)
        feature_maps = tuple(
            self.normalize(stage, feature_map)
            for stage, feature_map in zip(self.stage_names, outputs.reshaped_hidden_states, strict=True)
            if stage in self.out_features
        )
        return BackboneOutput(
            feature_maps=feature_maps,  # type: ignore[arg-type]  # annotated as a tuple of one
            hidden_states=outputs.hidden_states
            if self.config.family.wraps_backbone
            else outputs.reshaped_hidden_states,
            attentions=outputs.attentions,
        )

    def normalize(self, stage: str, feature_map: torch.Tensor) -> torch.Tensor:
        """Norms a map, unless it comes normed from a backbone of transformers."""
        if self.config.family.wraps_backbone:
            return feature_map
        norm = self.esvit.encoder.norm if stage == self.stage_names[-1] else self.hidden_states_norms[stage]
        return norm(feature_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class EsViTForImageClassification(EsViTPreTrainedModel):
    """Classifies images by a linear layer on the view feature."""

    _auto_class = "AutoModelForImageClassification"
    _keys_to_ignore_on_load_unexpected = [r"^(view|region)_(head\.|center$)", r"^hidden_states_norms\."]

    def __init__(self, config: EsViTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels or 0
        self.esvit = EsViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels) if self.num_labels else nn.Identity()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EsViTImageClassifierOutput:
        """Classifies `[B, channels, H, W]`; `labels` give a loss as in every transformers image classifier."""
        outputs = self.esvit(pixel_values, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return EsViTImageClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


class EsViTForPreTraining(EsViTPreTrainedModel):
    """Holds the backbone, the view head and (with `config.region_head`) the region head of a student or a teacher.

    The centres of the teacher's logits are buffers, so that a saved teacher is all that continued pretraining needs.
    """

    _auto_class = "AutoModelForPreTraining"

    view_center: torch.Tensor
    region_center: torch.Tensor | None

    def __init__(self, config: EsViTConfig):
        super().__init__(config)
        self.esvit = EsViTModel(config)
        self.view_head = EsViTProjectionHead(config)
        self.region_head = EsViTProjectionHead(config) if config.region_head else None
        self.register_buffer("view_center", torch.zeros(config.num_prototypes))
        self.register_buffer("region_center", torch.zeros(config.num_prototypes) if config.region_head else None)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Loads the model as [`PreTrainedModel.from_pretrained`] does, but frozen parameters stay frozen.

        Heads and centres that are in a file of their own (`pretraining_heads.safetensors`) are loaded, too.
        """
        if pretrained_model_name_or_path is not None and "variant" not in kwargs:
            options = {name: kwargs[name] for name in DOWNLOAD_OPTIONS if kwargs.get(name) is not None}
            quietly = dict.fromkeys(("missing_entries", "connection_errors", "gated_repo"), False)
            quietly = {f"_raise_exceptions_for_{name}": value for name, value in quietly.items()}
            if cached_file(pretrained_model_name_or_path, PRETRAINING_INDEX, **options, **quietly) is not None:
                kwargs["variant"] = PRETRAINING_VARIANT
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a pair with output_loading_info=True
        for module in model.modules():
            if isinstance(module, EsViTPrototypes):
                module.weight_g.requires_grad_(not model.config.norm_last_layer)
        if model.config.family.wraps_backbone:
            model.esvit.encoder.freeze()
        return loaded

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor | list[torch.Tensor] | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> EsViTForPreTrainingOutput:
        """Computes what the losses need.

        Args:
            pixel_values: a list of crop groups, each `[crops * B, channels, h, w]` with all images of its first crop,
                then all of its second, and so on; or a single such tensor.
        """
        outputs = self.esvit(pixel_values, **kwargs)
        features = outputs.last_hidden_state.flatten(0, 1)
        return EsViTForPreTrainingOutput(
            view_embeddings=self.view_head(outputs.pooler_output),
            view_prototypes=self.view_head.last_layer(),
            region_features=features,
            region_embeddings=None if self.region_head is None else self.region_head(features),
            region_prototypes=None if self.region_head is None else self.region_head.last_layer(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "EsViTBackbone",
    "EsViTForImageClassification",
    "EsViTForPreTraining",
    "EsViTInputError",
    "EsViTModel",
    "EsViTPreTrainedModel",
]
