"""Four verbs for scripts and notebooks: load a case, build its twin, plan, export.

    import planners

    case  = planners.load("cases/demo/case.toml")     # evidence, read and checked
    model = planners.build(case, "out/demo")           # mesh, tissue, calibration
    plan  = planners.plan(model)                       # induction, circuits, lesions, outcome, report
    planners.export(plan, "out/overlay", formats=["slicer", "ensite", "dicom"])

They run the same stages as `vtwin plan` and leave the same folder: what one has finished, the other reuses. All four live here, and none in
`twin`, because building needs a mesher and solvers, and imports point one way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planners.calibration import Calibration
    from twin.case import Case
    from twin.mesh import HeartMesh
    from twin.model import Twin
    from twin.patient import Patient
    from twin.plan import Plan, PlanRequest


@dataclass(frozen=True)
class LoadedCase:
    """A case file with its evidence, read and checked."""

    case: Case
    patient: Patient
    folder: Path
    """Where labels that were made from a surface are kept."""


@dataclass(frozen=True)
class Model:
    """A twin of one patient: mesh, tissue posterior and how it was fitted."""

    loaded: LoadedCase
    calibration: Calibration
    out: Path
    seed: int

    @property
    def twin(self) -> Twin:
        """Mesh and tissue samples."""
        return self.calibration.twin

    @property
    def mesh(self) -> HeartMesh:
        """The heart."""
        return self.calibration.twin.mesh


@dataclass(frozen=True)
class Planned:
    """A finished plan, its mesh, and the folder that holds its report."""

    plan: Plan
    mesh: HeartMesh
    out: Path

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.out / "report.html"


def _silent() -> Any:
    """A console that says nothing: a script has the values themselves."""
    from planners.app.console import Console

    class Silent(Console):
        def result(self, value: Any, lines: Sequence[str] = ()) -> None:
            """Nothing."""

    return Silent(as_json=True)


@contextmanager
def _claimed(case: Case, out: Path, seed: int) -> Iterator[None]:
    """Take the folder for the plan of this case; others may work in it again after the block, while a notebook lives on."""
    from planners.app.output import claim, let_go
    from planners.app.plan_command import identity_of

    claim(out, identity_of("plan", case, seed))
    try:
        yield
    finally:
        let_go(out)


def load(path: str | Path, folder: str | Path | None = None) -> LoadedCase:
    """Read a case file and all its evidence. folder: for labels made from a surface (default: beside the case, `.vtwin`).

    Raises InputError (Suspicious for what the case may accept).
    """
    from planners.app.evidence import gather
    from planners.app.identity import hidden
    from twin.case import load_case

    case = hidden(load_case(Path(path)))
    kept = Path(folder) if folder is not None else Path(path).parent / ".vtwin"
    return LoadedCase(case, gather(case, kept, lambda line: None), kept)


def build(loaded: LoadedCase, out: str | Path, seed: int = 0) -> Model:
    """Mesh the heart and calibrate its tissue; stages are kept below `out` and reused. Raises InputError, RunFailed."""
    from planners.app.clinical import clinical_twin
    from planners.app.pipeline import Line
    from twin.stages import Stages

    folder, console = Path(out), _silent()
    with _claimed(loaded.case, folder, seed):
        line = Line(Stages(folder / "stages", console.progress), console, seed, 1)
        case = clinical_twin(loaded.case, loaded.patient, console.progress).case(loaded.case)
        mesh = line.mesh(loaded.patient, case)
        return Model(loaded, line.calibration(mesh, loaded.patient, case), folder, seed)


def plan(model: Model, request: PlanRequest | None = None, out: str | Path | None = None) -> Planned:
    """Induction, circuits, lesions, outcome and report of a model.

    request: limits and choices in place of the case's [plan]; it needs a folder `out` of its own, into which mesh and tissue are copied.
    Raises InputError (another plan is in the folder), RunFailed.
    """
    from planners.app.plan_command import plan_case
    from planners.finished import load_mesh, load_plan
    from twin.stages import take_over

    case = model.loaded.case if request is None else replace(model.loaded.case, request=request)
    folder = model.out if out is None else Path(out)
    with _claimed(case, folder, model.seed):
        if folder != model.out:
            for stage in (path for name in ("mesh", "tissue") for path in (model.out / "stages").glob(f"{name}-*")):
                take_over(stage, folder / "stages")
        plan_case(case, folder, _silent(), seed=model.seed)
    made = load_plan(folder)
    return Planned(made, load_mesh(folder, made), folder)


def export(planned: Planned, folder: str | Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write overlays (`planners.overlay.FORMATS`; the defaults if none is named) and return the files. Raises InputError."""
    from planners.overlay import export as write

    return write(planned.plan, planned.mesh, Path(folder), formats)
