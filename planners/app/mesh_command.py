"""`vtwin mesh`: labels to a mesh with fibres and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.anatomy import complete
from meshing.fibres import FibreAngles
from meshing.grading import Grading
from meshing.measured_fibres import read_fibres, with_measured
from meshing.mesh_labels import mesh_heart
from meshing.optimisers import optimiser_named
from meshing.outflow import VALVES, doste_fibres, valves_of
from meshing.voxelise import read_with_notes
from planners.app.console import Console
from planners.app.dry_run import STAGES, about, nodes_of
from planners.app.output import check, claim, finish
from twin.atomic import write_json
from twin.case import CARRIED
from twin.errors import InputError
from twin.io.labels import check_heart
from twin.io.notes import Notes
from twin.io.positions import line_of
from twin.io.source import did_you_mean
from twin.io.vtu import write_vtu
from twin.mesh import HeartMesh
from twin.run import RunRecord, content_hash
from twin.units import quantity
from twin.volume import LabelVolume

RULES = ("bayer", "doste")


def parse_labels(text: str | None) -> dict[str, int] | None:
    """`lv_blood=1,myocardium=3` as a dictionary; None stays None."""
    if text is None:
        return None
    out: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if not number.strip().isdigit():
            raise InputError("command line", "--labels", f"{part!r} is not NAME=NUMBER", "write for example lv_blood=1,myocardium=3")
        out[name.strip()] = int(number)
    return out


@dataclass(frozen=True)
class FibreChoice:
    """What `--fibres`, `--valve` and `--helix` ask for: a rule's name, or a file of measured fibres laid over the linear rule.

    valves_mm: centres (3,) of valves in LPS mm, by name; None: from the open edges of the endocardia.
    """

    rule: str = "bayer"
    measured: Path | None = None
    valves_mm: dict[str, NDArray[np.float64]] | None = None
    angles: FibreAngles = field(default_factory=FibreAngles)

    @staticmethod
    def parse(fibres: str, valves: Sequence[str], helix: str | None) -> FibreChoice:
        """From the text of the options. Raises InputError for unknown names, valves without the rule that uses them, and bad numbers."""
        rule, measured = (fibres, None) if fibres in RULES else ("bayer", Path(fibres))
        if measured is not None and not measured.suffix and not measured.exists():
            raise InputError("command line", "--fibres", f"{fibres!r} is neither a rule nor a file", did_you_mean(fibres, RULES))
        if valves and rule != "doste":
            raise InputError("command line", "--valve", "only the rule with outflow tracts has valves", "add --fibres doste")
        if helix is not None and rule != "bayer":
            raise InputError("command line", "--helix", "is an option of the linear rule", "leave it out, or --fibres bayer")
        places = dict(_valve(text) for text in valves) or None
        angles = FibreAngles() if helix is None else FibreAngles(*_two_angles(helix))
        return FibreChoice(rule, measured, places, angles)

    def as_dict(self) -> dict[str, Any]:
        """For the run record."""
        valves = None if self.valves_mm is None else {name: place.tolist() for name, place in self.valves_mm.items()}
        angles = [self.angles.alpha_endo_deg, self.angles.alpha_epi_deg]
        return {"rule": self.rule, "measured": self.measured is not None, "valves_mm": valves, "helix_deg": angles}

    def finish(self, bare: HeartMesh) -> tuple[HeartMesh, list[str]]:
        """The mesh with fibres and coordinates, and what was done."""
        if self.rule == "doste":
            valves = valves_of(bare, self.valves_mm)
            found = ", ".join(f"{name} ({len(nodes)} nodes)" for name, nodes in valves.items())
            lines = [f"fibres: rule of Doste 2019; valves: {found}"]
            missing = [name for name in ("aortic", "pulmonary") if name not in valves]
            if missing:
                lines.append(f"no {' and '.join(missing)} valve was found: that ventricle follows its wall's angles (name it with --valve)")
            return complete(bare, rule=lambda mesh, fields: doste_fibres(mesh, valves, None, fields)), lines
        a = self.angles
        rule = f"linear rule after Bayer 2012, helix {a.alpha_endo_deg:+g} to {a.alpha_epi_deg:+g} degrees"
        heart = complete(bare, a)
        if self.measured is None:
            return heart, [f"fibres: {rule}"]
        cloud = read_fibres(self.measured)
        heart, match = with_measured(heart, cloud)
        covered, apart = 100.0 * match["covered"], match["distance_mm"]
        return heart, [
            f"fibres: {len(cloud.places_mm)} measured directions of {cloud.source}, matched by place, over {covered:.0f} % of the muscle "
            f"(median distance {apart:.1f} mm); elsewhere the {rule}",
            f"measured fibres: coherence {match['coherence']:.2f}, {match['turned_deg']:.0f} degrees from the rule (medians)",
        ]


def _valve(text: str) -> tuple[str, NDArray[np.float64]]:
    """`pulmonary=12,-30,40` as name and place."""
    name, _, numbers = text.partition("=")
    if name.strip() not in VALVES:
        raise InputError("command line", "--valve", f"{name!r} is no valve", did_you_mean(name, VALVES))
    try:
        place: list[float] = [float(word) for word in numbers.split(",")]
    except ValueError:
        place = []
    if len(place) != 3:
        raise InputError("command line", "--valve", f"{text!r} is not NAME=X,Y,Z", "write for example pulmonary=12,-30,40 (LPS mm)")
    return name.strip(), np.array(line_of([place], Path("command line"), "--valve")[0])


def _two_angles(text: str) -> tuple[float, float]:
    try:
        endo, epi = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError("command line", "--helix", f"{text!r} is not ENDO,EPI", "write for example 60,-60 (degrees)") from None
    if not (-90.0 <= epi <= endo <= 90.0):
        raise InputError("command line", "--helix", f"{endo:g} to {epi:g} degrees", "fall from endo to epi, within -90 to 90")
    return endo, epi


def mesh(
    segmentation: Path,
    out: Path,
    edge: str,
    labels: str | None,
    console: Console,
    fibres: FibreChoice = FibreChoice(),
    accept: Sequence[str] = (),
    fresh: bool = False,
    optimise: str | None = None,
    dry: bool = False,
    near: tuple[str, str] | None = None,
    regions: str = CARRIED[0],
) -> int:
    """Write heart.vtu, heart.npz, quality.json and run.json. near: mean edge near scar, and how far from it; regions: one of CARRIED."""
    edge_mm = quantity(edge, "mm", "command line", "--edge")
    if not 0.3 <= edge_mm <= 5.0:
        raise InputError("command line", "--edge", f"{edge_mm:g} mm", "choose between 0.3 and 5 mm")
    grading = None if near is None else _grading(near, edge_mm)
    if regions not in CARRIED:
        raise InputError("command line", "--regions", f"{regions!r}", did_you_mean(regions, CARRIED))
    conforming = regions == "conforming"
    optimiser = None if optimise is None else optimiser_named(optimise)
    if optimiser is not None:
        optimiser.check()
        console.progress(f"the mesh will be optimised by {optimiser.name}, a program of others ({optimiser.licence})")
    volume, repairs = read_with_notes(segmentation, parse_labels(labels))
    notes = [*repairs, *check_heart(volume, segmentation, Notes(accept))]
    for note in notes:
        console.progress(note)
    inputs = {"segmentation": content_hash(segmentation)}
    if fibres.measured is not None:
        inputs["fibres"] = content_hash(fibres.measured)
    identity: dict[str, Any] = {
        "command": "mesh",
        "inputs": inputs,
        "settings": {"edge_mm": edge_mm, "labels": labels, "fibres": fibres.as_dict(), "accept": list(accept)}
        | ({} if optimiser is None else {"optimiser": optimiser.described()})
        | ({} if grading is None else {"edge_near_scar_mm": grading.edge_mm, "near_scar_mm": grading.within_mm})
        | ({"regions": regions} if conforming else {}),
    }
    if dry:
        check(out, identity, fresh)
        return _dry_run(volume, edge_mm, grading, console)
    claim(out, identity, fresh)
    finer = "" if grading is None else f", {grading.edge_mm:g} mm within {grading.within_mm:g} mm of scar"
    console.progress(f"meshing at {edge_mm:g} mm{finer} ...")
    bare = mesh_heart(volume, edge_mm, optimiser, grading, conforming)
    console.progress(f"{bare.n_points} nodes, {len(bare.tets)} tetrahedra; fibres and coordinates ...")
    heart, said = fibres.finish(bare)
    quality = {**heart.quality, "input_notes": notes, "fibres": said}
    write_vtu(out / "heart.vtu", heart)
    heart.save(out / "heart.npz")
    write_json(out / "quality.json", quality)
    finish(out, identity, RunRecord("mesh", 0, inputs, identity["settings"]).as_dict())
    console.result(quality, [*_lines(quality), f"wrote {out / 'heart.vtu'}"])
    return 0


def _grading(near: tuple[str, str], edge_mm: float) -> Grading:
    fine_mm, within_mm = (quantity(text, "mm", "command line", option) for text, option in zip(near, ("--near-scar", "--near")))
    if fine_mm < 0.3:
        raise InputError("command line", "--near-scar", f"{fine_mm:g} mm", "choose 0.3 mm or more")
    if not 0.0 < within_mm <= 50.0:
        raise InputError("command line", "--near", f"{within_mm:g} mm", "choose up to 50 mm")
    grading = Grading(fine_mm, within_mm)
    grading.levels(edge_mm)
    return grading


def _dry_run(volume: LabelVolume, edge_mm: float, grading: Grading | None, console: Console) -> int:
    """Say how large the mesh will be and about how long it takes."""
    wall_ml, nodes = nodes_of(volume, edge_mm, None if grading is None else (grading.edge_mm, grading.within_mm))
    seconds = nodes * STAGES["mesh and fibres"]
    lines = [f"inputs are right; wall {wall_ml:.0f} mL, about {nodes:,.0f} nodes at {edge_mm:g} mm", about(seconds)]
    console.result({"nodes": round(nodes), "seconds": round(seconds), "stages": ["mesh and fibres"]}, lines)
    return 0


def _lines(quality: dict[str, Any]) -> list[str]:
    """Numbers one a line; texts (repairs, warnings) one a line each."""
    out = []
    for key, value in quality.items():
        if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
            out += [one if one.startswith(f"{key}: ") else f"{key}: {one}" for one in value] or [f"{key}: none"]
        elif key == "grading":
            out += [
                f"grading: {s['edge_mm']:g} mm: {s['tets']} tetrahedra, {100.0 * s['share_of_volume']:.0f} % of the muscle" for s in value
            ]
        elif key == "regions":
            out.append(f"regions: carried by {value['carried_by']}")
            out += [
                f"regions: {name} {v['mesh_ml']:.2f} mL, labels {v['label_ml']:.2f} mL ({v['error_percent']:+.1f} %)"
                for name, v in value.items()
                if name != "carried_by"
            ]
        else:
            out.append(f"{key}: {value}")
    return out
