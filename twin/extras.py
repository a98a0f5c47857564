"""Packages that come with an extra: imported when they are asked for, and a clear line where they are missing."""

from __future__ import annotations

from typing import Any

from twin.errors import InputError


def torch_for(where: str, otherwise: str = "") -> Any:
    """The torch module (extra `ml`). Raises InputError naming what wanted it (`where`), how to install it, and what to do without."""
    try:
        import torch
    except ImportError:
        raise InputError(where, "torch", "is not installed", f"pip install 'vtwin[ml]'{otherwise}") from None
    return torch
