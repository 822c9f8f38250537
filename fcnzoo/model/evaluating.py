"""Eval mode for a while, whoever else is using the network."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass
class _Stay:
    """How many are inside, and the mode of each module before the first came, if any was in training mode."""

    count: int
    modes: list[tuple[nn.Module, bool]]


_lock = threading.Lock()
_stays: weakref.WeakKeyDictionary[nn.Module, _Stay] = weakref.WeakKeyDictionary()


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the network inside what `torch.compile` made of it; any other as it is."""
    return getattr(model, "_orig_mod", model)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a network in eval mode; afterwards every part has the mode it had.

    Nothing is switched in a network that is in eval mode. Of several threads that come with one network in training
    mode the first switches it and the last switches it back, so that none of them ever computes in training mode. A
    thread that trains the network at that time would see eval mode: train a copy, or predict with one.
    """
    with _lock:
        stay = _stays.get(model)
        if stay is None:
            modes = [(module, module.training) for module in model.modules()]
            stay = _stays[model] = _Stay(0, modes if any(training for _, training in modes) else [])
            if stay.modes:
                model.eval()
        stay.count += 1
    try:
        yield
    finally:
        with _lock:
            stay.count -= 1
            if not stay.count:
                del _stays[model]
                # Parents come before their parts. `train`, not the attribute: traced networks change their graph too.
                for module, training in stay.modes:
                    if module.training != training:
                        module.train(training)
