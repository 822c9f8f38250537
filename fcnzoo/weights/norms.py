"""Whether a network's normalizations are still those that its config describes."""

from __future__ import annotations

from torch import nn

from fcnzoo.errors import BackboneError
from fcnzoo.model.evaluating import uncompiled
from fcnzoo.model.fcn import FCN
from fcnzoo.weights.restore import build_empty


def check_norms(model: nn.Module) -> None:
    """Raise where PyTorch's converter to SyncBatchNorm has dropped activations.

    timm's networks have BatchNorm and activation in one layer, of which `convert_sync_batchnorm` of `torch.nn` keeps
    the BatchNorm alone: logits of an EfficientNet are then off by tens, with the same weights.

    Raises:
        BackboneError: They have been dropped; the text names the layer, and the converter that keeps them.
    """
    inner = uncompiled(model)
    plain = [name for name, layer in inner.named_modules() if type(layer) is nn.SyncBatchNorm]
    if not plain or not isinstance(inner, FCN):
        return
    fresh = build_empty(inner.config, None)
    lost = [
        name for name in plain if not isinstance(getattr(fresh.get_submodule(name), "act", nn.Identity()), nn.Identity)
    ]
    if lost:
        raise BackboneError(
            f"torch.nn.SyncBatchNorm.convert_sync_batchnorm has dropped the activation of {lost[0]}"
            f"{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}; convert with timm.layers.convert_sync_batchnorm"
        )
