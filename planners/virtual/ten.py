"""Ten virtual patients of different scar, whose truth is known: what `vtwin verify planner` and `vtwin bench plan` plan for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planners.virtual.anatomy import Anatomy, labels
from planners.virtual.infarct import InfarctSpec, IsthmusSpec, add_infarct
from planners.virtual.statistics import LV_WALL_MM
from twin.tissue import Velocity
from twin.volume import LabelVolume

LABEL_SPACING_MM = 1.25
VELOCITIES = {"healthy": Velocity(0.58, 0.26), "border_zone": Velocity(0.28, 0.13)}
"""True in all of them, and given to the planner: what it has to find is the circuits."""


@dataclass(frozen=True)
class VirtualHeart:
    """infarct: the truth that the labels hide, since surviving tissue is border zone whether it is an isthmus or not; thin: wall per AHA
    segment, mm, where the infarct lies; access: surfaces that may be ablated; inducible: whether a VT is meant to be there (None: open).
    """

    what: str
    infarct: InfarctSpec
    thin: Mapping[int, float] = field(default_factory=dict)
    access: tuple[str, ...] = ("lv_endo", "rv_endo")
    inducible: bool | None = True

    def labels(self) -> LabelVolume:
        """The labels as imaging would show them."""
        wall = {k: p.value for k, p in LV_WALL_MM["female"].items()} | dict(self.thin)
        anatomy = Anatomy(sex="female", lv_edv_ml=135.0, rv_edv_ml=130.0, sphericity=0.45, rv_wall_mm=4.2, wall_mm=wall)
        return add_infarct(labels(anatomy, LABEL_SPACING_MM), self.infarct)[0]


_LATERAL = {5: 5.2, 6: 5.2, 11: 4.8, 12: 4.8, 16: 4.8}
_INFERIOR = {4: 5.2, 5: 5.2, 10: 4.8, 11: 5.0, 15: 4.8}
_ANTERIOR = {1: 5.4, 2: 5.4, 7: 4.8, 8: 5.0, 13: 4.6, 14: 4.6}
_SEPTAL = {2: 5.4, 3: 5.4, 8: 5.0, 9: 5.0, 14: 4.8}

HEARTS: Mapping[str, VirtualHeart] = {
    "transmural": VirtualHeart(
        "lateral, transmural, one isthmus",
        InfarctSpec(188.0, 0.46, 50.0, 48.0, seed=7, isthmuses=(IsthmusSpec(0.0, 20.0, 7.0, 0.5, 2.5),)),
        _LATERAL,
    ),
    "subendocardial": VirtualHeart(
        "lateral, inner 70 % of the wall, one isthmus in it",
        InfarctSpec(180.0, 0.46, 52.0, 50.0, 0.7, seed=11, isthmuses=(IsthmusSpec(0.0, 90.0, 7.0, depth=(0.0, 0.7)),)),
        inducible=None,
    ),
    "patchy": VirtualHeart(
        "inferolateral, a third of the scar survives in patches",
        InfarctSpec(-150.0, 0.46, 50.0, 50.0, seed=5, patchy=0.35, isthmuses=()),
        _INFERIOR,
        inducible=None,
    ),
    "two_isthmuses": VirtualHeart(
        "inferior, two isthmuses side by side",
        InfarctSpec(
            -122.0, 0.46, 48.0, 52.0, seed=3, isthmuses=(IsthmusSpec(11.0, 10.0, 7.0, 0.3, 1.5), IsthmusSpec(-11.0, 10.0, 7.0, 0.3, -1.5))
        ),
        _INFERIOR,
    ),
    "septal": VirtualHeart(
        "septum, transmural, one isthmus along the meridian",
        InfarctSpec(5.0, 0.5, 44.0, 50.0, seed=13, isthmuses=(IsthmusSpec(0.0, 80.0, 7.0),)),
        _SEPTAL,
    ),
    "rv_involved": VirtualHeart(
        "inferior, reaching into the RV's wall, one isthmus",
        InfarctSpec(-85.0, 0.42, 50.0, 48.0, seed=17, rv_reach_mm=8.0, isthmuses=(IsthmusSpec(4.0, 90.0, 7.0),)),
        _INFERIOR | {3: 6.0, 9: 5.6},
    ),
    "no_vt": VirtualHeart(
        "lateral, transmural, nothing survives in it",
        InfarctSpec(185.0, 0.46, 46.0, 46.0, seed=19, isthmuses=()),
        _LATERAL,
        inducible=False,
    ),
    "intramural": VirtualHeart(
        "lateral, within the wall, both surfaces spared",
        InfarctSpec(185.0, 0.46, 46.0, 46.0, 0.7, seed=23, spared_endo=0.3, isthmuses=(IsthmusSpec(0.0, 90.0, 7.0, depth=(0.3, 0.7)),)),
        inducible=None,
    ),
    "anterior": VirtualHeart(
        "anterior to the apex, transmural, large, one long isthmus",
        InfarctSpec(70.0, 0.58, 54.0, 56.0, seed=29, isthmuses=(IsthmusSpec(0.0, 100.0, 7.5, 0.4, 3.0),)),
        _ANTERIOR,
    ),
    "epicardial": VirtualHeart(
        "lateral, transmural, the isthmus is its outer half; no epicardial access",
        InfarctSpec(188.0, 0.46, 50.0, 50.0, seed=31, isthmuses=(IsthmusSpec(0.0, 60.0, 7.5, 0.4, 2.0, (0.4, 1.0)),)),
        _LATERAL | {5: 6.5, 6: 6.5, 11: 6.2, 12: 6.2, 16: 6.2},
    ),
}  # fmt: skip
