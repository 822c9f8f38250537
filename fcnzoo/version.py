"""The version of the package; hatch reads the wheel's here."""

__version__ = "0.1.0.dev0"
