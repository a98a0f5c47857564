"""The 17 segments of the left ventricle (American Heart Association).

M. D. Cerqueira et al., "Standardized myocardial segmentation and nomenclature for tomographic imaging of the heart",
Circulation 105 (2002) 539, doi 10.1161/hc0402.102975.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twin.params import Param

SEGMENTS = {
    1: "basal anterior",
    2: "basal anteroseptal",
    3: "basal inferoseptal",
    4: "basal inferior",
    5: "basal inferolateral",
    6: "basal anterolateral",
    7: "mid anterior",
    8: "mid anteroseptal",
    9: "mid inferoseptal",
    10: "mid inferior",
    11: "mid inferolateral",
    12: "mid anterolateral",
    13: "apical anterior",
    14: "apical septal",
    15: "apical inferior",
    16: "apical lateral",
    17: "apex",
}
"""Segment number -> name; 0 is the right ventricle's free wall."""

MID_BELOW = Param(2.0 / 3.0, "1", 0.6, 0.7, "Cerqueira 2002: basal, mid and apical thirds of the long axis")
APICAL_BELOW = Param(1.0 / 3.0, "1", 0.3, 0.4, "Cerqueira 2002: basal, mid and apical thirds of the long axis")
APEX_BELOW = Param(
    0.1,
    "1",
    0.05,
    0.15,
    "assumption: the cap beyond the cavity's end (Cerqueira 2002 gives it no length) is a wall thickness of 8-10 mm in 90 mm",
)

_SIX = np.array([3, 2, 1, 6, 5, 4], np.int16)
"""Basal walls in the order of the rotational coordinate from -pi/3 upward: inferoseptal first."""
_FOUR = np.array([14, 13, 16, 15], np.int16)
"""Apical walls in the same order from -pi/4 upward: septal first."""


def aha_segments(coordinates: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int16]:
    """AHA segment 1-17 of every node from its ventricular coordinates, (n,) int16; 0 in the right ventricle's free wall.

    The rotational coordinate has the RV insertions at +-pi/3, so the septum takes exactly segments 2, 3 (8, 9), and the free wall is
    shared by the other four; apical walls are quarters, the septal one about the mid septum. Without an RV, walls are as arbitrary as
    the coordinate's zero.
    """
    level, angle = coordinates["apicobasal"], coordinates["rotational"]
    sixth = np.floor((angle + np.pi / 3.0) / (np.pi / 3.0)).astype(int) % 6
    quarter = np.floor((angle + np.pi / 4.0) / (np.pi / 2.0)).astype(int) % 4
    out = _SIX[sixth]
    out = np.where(level < float(MID_BELOW), out + 6, out)
    out = np.where(level < float(APICAL_BELOW), _FOUR[quarter], out)
    out = np.where(level < float(APEX_BELOW), 17, out)
    return np.where(coordinates["transventricular"] > 0.5, 0, out).astype(np.int16)
