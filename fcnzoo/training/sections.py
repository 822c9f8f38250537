"""The sections of a recipe: frozen records with the defaults of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal, get_args, get_type_hints

from fcnzoo.config.heads import HeadConfig
from fcnzoo.files.records import Record


def _head_fields() -> list[tuple[str, Any, None]]:
    """Return the fields of all heads' configs, each with `None` besides what it may hold."""
    hints: dict[str, Any] = {}
    for config in get_args(HeadConfig):
        for name, hint in get_type_hints(config).items():
            hints[name] = hints[name] | hint if name in hints else hint
    return [(name, hint | None, None) for name, hint in hints.items() if name not in ("kind", "stride")]


_HeadFields = make_dataclass("_HeadFields", _head_fields(), bases=(Record,), frozen=True)


class HeadSection(_HeadFields):
    """Fields of the head's config to change; `None` keeps what the model's name says.

    Those of all heads' configs; giving one that the model's head does not have is an error.
    """

    def changes(self) -> dict[str, object]:
        """Return the fields that are set."""
        return {name: value for name, value in self.to_dict().items() if value is not None}


@dataclass(frozen=True)
class ModelSection(Record):
    """Which network, and where its first weights come from.

    Attributes:
        name: A name that `fcnzoo.create` takes; the number of classes is the data's.
        backbone: Another backbone for a bare head name, as in `fcnzoo.create`.
        pretrained: Start from the model's own segmentation weights; only the score layers are new if
            the classes differ.
        pretrained_backbone: Start from the backbone's published weights, or from a file of them.
        output_stride: As in `fcnzoo.create`.
        aux: As in `fcnzoo.create`.
        geometry: As in `fcnzoo.create`.
        init_from: Folder of a finished model (`fcnzoo.save`), for stage-wise training: a finished
            FCN-32s for a 16s, a 16s for an 8s.
        head: Fields of the head to change.
    """

    name: str
    backbone: str | None = None
    pretrained: bool = False
    pretrained_backbone: bool | str = False
    output_stride: Literal[8, 16, 32] | None = None
    aux: bool | None = None
    geometry: Literal["paper", "same"] | None = None
    init_from: str | None = None
    head: HeadSection = field(default_factory=HeadSection)


@dataclass(frozen=True)
class OptimSection(Record):
    """Optimizer, batch, gradients.

    Attributes:
        optimizer: SGD with momentum, or AdamW.
        lr: Learning rate of the head.
        backbone_lr: Learning rate of the backbone; `None`: `lr`; 0 freezes the backbone.
        aux_lr: Learning rate of the aux head; `None`: `lr`.
        momentum: Of SGD.
        nesterov: Of SGD.
        betas: Of AdamW.
        weight_decay: Per update, as the optimizer defines it (decoupled for AdamW).
        no_decay: Parameters without weight decay: `"bias"` those of convolutions, `"norm"` the affine
            parameters of normalizations and other per-channel factors.
        bias_lr_factor: Times the learning rate for the biases of convolutions (the paper: 2).
        batch_size: Pictures per optimizer step, over all processes and accumulated parts.
        accumulate: Parts in which each process computes its share of the batch, to save memory. The
            gradient is that of the whole batch, save for BatchNorm statistics.
        clip_norm: Largest norm of the gradient; `None`: no limit.
        ema: Decay per step of the moving average of the weights, which is then what is evaluated
            and kept; 0: none. Early on, the decay is at most step / (step + 10).
        freeze_batchnorm: Layers whose BatchNorm uses its stored statistics: none, the backbone's, all.
        freeze_affine: Also leave the scale and shift of those layers as they are.
        sync_batchnorm: On several GPUs, share BatchNorm statistics between processes.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    backbone_lr: float | None = None
    aux_lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    no_decay: tuple[Literal["bias", "norm"], ...] = ()
    bias_lr_factor: float = 1.0
    batch_size: int = 8
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float = 0.0
    freeze_batchnorm: Literal["none", "backbone", "all"] = "none"
    freeze_affine: bool = False
    sync_batchnorm: bool = True

    def check(self) -> None:
        """See `Record.check`."""
        for name in ("lr", "backbone_lr", "aux_lr", "weight_decay", "bias_lr_factor", "momentum"):
            value = getattr(self, name)
            if value is not None and value < 0:
                self.refuse(name, "must be 0 or more")
        for name in ("batch_size", "accumulate"):
            if getattr(self, name) < 1:
                self.refuse(name, "must be at least 1")
        if self.batch_size % self.accumulate:
            self.refuse("batch_size", f"must be a multiple of accumulate ({self.accumulate})")
        if self.clip_norm is not None and self.clip_norm <= 0:
            self.refuse("clip_norm", "must be positive (or none)")
        if not 0 <= self.ema < 1:
            self.refuse("ema", "must be in [0, 1)")
        if not all(0 <= beta < 1 for beta in self.betas):
            self.refuse("betas", "must be in [0, 1)")
        if self.freeze_affine and self.freeze_batchnorm == "none":
            self.refuse("freeze_affine", "needs freeze_batchnorm")


@dataclass(frozen=True)
class ScheduleSection(Record):
    """Length of the run and course of the learning rate, per optimizer step.

    Attributes:
        kind: `"poly"`: (1 − step / steps) ** power; `"cosine"`: half a cosine down to 0; `"constant"`.
        power: Of `"poly"`.
        warmup_steps: The factor is also at most (step + 1) / warmup_steps in the first steps.
        epochs: Passes over the training split.
        steps: Optimizer steps of the whole run, in place of `epochs`; `None`: as `epochs` says.
    """

    kind: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 0.9
    warmup_steps: int = 0
    epochs: int = 50
    steps: int | None = None

    def check(self) -> None:
        """See `Record.check`."""
        if self.power <= 0:
            self.refuse("power", "must be positive")
        if self.warmup_steps < 0:
            self.refuse("warmup_steps", "must be 0 or more")
        if self.epochs < 1:
            self.refuse("epochs", "must be at least 1")
        if self.steps is not None and self.steps < 1:
            self.refuse("steps", "must be at least 1 (or none)")


@dataclass(frozen=True)
class LossSection(Record):
    """What is minimized.

    Attributes:
        class_weights: `"median_frequency"`: (median / frequency) ** `weight_power` of the training
            split's pixels, at most `max_weight` (Eigen & Fergus 2015 with power 1).
        weight_power: See `class_weights`.
        max_weight: See `class_weights`.
        label_smoothing: As in `torch.nn.functional.cross_entropy`.
        aux_weight: Factor of the aux head's loss; `None`: the model's own.
    """

    class_weights: Literal["none", "median_frequency"] = "none"
    weight_power: float = 1.0
    max_weight: float = 10.0
    label_smoothing: float = 0.0
    aux_weight: float | None = None

    def check(self) -> None:
        """See `Record.check`."""
        if self.weight_power <= 0:
            self.refuse("weight_power", "must be positive")
        if self.max_weight <= 0:
            self.refuse("max_weight", "must be positive")


@dataclass(frozen=True)
class RunSection(Record):
    """Output folder, seed, device, checkpoints, logs.

    Attributes:
        out: Output folder; must be new or empty, unless the run is resumed.
        seed: Of the fresh weights, the order of the pictures, their augmentation, and dropout.
        device: `"auto"` takes an accelerator if there is one.
        mixed_precision: As in Accelerate.
        channels_last: Keep tensors in the memory order that most convolutions are faster in.
        keep_memory: On a CPU with glibc, keep freed memory between the steps in place of giving it back to the
            system: faster, and the process stays as large as its largest step.
        find_unused_parameters: For DDP with a network of which a part takes no part in the loss.
        checkpoint_steps: Also write a checkpoint every so many steps; 0: no.
        checkpoint_seconds: Also write a checkpoint every so many seconds; 0: no.
        keep_last: How many checkpoints are kept.
        eval_epochs: Evaluate every so many epochs, and at the end.
        log_steps: Steps between two lines of the log.
        progress: Show a progress bar.
        tensorboard: Write TensorBoard events.
        plots: Draw curves, the confusion matrix and a strip of pictures at the end.
    """

    out: str = ""
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    keep_memory: bool = True
    find_unused_parameters: bool = False
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 300.0
    keep_last: int = 2
    eval_epochs: int = 1
    log_steps: int = 10
    progress: bool = True
    tensorboard: bool = True
    plots: bool = True

    def check(self) -> None:
        """See `Record.check`."""
        for name in ("seed", "checkpoint_steps", "checkpoint_seconds"):
            if getattr(self, name) < 0:
                self.refuse(name, "must be 0 or more")
        for name in ("keep_last", "eval_epochs", "log_steps"):
            if getattr(self, name) < 1:
                self.refuse(name, "must be at least 1")
