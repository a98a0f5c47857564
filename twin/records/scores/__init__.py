"""Published risk scores, one file each; adding one is a file and a line here."""

from twin.records.scores.arvc import ARVC
from twin.records.scores.hcm_risk_scd import HCM_RISK_SCD
from twin.records.scores.i_vt import I_VT
from twin.records.scores.painesd import PAINESD
from twin.records.scores.score import Answer, Input, Score
from twin.records.scores.seattle import SEATTLE

SCORES: tuple[Score, ...] = (PAINESD, HCM_RISK_SCD, ARVC, SEATTLE, I_VT)

__all__ = ["SCORES", "Answer", "Input", "Score"]
