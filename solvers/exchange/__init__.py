"""Experiments to and from openCARP: a folder that it runs unchanged, and the parameter files of that kind read back."""

from solvers.exchange.opencarp_export import export_opencarp
from solvers.exchange.opencarp_import import import_opencarp
from solvers.exchange.toml_file import experiment_toml

__all__ = ["experiment_toml", "export_opencarp", "import_opencarp"]
