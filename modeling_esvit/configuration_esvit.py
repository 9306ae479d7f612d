# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the configuration of EsViT models, and finds published architectures by name (arXiv 2106.09785, Table 1)."""

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from .families import ARCHITECTURES, FAMILIES, list_options, require_fields
from .family import EsViTArchitectureError, Family
from .field_values import check_mlp_widths, check_values
from .vil_architecture import EXAMPLE, is_architecture_string, parse_architecture


def find_architecture(name: str) -> dict[str, Any]:
    """Returns the fields of a published architecture, or of one that is spelt out.

    Raises:
        EsViTArchitectureError: there is none of this name.
    """
    if is_architecture_string(str(name)):
        return parse_architecture(name)
    if name not in ARCHITECTURES:
        nearest = difflib.get_close_matches(str(name), ARCHITECTURES, n=1, cutoff=0.0)[0]
        raise EsViTArchitectureError(
            f"Unknown architecture {name!r}; did you mean {nearest!r}? Known: {', '.join(sorted(ARCHITECTURES))}. "
            f"Among ViLs only vil-tiny has a name; spell others as the original does, {EXAMPLE!r}."
        )
    return ARCHITECTURES[name]


def check_agreement(name: str, fields: dict[str, Any], given: dict[str, Any]) -> None:
    """Checks that given fields agree with the family of an architecture, and with all that a string says of a ViL.

    Raises:
        EsViTArchitectureError: one does not; the message names it and both values.
    """
    told = fields if is_architecture_string(name) else {"architecture": fields["architecture"]}
    widths = [fields.get("embed_dim", 0) * 2**stage for stage in range(len(fields.get("depths", ())))]
    meanings = {"stage_dims": widths, "absolute_positions": [0] * len(widths)}  # of None
    for field in [field for field in given if field in told]:
        ours, theirs = (meanings.get(field) if value is None else value for value in (given[field], told[field]))
        if to_list(ours) != theirs:
            raise EsViTArchitectureError(
                f"{field} is {given[field]}, but {name!r} has {theirs}; make both the same, or leave {field} out."
            )


def to_list(value: Any) -> Any:
    """Returns a tuple as a list, as a file holds it; everything else as it is."""
    return list(value) if isinstance(value, tuple) else value


ConfigClass = TypeVar("ConfigClass", bound=type)


def raise_plainly(config_class: ConfigClass) -> ConfigClass:
    """Makes a strict configuration class raise its validators' own sentence, as an EsViTArchitectureError.

    `strict` has no hook for this: it wraps the errors of a field's type while fields are set, and those of validators
    after `__post_init__`, both from inside the `__init__` that it puts into the class.
    """
    validated_init = config_class.__init__  # type: ignore[misc]

    @functools.wraps(validated_init)
    def __init__(self, *args, **kwargs):
        try:
            validated_init(self, *args, **kwargs)
        except EsViTArchitectureError:
            raise
        except StrictDataclassError as error:
            reason, *_ = str(error.__cause__).split(" Errors: ")
            raise EsViTArchitectureError(reason) from error

    config_class.__init__ = __init__  # type: ignore[misc]
    return config_class


@raise_plainly
@strict
class EsViTConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""Describes an [`EsViTModel`] or one of its relatives.

    Names and meanings are those of [`SwinConfig`] wherever both have them. The defaults give EsViT's Swin-T with
    window 7 and its two projection heads.

    Args:
        architecture (`str`, defaults to `"swin"`):
            Family of the backbone, one of `families.py`: `"swin"`, `"vil"`, `"cvt"`, `"vit"`, or `"auto"` for a
            backbone of transformers.
        backbone_config (*optional*):
            For `"auto"`: the configuration of a model that `AutoBackbone` knows, as an object or dict, or the name of a
            model on the Hub, a model folder, or a `config.json`. Fields of the networks that are built here must then
            be left out. Likewise each family takes only its own fields, the `options` of its row.
        image_size (`int` or pair, defaults to 224):
            Size, in pixels, *at construction*: with `patch_size` it fixes the window and the shift of every stage.
            Inputs of any other size are accepted and never change them.
        patch_size (`int`, defaults to 4):
            Side of a patch (Swin). Right and bottom pixels beyond a multiple of it are cropped.
        num_channels, embed_dim, depths, num_heads:
            Input channels, width of the first stage, and blocks and attention heads of each stage.
        stage_dims (`list[int]`, *optional*):
            Width of each stage, where it does not double from stage to stage (CvT); the first one is `embed_dim`.
        window_size (`int`, defaults to 7):
            Side of an attention window, in tokens. A stage whose map at construction is no larger has one window, as
            large as that map, without shift. CvT: a window is no larger than the map at hand. ViL: side of a chunk,
            which never changes.
        legacy_shift_mask (`bool`, defaults to `False`):
            Swin, in training: whether crops of any size get the mask of shifted windows of the map at construction, as
            in the original before October 2021, and so very probably for the published weights. For other sizes the
            mask depends on an image's place in its batch, whose size has to fit. Use it only to reproduce or continue
            those runs.
        patch_kernels, patch_strides, patch_paddings:
            CvT: kernel, stride and padding of the convolution that embeds the patches of each stage.
        patch_strides, sparse_stages, global_tokens:
            ViL, for each stage: the side of its patches in pixels or tokens (the first is `patch_size`), whether its
            attention is sparse (1) or full (0), and the number of its global tokens.
        absolute_positions (`list[int]`, *optional*):
            ViL, for each stage: whether it has position embeddings (1) or its attentions have position biases (0).
            The default is biases in every stage.
        vil_mode (`int`, defaults to 0):
            The chunks that a local token sees in the sparse attention of ViL. 0: its own and the eight around it. -1:
            its own. Above 0: in training its own and one of the eight, drawn for each call; in evaluation as 0.
        vil_exact_window (`bool`, defaults to `False`):
            ViL: whether only the part of these chunks is seen that is at most `window_size` rows and columns away.
        vil_shared_weights (`bool`, defaults to `True`):
            ViL: whether global tokens are projected by the same weights as local ones in sparse attention.
        mlp_ratio, qkv_bias, hidden_dropout_prob, attention_probs_dropout_prob, drop_path_rate, hidden_act:
            The same as in [`SwinConfig`]. `drop_path_rate` is the rate of the last block; it grows linearly from zero.
        use_absolute_embeddings (`bool`, defaults to `False`):
            Whether a learned position embedding is added to the patches (resized bicubically for other image sizes).
        patch_norm (`bool`, defaults to `True`):
            Whether the patch embedding ends in a LayerNorm.
        initializer_range (`float`, defaults to 0.02), layer_norm_eps (`float`, defaults to 1e-6):
            Standard deviation of the truncated normal; epsilon of every LayerNorm.
        num_prototypes (`int`, defaults to 65536):
            Output dimension K of the projection heads.
        head_hidden_size, head_bottleneck_size, head_num_layers, head_batch_norm:
            Width of the heads' MLP (2048), of its output (256), its number of linear layers (3), and whether BatchNorm
            follows the inner ones.
        norm_last_layer (`bool`, defaults to `True`):
            Whether the prototypes' norms are frozen at their initial 1.
        region_head (`bool`, defaults to `True`):
            Whether [`EsViTForPreTraining`] has a region head (view + region task) beside the view head.
        out_features, out_indices:
            Stages that [`EsViTBackbone`] returns, of `"stem"`, `"stage1"`, ...

    Example:

    ```python
    >>> from modeling_esvit import EsViTConfig, EsViTModel

    >>> model = EsViTModel(EsViTConfig.from_architecture("swin-tiny", window_size=14))
    ```
    """

    model_type = "esvit"
    sub_configs = {"backbone_config": AutoConfig}
    attribute_map = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}

    architecture: str = "swin"
    backbone_config: Any = None  # str | dict | PreTrainedConfig, of which the completion makes the last
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int = 4
    num_channels: int = 3
    embed_dim: int = 96
    stage_dims: list[int] | tuple[int, ...] | None = None
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    legacy_shift_mask: bool = False
    patch_kernels: list[int] | tuple[int, ...] = (7, 3, 3, 3)
    patch_strides: list[int] | tuple[int, ...] = (4, 2, 2, 2)
    patch_paddings: list[int] | tuple[int, ...] = (2, 1, 1, 1)
    sparse_stages: list[int] | tuple[int, ...] = (1, 1, 0, 0)
    global_tokens: list[int] | tuple[int, ...] = (1, 1, 1, 0)
    absolute_positions: list[int] | tuple[int, ...] | None = None
    vil_mode: int = 0
    vil_exact_window: bool = False
    vil_shared_weights: bool = True
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    patch_norm: bool = True
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    num_prototypes: int = 65536
    head_hidden_size: int = 2048
    head_bottleneck_size: int = 256
    head_num_layers: int = 3
    head_batch_norm: bool = False
    norm_last_layer: bool = True
    region_head: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        if "num_attention_heads" in kwargs:
            self.num_heads = kwargs.pop("num_attention_heads")
        given = {name: getattr(self, name) for name in list_options() if self.is_given(name)}
        require_fields(self.architecture, [name for name in given if name not in self.family.completed])
        check_values(self)
        self.family.complete(self)
        for name in self.family.completed:
            self.check_followed(name, given.get(name, getattr(self, name)), getattr(self, name))
        stages = self.family.stages(self)
        self.stage_names = list(stages)
        self.num_layers = len(stages) - 1
        self.hidden_size = list(stages.values())[-1]
        self.check_followed("num_hidden_layers", kwargs.pop("num_hidden_layers", self.num_layers), self.num_layers)
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_architecture(cls, name: str, window_size: int | None = None, **overrides) -> "EsViTConfig":
        """Returns the configuration of a published architecture.

        Args:
            name (`str`): a key of `ARCHITECTURES`, such as `"swin-tiny"`, or the original's string for a ViL, see
                `vil_architecture.py`.
            window_size (`int`, *optional*): 7 (the default) or 14 in the paper; any other value works.
            overrides: Any further field of the configuration.

        Raises:
            EsViTArchitectureError: The name, or that of a field, is unknown; the message names the nearest one. Or the
                architecture has no such field, or it cannot have that value, or the string of a ViL says another one.
        """
        fields = find_architecture(name)
        for field in overrides:
            check_field(field)
        given = overrides if window_size is None else {**overrides, "window_size": window_size}
        named = rename_fields(given)
        require_fields(fields["architecture"], named)
        check_agreement(name, fields, named)
        return cls(**{**fields, **given})

    @property
    def family(self) -> Family:
        """Returns the row of the family in `families.py`.

        Raises:
            EsViTArchitectureError: there is none of the name in `architecture`.
        """
        if self.architecture not in FAMILIES:
            raise EsViTArchitectureError(f"architecture must be one of {sorted(FAMILIES)}, got {self.architecture!r}.")
        return FAMILIES[self.architecture]

    def is_given(self, name: str) -> bool:
        """Returns whether a field differs from its default. A file holds lists instead of tuples."""
        return to_list(getattr(self, name)) != to_list(type(self).__dataclass_fields__[name].default)

    def check_followed(self, name: str, given: Any, value: Any) -> None:
        """Checks a given field against the value that follows from others; a saved file holds that value."""
        if to_list(given) != to_list(value):
            raise EsViTArchitectureError(
                f"{name} is {given}, but for this {self.family.name} it follows from other fields, and is {value}; "
                f"leave {name} out."
            )

    def set_output_features_output_indices(self, out_features: list | None, out_indices: list | None) -> None:
        """Chooses the stages that [`EsViTBackbone`] returns.

        Raises:
            EsViTArchitectureError: they are not stages of this network; the message names those.
        """
        try:
            super().set_output_features_output_indices(out_features, out_indices)
        except (TypeError, ValueError) as error:
            raise EsViTArchitectureError(
                f"out_features {out_features} and out_indices {out_indices} must name the same stages, in order and "
                f"once each, of {', '.join(self.stage_names)} (indices from 0); give one of both alone."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, without `absolute_positions` if there are none: older files do not have this field."""
        fields = super().to_dict()
        if self.absolute_positions is None:
            fields.pop("absolute_positions")
        return fields

    def stage_widths(self) -> list[int]:
        """Returns the width C of each stage."""
        if self.stage_dims is not None:
            return list(self.stage_dims)
        return [self.embed_dim * 2**stage for stage in range(len(self.depths))]

    def patch_grid(self) -> tuple[int, int]:
        """Returns the rows and columns of patches of an image of `image_size`."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return height // self.patch_size, width // self.patch_size

    def patch_convolution(self, stage: int) -> tuple[int, int, int]:
        """Returns kernel, stride and padding of a stage's patch embedding, in pixels or tokens."""
        return self.patch_kernels[stage], self.patch_strides[stage], self.patch_paddings[stage]

    def stage_window(self, stage: int) -> tuple[int, int]:
        """Returns the window of a stage, and the shift of its odd blocks, in tokens.

        Both are fixed by the map at construction, never by an input: a map that is no larger than `window_size` is a
        single window, without shift.
        """
        side = min(self.patch_grid()) >> stage
        return (self.window_size, self.window_size // 2) if side > self.window_size else (side, 0)

    def region_grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of regions of an image of `height` x `width` pixels."""
        grid = self.family.token_grids(self, height, width)[-1]
        return grid.rows, grid.columns

    def validate_architecture(self):
        super().validate_architecture()
        check_values(self)
        self.family.validate(self)
        check_mlp_widths(self)


def find_published_name(config: EsViTConfig) -> str | None:
    """Returns the name of the published architecture whose backbone this is, whatever its window."""
    fields = [field for field in config.family.identity if field != "window_size"]
    for name in config.family.variants:
        published = EsViTConfig.from_architecture(name)
        if all(getattr(config, field) == getattr(published, field) for field in fields):
            return name
    return None


def check_field(name: str) -> None:
    """Checks that a configuration has a field of this name.

    Raises:
        EsViTArchitectureError: it has none; the message names the nearest.
    """
    extra = (*EsViTConfig.attribute_map, "out_features", "out_indices", "num_labels")
    known = [*(field.name for field in dataclasses.fields(EsViTConfig) if not field.name.startswith("_")), *extra]
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise EsViTArchitectureError(f"A configuration has no field {name!r}; did you mean {nearest!r}?")


def rename_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields by the names under which a configuration keeps them, `num_heads` for `num_attention_heads`.

    Raises:
        EsViTArchitectureError: a field is given by both of its names.
    """
    for alias, name in EsViTConfig.attribute_map.items():
        if alias in given and name in given:
            raise EsViTArchitectureError(f"{alias} is another name of {name}; give only {name}.")
    return {EsViTConfig.attribute_map.get(name, name): value for name, value in given.items()}


__all__ = ["EsViTArchitectureError", "EsViTConfig"]
