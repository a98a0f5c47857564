"""What varies between virtual patients, and what is measured in each: names, units, ranges and where those come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planners.virtual.statistics import LV_EDV_ML, LV_SPHERICITY, LV_WALL_MM, RV_EDV_ML
from twin.calibrate.velocity import BORDER_LONGITUDINAL, HEALTHY_LONGITUDINAL, HEALTHY_TRANSVERSE
from twin.params import Param

HERE = "chosen here"


@dataclass(frozen=True)
class Parameter:
    """One dimension of the population. how: `uniform` in [low, high], `normal` (low and high are two standard deviations away, and the
    ends) or `log_normal`; param: value and range unless the trial gives a range of its own, which is then uniform.
    """

    name: str
    param: Param
    how: str = "uniform"


def _uniform(low: float, high: float, unit: str, source: str) -> Param:
    return Param(0.5 * (low + high), unit, low, high, source)


_MODEL = "ranges of planners.virtual whose hearts are induced and cured in the reduced model; chosen here"
_WIDTH = "isthmuses 5-15 mm wide are reported by activation mapping; the narrow end, where 2.5 mm meshes still carry a wave; chosen here"
_THIN = (
    "5.5 mm at end of diastole is a usual limit between living and thinned wall in cardiac MRI (Lopez-Lereu 2004, Rev Esp Cardiol 57:826)"
)

# Velocities go together: slow along is slow across. What varies is one velocity and its ratio, in the ranges that are published for
# people; the priors of a calibration are wider on purpose, and drawn from them one by one make a QRS of 200-300 ms.
HEALTHY = Param(
    0.60, "m/s", 0.48, 0.72, "0.5-0.7 m/s in human ventricles, Durrer 1970; Taggart 2000; two standard deviations 0.12 (chosen here)"
)
ANISOTROPY = Param(2.4, "1", 1.9, 3.0, "along over across 2-3, Roberts 1979; Caldwell 2009")
BORDER = Param(0.28, "m/s", 0.14, 0.50, "surviving tissue in healed infarct conducts at 0.1-0.5 m/s, de Bakker 1993")
BORDER_ANISOTROPY = Param(2.6, "1", 2.0, 4.0, "coupling across falls more than along, Yao 2003; the range is chosen here")

PARAMETERS = (
    Parameter("female", _uniform(0.0, 1.0, "1", "equal shares; chosen here (VT ablation series have 10-20 % women)")),
    Parameter("lv_edv_ml", LV_EDV_ML["male"], "normal"),
    Parameter("rv_edv_ml", RV_EDV_ML["male"], "normal"),
    Parameter("sphericity", Param(LV_SPHERICITY.value + 0.04, "1", 0.32, 0.56, LV_SPHERICITY.source), "normal"),
    Parameter(
        "wall_scale", Param(1.0, "1", 0.8, 1.2, "relative to the published mean of each segment and sex; two SD of the ring mean"), "normal"
    ),
    Parameter("infarct_wall_mm", _uniform(4.0, 6.0, "mm", _THIN)),
    Parameter("territory", _uniform(0.0, 3.0, "1", "LAD, RCA or LCX, equal shares; chosen here")),
    Parameter("scar_width_mm", _uniform(44.0, 58.0, "mm", _MODEL)),
    Parameter("scar_height_mm", _uniform(42.0, 54.0, "mm", _MODEL)),
    Parameter("isthmuses", _uniform(1.0, 3.0, "1", "one or two; chosen here")),
    Parameter("isthmus_width_mm", _uniform(6.0, 9.0, "mm", _WIDTH)),
    Parameter("isthmus_angle_deg", _uniform(-25.0, 45.0, "degree", HERE)),
    Parameter("healthy_along_m_s", HEALTHY, "normal"),
    Parameter("healthy_anisotropy", ANISOTROPY, "normal"),
    Parameter("border_along_m_s", BORDER, "normal"),
    Parameter("border_anisotropy", BORDER_ANISOTROPY, "normal"),
)


LARGE_SCAR_PERCENT = 8.0
"""Splits these populations near their middle; chosen here."""


@dataclass(frozen=True)
class Measure:
    """A column of twins.parquet. kind: bool, float or text; limits: what is plausible (None: not checked)."""

    label: str
    kind: str
    unit: str = ""
    limits: Param | None = None
    by_sex: Mapping[str, Param] | None = None

    def limit(self, sex: str | None = None) -> Param | None:
        """Published limits for a sex; where it is not stated (or another), those of either."""
        if self.by_sex is None:
            return self.limits
        return self.by_sex.get(sex or "") or _either(list(self.by_sex.values()))


def _either(limits: Sequence[Param]) -> Param:
    """From the lowest of all ends to the highest, about the mean of the values."""
    mean = sum(p.value for p in limits) / len(limits)
    return Param(mean, limits[0].unit, min(p.low for p in limits), max(p.high for p in limits), f"either sex: {limits[0].source}")


_MEAN_WALL = {
    sex: Param(
        sum(p.value for p in walls.values()) / 17,
        "mm",
        0.6 * sum(p.value for p in walls.values()) / 17,
        1.3 * sum(p.value for p in walls.values()) / 17,
        "mean of the segments' published values, 30 % above to 40 % below (infarcts are thin); " + walls[8].source,
    )
    for sex, walls in LV_WALL_MM.items()
}
QRS = Param(
    100.0,
    "ms",
    60.0,
    200.0,
    "60-110 ms is normal; up to 200 ms with infarction and bundle branch block (textbook values, from memory). Compared with the spread of "
    "activation times of the twin's healthy muscle: what border zone adds later is a late potential, too small to count as QRS",
)
MEASURES: dict[str, Measure] = {
    "sex": Measure("sex", "text"),
    "territory": Measure("territory of the infarct", "text"),
    "lv_edv_ml": Measure("LV volume of the labels", "float", "mL", by_sex=LV_EDV_ML),
    "rv_edv_ml": Measure("RV volume of the labels (below the mitral plane)", "float", "mL"),
    "wall_mm": Measure("mean LV wall", "float", "mm", by_sex=_MEAN_WALL),
    "qrs_ms": Measure("QRS (spread of healthy activation)", "float", "ms", QRS),
    "healthy_along_m_s": Measure("velocity along fibres", "float", "m/s", HEALTHY_LONGITUDINAL),
    "healthy_across_m_s": Measure("velocity across fibres", "float", "m/s", HEALTHY_TRANSVERSE),
    "border_along_m_s": Measure("velocity along fibres, border zone", "float", "m/s", BORDER_LONGITUDINAL),
    "scar_ml": Measure("dense scar", "float", "mL"),
    "scar_percent": Measure("dense scar, share of the LV wall", "float", "%"),
    "border_zone_ml": Measure("border zone", "float", "mL"),
    "large_scar": Measure(f"dense scar of {LARGE_SCAR_PERCENT:g} % or more of the LV wall", "bool"),
    "isthmuses": Measure("isthmuses drawn", "float"),
    "two_isthmuses": Measure("two isthmuses drawn", "bool"),
    "inducible": Measure("VT inducible before treatment", "bool"),
    "inducing_sites": Measure("sites that induce", "float"),
    "circuits": Measure("circuits", "float"),
    "cycle_length_ms": Measure("cycle length of the fastest VT", "float", "ms"),
    "nodes": Measure("mesh nodes", "float"),
}
