"""What is published about the size of hearts: the ranges from which virtual patients are drawn."""

from __future__ import annotations

from twin.params import Param

_HUDSMITH = (
    "Hudsmith 2005, J Cardiovasc Magn Reson 7:775, 108 healthy volunteers, mean and +-2 SD (mean and SD read in the abstract: {}); "
    "widened upwards for remodelling after infarction"
)
LV_EDV_ML = {
    "male": Param(160.0, "mL", 102.0, 260.0, _HUDSMITH.format("160 +- 29 mL")),
    "female": Param(135.0, "mL", 83.0, 230.0, _HUDSMITH.format("135 +- 26 mL")),
}
RV_EDV_ML = {
    "male": Param(190.0, "mL", 124.0, 256.0, _HUDSMITH.format("190 +- 33 mL")),
    "female": Param(148.0, "mL", 78.0, 218.0, _HUDSMITH.format("148 +- 35 mL")),
}
RV_BELOW_BASE = Param(
    0.72,
    "1",
    0.6,
    0.9,
    "part of the RV's volume that lies on the apical side of the mitral plane, where these hearts are cut: the outflow tract rises "
    "above it; own estimate, chosen so that the basal RV diameter stays near the 25-42 mm of Rudski 2010 (from memory)",
)
LV_SPHERICITY = Param(
    0.40,
    "1",
    0.25,
    0.60,
    "volume over that of a sphere on the long axis; normal near 0.3-0.4, up to 0.6 after infarction; approximate, from memory of "
    "Mannaerts 2004, Eur Heart J 25:680 (3-D sphericity index)",
)
RV_WALL_MM = Param(
    3.5, "mm", 2.0, 5.0, "RV free wall 2-5 mm by echocardiography; approximate, from memory of Rudski 2010, J Am Soc Echocardiogr 23:685"
)
MUSCLE_G_PER_ML = Param(
    1.05, "g/mL", 1.04, 1.06, "density of myocardium used by cardiac MRI for mass; common convention, no single source read"
)

_KAWEL = (
    "Kawel 2012, Circ Cardiovasc Imaging 5:500 (MESA, n = 300): the mean of the mid-cavity ring, 6.3 +- 1.1 mm in men and 5.3 +- 0.9 mm in "
    "women, read in the abstract; its distribution over the segments is approximate, from memory of the paper's tables"
)
_APEX = "true apex 3-4 mm; approximate, from memory of Johnson 2015 and of Kawel 2012: not read"
_MEN_MM = (7.4, 8.0, 8.0, 7.2, 6.7, 6.9, 6.1, 6.8, 6.9, 6.2, 5.8, 6.0, 5.8, 6.0, 5.6, 5.6, 4.2)
_WOMEN_OVER_MEN = 5.3 / 6.3
_RANGE = 0.45
"""Half width of the plausible range as a fraction: 2 SD of the ring mean and 10-15 % more for the single segment."""


def _thickness(mean_mm: float, segment: int) -> Param:
    return Param(mean_mm, "mm", (1 - _RANGE) * mean_mm, (1 + _RANGE) * mean_mm, _APEX if segment == 17 else _KAWEL)


LV_WALL_MM = {
    "male": {k: _thickness(v, k) for k, v in enumerate(_MEN_MM, start=1)},
    "female": {k: _thickness(round(max(v * _WOMEN_OVER_MEN, 3.6), 1), k) for k, v in enumerate(_MEN_MM, start=1)},
}
"""End-diastolic wall thickness per AHA segment (1-17)."""

TERRITORIES = {
    "LAD": (1, 2, 7, 8, 13, 14, 17),
    "RCA": (3, 4, 9, 10, 15),
    "LCX": (5, 6, 11, 12, 16),
}
"""AHA segments supplied by each coronary artery: Cerqueira 2002, Circulation 105:539 (its figure 4), which notes how much people differ."""
