"""Parts of timm networks that pool or count cells in functions, said again with layers, so that they can be dilated.

Each class takes the place of timm's by a change of class: same parameters, same names, same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models import coat, ghostnet, swiftformer, twins
from torch import Tensor, nn


class GatedGhostV2(ghostnet.GhostModuleV2):
    """GhostNetV2's gate (decoupled fully connected attention), which is made of convolutions at half the size.

    Attributes:
        gate_pool: Halves the map; timm calls `F.avg_pool2d`.
    """

    gate_pool: nn.AvgPool2d

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_chs, h, w)."""
        gate = self.gate_fn(self.short_conv(self.gate_pool(x)))
        out = ghostnet.GhostModule.forward(self, x)  # pyright: ignore[reportArgumentType] - it has the same parts
        return out * F.interpolate(gate, size=out.shape[-2:], mode="nearest")


class GatedGhostV3(ghostnet.GhostModuleV3):
    """GhostNetV3's gate, the same as GhostNetV2's.

    Attributes:
        gate_pool: Halves the map.
        mode: Not `"shortcut"`: by that timm's own `forward` leaves the gate out.
    """

    gate_pool: nn.AvgPool2d

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_chs, h, w)."""
        gate = self.gate_fn(self.short_conv(self.gate_pool(x)))
        out = super().forward(x)[:, : self.out_chs]
        return out * F.interpolate(gate, size=out.shape[-2:], mode="nearest")


class CountedPatches(twins.PatchEmbed):
    """Twins' patch embedding; the size of its map is looked at, not computed from the size of a patch."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, h·w, C) and (h, w)."""
        features = self.proj(x)
        return self.norm(features.flatten(2).transpose(1, 2)), (features.shape[-2], features.shape[-1])


class ScaledAttention(swiftformer.EfficientAdditiveAttention):
    """SwiftFormer's attention: a sum of all queries with weights of norm 1, not of sum 1.

    Over l² times as many like cells such a sum is l times as large, which is taken back here.

    Attributes:
        near: The convolution before it in its block; it has the dilation l.
    """

    near: tuple[nn.Conv2d]

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, C, h, w)."""
        tokens = x.flatten(2).transpose(1, 2)
        query = F.normalize(self.to_query(tokens), dim=-1)
        key = F.normalize(self.to_key(tokens), dim=-1)
        weights = F.normalize(query @ self.w_g * self.scale_factor, dim=1) / self.near[0].dilation[0]
        total = (weights * query).sum(1, keepdim=True)
        mixed = self.final(self.proj(total * key) + query)
        return mixed.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class SteppedPatches(PatchEmbed):
    """timm's patch embedding; how many patches there are follows from the step between them, not from their size."""

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) for an image of (H, W)."""
        rows, columns = self.proj.stride
        return img_size[0] // int(rows), img_size[1] // int(columns)


class ChainedPatches(PatchEmbed):
    """CoaT's patch embeddings, each of the map of the one before; their grids follow from the steps so far.

    Attributes:
        image: (H, W), the one size the network takes.
        chain: The convolutions of the patch embeddings up to this one.
    """

    image: tuple[int, int]
    chain: tuple[nn.Conv2d, ...]

    @property
    def grid_size(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(h, w)."""
        step = math.prod(int(convolution.stride[0]) for convolution in self.chain)
        return self.image[0] // step, self.image[1] // step


def restate_as_layers(network: nn.Module) -> None:
    """Change the classes of such parts of a network, in place; what it computes does not change."""
    part: Any
    for part in network.modules():
        if isinstance(part, coat.CoaT):
            patches: list[Any] = [part.patch_embed1, part.patch_embed2, part.patch_embed3, part.patch_embed4]
            for i in range(len(patches)):
                patches[i].__class__ = ChainedPatches
                patches[i].strict_img_size = False
                patches[i].image = patches[0].img_size
                patches[i].chain = tuple(embed.proj for embed in patches[: i + 1])
        if type(part) is ghostnet.GhostModuleV2:
            part.__class__, part.gate_pool = GatedGhostV2, nn.AvgPool2d(2)
        elif type(part) is ghostnet.GhostModuleV3 and part.mode == "shortcut":
            part.__class__, part.gate_pool, part.mode = GatedGhostV3, nn.AvgPool2d(2), "original"
        elif type(part) is twins.PatchEmbed:
            part.__class__ = CountedPatches
        elif type(part) is swiftformer.Block:
            attention: Any = part.attn
            attention.__class__, attention.near = ScaledAttention, (part.local_representation.dwconv,)
        elif type(part) is PatchEmbed:
            part.__class__ = SteppedPatches
