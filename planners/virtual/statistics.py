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
    "volume over that of a sphere on the long axis; 0.39 for Hudsmith's 160 mL on 92 mm; by 3-D echocardiography, with smaller volumes, "
    "more than 0.25 soon after an infarct goes on to remodel (Mannaerts 2004, Eur Heart J 25:680, read in the abstract); range chosen here",
)
RV_WALL_MM = Param(
    3.5, "mm", 2.0, 5.0, "RV free wall 2-5 mm by echocardiography; approximate, from memory of Rudski 2010, J Am Soc Echocardiogr 23:685"
)
RV_REACH = Param(
    0.94,
    "1",
    0.80,
    1.0,
    "depth of the RV's apex over the LV's length: normally the LV forms the apex; chosen here, the demo hearts' value, range by eye",
)
RV_SPAN_DEG = Param(
    158.0,
    "deg",
    140.0,
    175.0,
    "angle about the LV over which the RV's cavity reaches at the base; the insertions lie some 120 degrees apart; chosen here",
)
LV_MASS_G = {
    "male": Param(
        123.0, "g", 75.0, 330.0, "Hudsmith 2005 (108 healthy volunteers): 123 +- 21 g, read in the abstract; widened for hypertrophy"
    ),
    "female": Param(96.0, "g", 54.0, 270.0, "Hudsmith 2005: 96 +- 27 g, read in the abstract; widened for hypertrophy"),
}
LV_LENGTH_MM = Param(92.0, "mm", 68.0, 125.0, "long axis of the LV cavity at end diastole in adults; approximate, from memory")
RV_OVER_LV = Param(1.12, "1", 0.65, 1.7, "end-diastolic volumes: Hudsmith 2005 gives 190/160 and 148/135; limits chosen here")
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
