"""Where the electrodes of a 12-lead electrocardiogram lie when no torso was imaged: a generic adult chest round this heart.

Only the patient axes (LPS) and the heart's own centre and size are used. The lengths are assumptions about an average adult lying on
the back, wide ranges given: lead amplitudes and the precordial transition are uncertain by as much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from twin.mesh import HeartMesh
from twin.params import Param
from twin.patient import ELECTRODES as ELECTRODES

_ADULT = "assumption: average adult chest; landmarks of the standard placement (Kligfield 2007, Circulation 115:1306)"
HEART_LEFT = Param(30.0, "mm", 15.0, 45.0, "assumption: centre of the ventricles left of the midline")
HEART_DEPTH = Param(75.0, "mm", 55.0, 105.0, "assumption: centre of the ventricles behind the front of the chest")
STERNAL_EDGE = Param(25.0, "mm", 15.0, 35.0, _ADULT)
MIDCLAVICULAR = Param(88.0, "mm", 70.0, 105.0, _ADULT)
ANTERIOR_AXILLARY = Param(125.0, "mm", 105.0, 150.0, _ADULT)
MIDAXILLARY = Param(150.0, "mm", 125.0, 180.0, _ADULT)
RIB_SPACE = Param(30.0, "mm", 20.0, 40.0, _ADULT)
SHOULDER_WIDTH = Param(180.0, "mm", 150.0, 220.0, "assumption: limb electrodes act at the shoulders, distance from the midline")
SHOULDER_HEIGHT = Param(170.0, "mm", 130.0, 210.0, "assumption: shoulders above the centre of the ventricles")
HIP_WIDTH = Param(100.0, "mm", 70.0, 140.0, "assumption: the leg electrode acts at the left hip, distance from the midline")
HIP_DEPTH = Param(380.0, "mm", 300.0, 460.0, "assumption: hip below the centre of the ventricles")
HEART_RADIUS = Param(55.0, "mm", 45.0, 70.0, "assumption: farthest muscle from the centre of adult ventricles; sets the scale")
SCALE_LIMITS = (0.7, 1.4)
"""A chest is not as small or as large as its heart: beyond these factors the scale stays."""
CLEARANCE = Param(20.0, "mm", 10.0, 40.0, "assumption: chest wall between heart and skin")


def electrodes(mesh: HeartMesh) -> dict[str, NDArray[np.float64]]:
    """Positions (3,) mm in LPS of the nine electrodes RA, LA, LL, V1-V6 for the generic chest, scaled to the heart.

    The centre is that of the muscle; lengths scale with the distance from it to the farthest muscle (HEART_RADIUS at scale 1). An
    electrode that would come nearer to the muscle than CLEARANCE moves outward.
    """
    centre, scale = frame(mesh)
    tree = cKDTree(mesh.points_mm)
    out = {}
    for name, offset in _generic_chest().items():
        place = centre + scale * offset
        outward = offset / np.linalg.norm(offset)
        while (missing := float(CLEARANCE) - float(tree.query(place)[0])) > 0:
            place = place + max(missing, 1.0) * outward
        out[name] = place
    return out


def frame(mesh: HeartMesh) -> tuple[NDArray[np.float64], float]:
    """Centre (3,) mm of the muscle, and the scale of the chest round it."""
    centre = np.average(mesh.centroids_mm, axis=0, weights=mesh.tet_volumes_mm3)
    radius = float(np.linalg.norm(mesh.points_mm - centre, axis=1).max())
    return centre, float(np.clip(radius / float(HEART_RADIUS), *SCALE_LIMITS))


def _generic_chest() -> dict[str, NDArray[np.float64]]:
    """Offsets (3,) mm from the centre of the ventricles: x to the patient's left, y to the back, z to the head."""
    middle, front = -float(HEART_LEFT), -float(HEART_DEPTH)
    fourth, fifth = 0.5 * float(RIB_SPACE), -0.5 * float(RIB_SPACE)
    v2 = np.array([middle + float(STERNAL_EDGE), front, fourth])
    v4 = np.array([middle + float(MIDCLAVICULAR), 0.95 * front, fifth])
    return {
        "RA": np.array([middle - float(SHOULDER_WIDTH), 0.0, float(SHOULDER_HEIGHT)]),
        "LA": np.array([middle + float(SHOULDER_WIDTH), 0.0, float(SHOULDER_HEIGHT)]),
        "LL": np.array([middle + float(HIP_WIDTH), 0.0, -float(HIP_DEPTH)]),
        "V1": np.array([middle - float(STERNAL_EDGE), front, fourth]),
        "V2": v2,
        "V3": 0.5 * (v2 + v4),
        "V4": v4,
        # the chest curves back: half way round at the anterior axillary line, at the heart's own depth at the side
        "V5": np.array([middle + float(ANTERIOR_AXILLARY), 0.5 * front, fifth]),
        "V6": np.array([middle + float(MIDAXILLARY), 0.0, fifth]),
    }
