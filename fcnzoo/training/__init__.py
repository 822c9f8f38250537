"""Training, on Hugging Face Accelerate, from recipes.

```python
result = fcnzoo.train("camvid_lite0", ["data.root=camvid", "run.out=runs/lite0"])
```

Public names: `train`, `Recipe`, `list_recipes`, `TrainingResult`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fcnzoo.training.recipe import Recipe, list_recipes

if TYPE_CHECKING:
    from fcnzoo.training.run import TrainingResult, train

__all__ = ["Recipe", "TrainingResult", "list_recipes", "train"]


def __getattr__(name: str) -> Any:
    """Import torch only for what needs it."""
    if name in ("train", "TrainingResult"):
        from fcnzoo.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
