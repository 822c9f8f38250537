"""Backbones from timm, through its `features_only` interface."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import is_model
from torch import Tensor, nn

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained, check_keys, logger, read_safetensors
from fcnzoo.config import BackboneConfig, Preprocess, fit_channels
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError
from fcnzoo.records import near


class TimmBackbone(Backbone):
    """Any timm network that has `features_only`, cut at the ends of its stages.

    Args:
        config: `name` is `"timm/<architecture>[.<tag>]"`.
        pretrained: Whose weights; see `Pretrained`.

    Raises:
        UnknownModelError: timm has no such network.
        BackboneError: It cannot be built with these options, or not at this output stride.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, config: BackboneConfig, pretrained: Pretrained = False) -> None:
        super().__init__()
        self.config = config
        if not is_model(config.architecture):
            known = timm.list_models()
            raise UnknownModelError(
                f"timm {timm.__version__} has no {config.architecture!r}.{near(config.architecture, known)}"
            )
        self.network = _create(config, pretrained)
        info: Any = self.network.feature_info
        self.features = tuple(
            FeatureInfo(reduction=int(reduction), channels=int(channels), tap=str(tap))
            for reduction, channels, tap in zip(info.reduction(), info.channels(), info.module_name(), strict=True)
        )
        coarsest = max(feature.reduction for feature in self.features)
        if config.output_stride is not None and coarsest > config.output_stride:
            raise BackboneError(
                f"{config.name} cannot be dilated to output_stride={config.output_stride}: its features stay at "
                f"{[feature.reduction for feature in self.features]}"
            )
        self.size_multiple = config.size_multiple or _own_reduction(config) or coarsest
        self._channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        self.preprocess = _preprocess(self.network.pretrained_cfg, config.in_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features, finest first: (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉)."""
        features = self.network(image)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return list(features)


def _own_reduction(config: BackboneConfig) -> int | None:
    """The multiple that a dilated network needs.

    Dilation moves the coarsest reduction, not what poolings and skip additions inside the network ask
    of odd sizes; at 32 every pyramid of timm stays whole.
    """
    return 32 if config.output_stride is not None else None


def _create(config: BackboneConfig, pretrained: Pretrained) -> Any:
    options: dict[str, Any] = {"features_only": True, "in_chans": config.in_channels}
    if config.output_stride is not None:
        options["output_stride"] = config.output_stride
    if isinstance(pretrained, bool):
        options["pretrained"] = pretrained
    else:
        _check_file(config, pretrained)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained)}}
    try:
        return timm.create_model(config.architecture, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise BackboneError(f"{config.name} cannot be built: {error}") from error
        raise WeightsError(
            f"the weights of {config.name} cannot be had ({type(error).__name__}: {error}). Where there is no network, "
            "give pretrained_backbone the path of a local .safetensors file"
        ) from error
    except (TypeError, AssertionError, NotImplementedError, ValueError) as error:
        raise BackboneError(
            f"{config.name} cannot be built with in_channels={config.in_channels}, "
            f"output_stride={config.output_stride}: {type(error).__name__}: {error}"
        ) from error


def _check_file(config: BackboneConfig, path: Any) -> None:
    """Compare a local file with timm's own classifier, whose keys it must have, the classifier's aside.

    timm itself loads backbones leniently (`strict=False`), which would accept any file.
    """
    with torch.device("meta"):
        classifier: nn.Module = timm.create_model(config.architecture)
    heads = getattr(classifier, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    wanted = {key: tensor.shape for key, tensor in classifier.state_dict().items()}
    given = {key: tensor.shape for key, tensor in read_safetensors(path).items()}
    aside = {key for key in {*wanted, *given} if key.rpartition(".")[0] in heads}
    check_keys(given, wanted, source=str(path), optional=aside)
    logger.info(
        "%s: loaded into %s; classifier keys left out: %s", path, config.name, sorted(aside & set(given)) or "none"
    )


def _preprocess(pretrained_cfg: dict[str, Any], in_channels: int) -> Preprocess:
    mean = tuple(float(value) for value in pretrained_cfg.get("mean") or Preprocess().mean)
    std = tuple(float(value) for value in pretrained_cfg.get("std") or Preprocess().std)
    return Preprocess(mean=fit_channels(mean, in_channels), std=fit_channels(std, in_channels))
