"""The tiny data set and recipe, for commands that train."""

from training.conftest import data_folder, tiny

__all__ = ["data_folder", "tiny"]
