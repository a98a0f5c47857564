"""What the search for lesions gives: the proposed targets, the alternatives with their scores, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.plan import Circuit, Induction, Target


@dataclass(frozen=True)
class LesionPlan:
    """targets in the order to make them; alternatives: one dictionary of scores per strategy, the chosen one marked; circuits: all that
    were found, those that appeared after a lesion set included; residual: those still inducible with the targets; inductions: of the
    re-test with the targets; blocked (m,) bool: tetrahedra that the targets take; notes: what could not be done, for the report.
    """

    targets: tuple[Target, ...]
    alternatives: tuple[Mapping[str, Any], ...]
    circuits: tuple[Circuit, ...]
    residual: tuple[Circuit, ...]
    inductions: tuple[Induction, ...]
    blocked: NDArray[np.bool_]
    volume_ml: float
    non_inducible: bool
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write `lesions.npz` to a folder, atomically."""
        meta = {
            "targets": [asdict(t) for t in self.targets],
            "alternatives": [dict(a) for a in self.alternatives],
            "circuits": [asdict(c) for c in self.circuits],
            "residual": [asdict(c) for c in self.residual],
            "inductions": [asdict(i) for i in self.inductions],
            "volume_ml": self.volume_ml,
            "non_inducible": self.non_inducible,
            "notes": list(self.notes),
        }
        write_npz(folder / "lesions.npz", {"blocked": self.blocked}, meta)

    @staticmethod
    def load(folder: Path) -> LesionPlan:
        """Read what `save` wrote."""
        arrays, meta = read_npz(folder / "lesions.npz")
        return LesionPlan(
            targets=tuple(Target(**{**t, "circuits": tuple(t["circuits"])}) for t in meta["targets"]),
            alternatives=tuple(meta["alternatives"]),
            circuits=tuple(Circuit(**{**c, "sites": tuple(c["sites"])}) for c in meta["circuits"]),
            residual=tuple(Circuit(**{**c, "sites": tuple(c["sites"])}) for c in meta["residual"]),
            inductions=tuple(Induction(**{**i, "coupling_ms": tuple(i["coupling_ms"])}) for i in meta["inductions"]),
            blocked=arrays["blocked"],
            volume_ml=meta["volume_ml"],
            non_inducible=meta["non_inducible"],
            notes=tuple(meta["notes"]),
        )
