# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the plain pretraining step that the fast one is measured against, equal to it in result.

It is what arXiv 2106.09785 and its code (microsoft/esvit, MIT) describe, written down directly. One forward pass for
each crop size; padding before the projection; every window cut out, attended to eagerly and put back; logits of all
rows over all prototypes; a loop over the 18 pairs of views; loops over parameters for clipping and the moving average;
torch's default AdamW.

It computes with the parameters of an [`EsViTForPreTraining`], so that both start from, and can be compared in, the same
weights.
"""

import torch
from torch import nn
from torch.nn import functional as F

import tests.benchmarks.reference_cvt as reference_cvt
import tests.benchmarks.reference_vil as reference_vil
import tests.benchmarks.reference_vit as reference_vit
from modeling_esvit import EsViTForPreTraining
from modeling_esvit.swin import EsViTSwinLayer, EsViTSwinPatchMerging
from modeling_esvit.swin_attention import EsViTSwinAttention
from tests.benchmarks.reference_parts import drop_path
from training.learning.optimizer import freeze_last_layer, group_parameters, set_schedules


def to_windows(image: torch.Tensor, size: int) -> torch.Tensor:
    """Cuts `[n, H, W, C]` into windows `[n * windows, size**2, C]`."""
    n, height, width, channels = image.shape
    image = image.view(n, height // size, size, width // size, size, channels)
    return image.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, channels)


def from_windows(windows: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    channels = windows.shape[-1]
    image = windows.view(-1, height // size, width // size, size, size, channels)
    return image.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, channels)


def window_mask(height: int, width: int, size: int, shift: int, device: torch.device) -> torch.Tensor:
    """Returns -100 between tokens that were not neighbours before the shift: `[windows, size**2, size**2]`."""
    region = torch.zeros(1, height, width, 1, device=device)
    slices = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in slices for columns in slices):
        region[:, rows, columns] = number
    label = to_windows(region, size).squeeze(-1)
    difference = label.unsqueeze(1) - label.unsqueeze(2)
    return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)


def window_attention(attention: EsViTSwinAttention, windows: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    count, length, channels = windows.shape
    heads = attention.num_heads
    qkv = attention.qkv(windows).reshape(count, length, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0] * attention.scaling, qkv[1], qkv[2]
    logits = query @ key.transpose(-2, -1)
    bias = attention.relative_position_bias_table[attention.relative_position_index.view(-1)]
    logits = logits + bias.view(length, length, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
    if mask is not None:
        per_image = mask.shape[0]
        logits = logits.view(count // per_image, per_image, heads, length, length) + mask.unsqueeze(1).unsqueeze(0)
        logits = logits.view(-1, heads, length, length)
    weights = logits.softmax(dim=-1)
    return attention.proj((weights @ value).transpose(1, 2).reshape(count, length, channels))


def block(layer: EsViTSwinLayer, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    n, _, channels = tokens.shape
    size, shift = layer.attn.window, layer.attn.shift
    image = layer.norm1(tokens).view(n, height, width, channels)
    image = F.pad(image, (0, 0, 0, -width % size, 0, -height % size))
    padded_height, padded_width = image.shape[1:3]
    mask = None
    if shift:
        image = torch.roll(image, shifts=(-shift, -shift), dims=(1, 2))
        mask = window_mask(padded_height, padded_width, size, shift, tokens.device)
    windows = window_attention(layer.attn, to_windows(image, size), mask)
    image = from_windows(windows, size, padded_height, padded_width)
    if shift:
        image = torch.roll(image, shifts=(shift, shift), dims=(1, 2))
    branch = image[:, :height, :width].contiguous().view(n, height * width, channels)
    tokens = tokens + drop_path(branch, layer)
    mlp = layer.mlp
    return tokens + drop_path(mlp.fc2(mlp.act(mlp.fc1(layer.norm2(tokens)))), layer)


def merge(merging: EsViTSwinPatchMerging, tokens: torch.Tensor, height: int, width: int):
    image = tokens.view(tokens.shape[0], height, width, -1)
    image = F.pad(image, (0, 0, 0, width % 2, 0, height % 2))
    corners = [image[:, 0::2, 0::2], image[:, 1::2, 0::2], image[:, 0::2, 1::2], image[:, 1::2, 1::2]]
    merged = torch.cat(corners, dim=-1)
    height, width = merged.shape[1:3]
    return merging.reduction(merging.norm(merged.flatten(1, 2))), height, width


def backbone(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns views `[n, C]` and regions `[n, T, C]` of images of one size."""
    encoder = model.esvit.encoder
    patches = encoder.patch_embed.proj(images)
    height, width = patches.shape[2:]
    tokens = encoder.patch_embed.norm(patches.flatten(2).transpose(1, 2))
    for stage in encoder.layers:
        for layer in stage.blocks:
            tokens = block(layer, tokens, height, width)
        if stage.downsample is not None:
            tokens, height, width = merge(stage.downsample, tokens, height, width)
    tokens = encoder.norm(tokens)
    return tokens.mean(dim=1), tokens


def backbone_of_transformers(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    regions = model.esvit.encoder.backbone(images).feature_maps[-1].flatten(2).transpose(1, 2)
    return regions.mean(dim=1), regions


BACKBONES = {
    "swin": backbone,
    "cvt": reference_cvt.backbone,
    "vil": reference_vil.backbone,
    "vit": reference_vit.backbone,
    "auto": backbone_of_transformers,
}


def head(projection: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Returns logits over the prototypes `[rows, K]`."""
    last = projection.last_layer
    weight = torch._weight_norm(last.weight_v, last.weight_g, 0)
    return F.linear(F.normalize(projection.mlp(features), dim=-1), weight)


def forward(model: EsViTForPreTraining, groups: list[torch.Tensor]):
    """Runs each crop size by itself: view logits, region logits, region features, regions a crop."""
    outputs = [BACKBONES[model.config.architecture](model, group) for group in groups]
    views = torch.cat([view for view, _ in outputs])
    regions = torch.cat([region.flatten(0, 1) for _, region in outputs])
    counts = [region.shape[1] for _, region in outputs]
    return head(model.view_head, views), head(model.region_head, regions), regions, counts


def pair_losses(student, teacher, batch: int, centers, student_temp: float, teacher_temp: float) -> torch.Tensor:
    """Returns the mean of both losses over all pairs of a teacher view and another student view (equations 1 and 2)."""
    view_center, region_center = centers
    s_view, s_region, s_features, counts = student
    t_view, t_region, t_features, _ = teacher
    crops = len(s_view) // batch
    regions = [counts[0]] * 2 + [counts[-1]] * (crops - 2)
    s_views = (s_view / student_temp).chunk(crops)
    s_regions = (s_region / student_temp).split([count * batch for count in regions])
    s_fea = s_features.split([count * batch for count in regions])
    t_views = F.softmax((t_view - view_center) / teacher_temp, dim=-1).detach().chunk(2)
    t_regions = F.softmax((t_region - region_center) / teacher_temp, dim=-1).detach().chunk(2)
    t_fea = t_features.chunk(2)
    total, pairs = torch.zeros((), device=s_view.device), 0
    for a in range(2):
        target = t_regions[a].view(batch, counts[0], -1)
        target_features = F.normalize(t_fea[a].view(batch, counts[0], -1), dim=-1)
        for v in range(crops):
            if v == a:
                continue
            view_loss = torch.sum(-t_views[a] * F.log_softmax(s_views[v], dim=-1), dim=-1).mean()
            features = F.normalize(s_fea[v].view(batch, regions[v], -1).detach(), dim=-1)
            match = torch.bmm(features, target_features.transpose(1, 2)).argmax(dim=2)
            matched = torch.gather(target, 1, match.unsqueeze(2).expand(-1, -1, target.shape[2]))
            logits = s_regions[v].view(batch, regions[v], -1)
            region_loss = torch.sum(-matched * F.log_softmax(logits, dim=-1), dim=-1).mean()
            total = total + 0.5 * view_loss + 0.5 * region_loss
            pairs += 1
    return total / pairs


@torch.no_grad()
def update_center(center: torch.Tensor, logits: torch.Tensor, momentum: float = 0.9) -> None:
    center.mul_(momentum).add_(logits.mean(dim=0), alpha=1 - momentum)


@torch.no_grad()
def clip_gradients(model: nn.Module, max_norm: float) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            factor = max_norm / (parameter.grad.norm(2).item() + 1e-6)
            if factor < 1:
                parameter.grad.mul_(factor)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    for averaged, current in zip(teacher.parameters(), student.parameters(), strict=True):
        averaged.mul_(momentum).add_((1 - momentum) * current)


class ReferenceStep:
    """Updates student, teacher and centres by `step(groups)` as one step of the plain recipe, and returns the loss.

    With `half`, both networks run in fp16 under autocast and the loss is scaled, as the original trains on a GPU.
    """

    def __init__(
        self, student: EsViTForPreTraining, teacher: EsViTForPreTraining, batch: int, half: bool = False, **options
    ):
        self.student, self.teacher, self.batch, self.options = student, teacher, batch, options
        self.device = student.device.type
        self.half, self.scaler = half, torch.amp.GradScaler(self.device, enabled=half)
        self.optimizer = torch.optim.AdamW(group_parameters(student), lr=0.0)

    def __call__(self, groups: list[torch.Tensor]) -> float:
        o, teacher = self.options, self.teacher
        set_schedules(self.optimizer, o["lr"], o["weight_decay"])
        centers = (teacher.view_center, teacher.region_center)
        with torch.autocast(self.device, torch.float16, enabled=self.half):
            with torch.no_grad():
                teacher_output = forward(teacher, groups[:1])
            loss = pair_losses(
                forward(self.student, groups), teacher_output, self.batch, centers, o["student_temp"], o["teacher_temp"]
            )
        value = loss.item()  # the original looks at it in every step
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        clip_gradients(self.student, o["clip_grad"])
        if o["freeze_last_layer"]:
            freeze_last_layer(self.student)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        update_center(teacher.view_center, teacher_output[0])
        update_center(teacher.region_center, teacher_output[1])
        update_teacher(teacher, self.student, o["momentum_teacher"])
        return value
