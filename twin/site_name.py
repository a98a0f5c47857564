"""Names of pacing sites that a user gives by their place: `name@x,y,z`, so that a name alone says where it is, wherever it goes."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NUMBER = r"-?\d+(?:\.\d+)?"
_OWN = re.compile(rf"[A-Za-z]\w*@(?P<place>{_NUMBER},{_NUMBER},{_NUMBER})")


def own_site(name: str, place_mm: ArrayLike) -> str:
    """The site's name with its place in patient space (LPS mm, to 0.01 mm)."""
    return f"{name}@{','.join(f'{v:.2f}' for v in np.asarray(place_mm, float))}"


def place_of(site: str) -> NDArray[np.float64] | None:
    """Where a site of `own_site` lies, (3,) mm; None for any other name."""
    found = _OWN.fullmatch(site)
    return None if found is None else np.array([float(v) for v in found["place"].split(",")])
