"""The line from evidence to plan: each stage takes nouns, returns a noun and leaves it in `stages/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.anatomy import complete
from meshing.grading import Grading
from meshing.mesh_labels import mesh_heart
from planners.app.console import Console
from planners.calibration import Calibration, calibrate, substrate
from planners.circuit_evidence import CircuitEvidence, TachycardiaEcgs, gather_evidence
from planners.circuits import Reentry, collect
from planners.circuits.episode import Collected
from planners.lesions.result import LesionPlan
from planners.lesions.search import compare_strategies, plan_lesions
from planners.outcome import Outcome, outcome
from planners.pacing.directed import induced
from planners.pacing.engine import InductionRun
from planners.pacing.induce import PacedHeart, PacingSettings
from planners.pacing.protocol import load_protocol
from planners.pacing.vote import vote
from twin.calibrate.registration import Registration
from twin.calibrate.substrate import Fused
from twin.case import Case
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.patient import Patient
from twin.plan import Circuit, PlanRequest
from twin.run import content_hash
from twin.stages import Stages

VERSION = "5"
"""Part of every stage's key: raised when a stage would give another answer to the same input."""


@dataclass(frozen=True)
class Line:
    """One run of the line: where its stages live, how it speaks, its seed and threads."""

    stages: Stages
    console: Console
    seed: int
    threads: int
    hearts: dict[str, PacedHeart] = field(default_factory=dict)
    """The heart that was paced, by the key of its induction: lesions are re-tested in the same."""

    def mesh(self, patient: Patient, case: Case) -> HeartMesh:
        """Labels to a mesh as the case asks, with fibres, coordinates and segments."""
        volume, near_mm = patient.labels.value, case.edge_near_scar_mm
        grading = None if near_mm is None else Grading(near_mm, case.near_scar_mm)
        key = content_hash(VERSION, "mesh", volume.data, volume.affine, *case.mesh_asked.values())

        def compute(folder: Path) -> HeartMesh:
            bare = mesh_heart(volume, case.edge_mm, grading=grading, conforming=case.conforming)
            self.console.progress(f"  {bare.n_points} nodes, {len(bare.tets)} tetrahedra; fibres and coordinates ...")
            return complete(bare)

        return self.stages.run(
            "mesh",
            key,
            compute,
            lambda m, folder: m.save(folder / "mesh.npz"),
            lambda folder: HeartMesh.load(folder / "mesh.npz"),
            "Mesh and fibres",
        )

    def calibration(self, mesh: HeartMesh, patient: Patient, case: Case) -> Calibration:
        """Map and ECG to a twin with a tissue posterior; its mesh has the fused regions where the case asks for them."""
        infarct = case.virtual_infarct is not None
        fused = self.substrate(mesh, patient, None) if case.fuse_substrate and not infarct else None
        used = fused is not None
        if fused is not None:
            mesh = fused.regions(mesh)
        given = substrate.lge_prior(patient) | dict(case.tissue)
        key = content_hash(VERSION, "tissue", self.stages.keys["mesh"], *_evidence(patient), given, infarct, self.seed, mesh.region)
        found = self.stages.run(
            "tissue",
            key,
            lambda folder: calibrate(mesh, patient, given, self.seed, lambda line: self.console.progress(f"  {line} ..."), infarct),
            lambda value, folder: value.save(folder),
            Calibration.load,
            "Registration and tissue",
        )
        if fused is None and not infarct:
            # a virtual infarct is in no map and no image: there is nothing to compare it with
            fused = self.substrate(mesh, patient, found.registration)
        return found if fused is None else substrate.with_substrate(found, fused, used)

    def substrate(self, mesh: HeartMesh, patient: Patient, registration: Registration | None) -> Fused | None:
        """Scar and border zone from all sources; None where there is but one."""
        images = [image.value.data for image in (patient.lge, patient.ct) if image is not None]
        voltage = patient.eam is not None and (np.isfinite(patient.eam.value.bipolar_mv).any() or len(patient.eam.value.unipolar_mv) > 0)
        if not images and not voltage:
            return None
        unipolar = patient.eam.value.unipolar_mv if patient.eam is not None else ""
        pose = [registration.transform, registration.coefficients_mm] if registration is not None else []
        key = content_hash(VERSION, "substrate", self.stages.keys["mesh"], *_evidence(patient), unipolar, *images, *pose)

        def compute(folder: Path) -> Fused:
            found = substrate.substrate(patient, mesh, registration)
            if found is None:
                raise InputError("case", "evidence", "shows no voltage and no image of the wall", "leave [substrate] out")
            return found

        return self.stages.run(
            "substrate", key, compute, lambda value, folder: substrate.save(value, mesh, folder), substrate.load, "Substrate by source"
        )

    def substrate_picture(self) -> bytes | None:
        """Bull's-eyes of the sources and of their disagreement (PNG), None where nothing was compared."""
        if "substrate" not in self.stages.keys:
            return None
        return (self.stages.path("substrate", self.stages.keys["substrate"]) / "substrate.png").read_bytes()

    def induction(self, calibration: Calibration, request: PlanRequest, settings: PacingSettings) -> tuple[InductionRun, Collected]:
        """Programmed stimulation of the untreated heart, and the distinct circuits behind what it induced."""
        protocol = load_protocol(request.protocol)
        asked = (asdict(protocol), list(request.sites), request.vote, _plain(settings))
        key = content_hash(VERSION, "induction", self.stages.keys["tissue"], *asked)

        alike = TachycardiaEcgs(calibration.twin.mesh).likeness
        described: list[Collected] = []

        def pace(folder: Path) -> InductionRun:
            # every site leaves its own file: a run that was cut off paces those that are left
            twin, sites = calibration.twin, request.sites
            heart = self.heart(calibration, request, settings)
            run = heart.induce(folder=folder, progress=self._sites, threads=self.threads)
            if request.vote:
                run = vote(run, twin, protocol, sites, settings, folder=folder, progress=self._sites, threads=self.threads)
            run, found = induced(heart, run, alike, folder=folder, progress=self._sites, threads=self.threads)
            described.append(found)
            return run

        said = f"Induction, protocol {protocol.name}"
        run = self.stages.run("induction", key, pace, lambda value, folder: value.save(folder), InductionRun.load, said)
        # pacing describes the circuits to know where else to pace; a reloaded run has to be described anew
        return run, described[0] if described else collect(Reentry.of(calibration.twin.mesh), run.inductions, run.episodes, (), alike)

    def heart(self, calibration: Calibration, request: PlanRequest, settings: PacingSettings) -> PacedHeart:
        """The reduced model of the tissue that stage induction paces; what it remembers of that serves the re-tests."""
        key = self.stages.keys["induction"]
        if key not in self.hearts:
            self.hearts[key] = PacedHeart(calibration.twin, load_protocol(request.protocol), request.sites, settings)
        return self.hearts[key]

    def evidence(
        self,
        calibration: Calibration,
        found: Collected,
        recorded: Sequence[Mapping[str, Any]],
        request: PlanRequest,
        settings: PacingSettings,
    ) -> CircuitEvidence:
        """Entrainment, pace-maps and 12-lead ECG of every circuit, and which recorded VT it is like."""
        asked = [{**vt, "cycle": None if vt["cycle"] is None else content_hash(vt["cycle"])} for vt in recorded]
        key = content_hash(VERSION, "evidence", self.stages.keys["induction"], asked)
        return self.stages.run(
            "evidence",
            key,
            lambda folder: gather_evidence(
                calibration.twin,
                load_protocol(request.protocol),
                found.circuits,
                found.episodes,
                recorded,
                settings,
                progress=self._sites,
                threads=self.threads,
            ),
            lambda value, folder: value.save(folder),
            CircuitEvidence.load,
            "Circuits: entrainment, pace-maps, ECG",
        )

    def lesions(
        self, calibration: Calibration, run: InductionRun, circuits: Sequence[Circuit], request: PlanRequest, settings: PacingSettings
    ) -> LesionPlan:
        """Lesion sets proposed, re-tested, grown and pruned, until one suffices."""
        key = content_hash(VERSION, "lesions", self.stages.keys["induction"], asdict(request))
        spent: dict[str, float] = {}
        made = self.stages.run(
            "lesions",
            key,
            lambda folder: plan_lesions(
                calibration.twin,
                run,
                circuits,
                request,
                settings,
                heart=self.heart(calibration, request, settings),
                folder=folder,
                progress=self._sites,
                threads=self.threads,
                spent_s=spent,
            ),
            lambda value, folder: value.save(folder),
            LesionPlan.load,
            "Lesions, each set re-tested",
        )
        self.stages.wall_s.update({f"lesions, {what}": round(seconds, 3) for what, seconds in spent.items()})
        return made

    def comparison(
        self,
        calibration: Calibration,
        plan: LesionPlan,
        run: InductionRun,
        circuits: Sequence[Circuit],
        request: PlanRequest,
        settings: PacingSettings,
    ) -> LesionPlan:
        """The same plan with the strategies that were not chosen in its table, re-tested too."""
        key = content_hash(VERSION, "comparison", self.stages.keys["lesions"])
        return self.stages.run(
            "comparison",
            key,
            lambda folder: compare_strategies(
                calibration.twin,
                plan,
                run,
                circuits,
                request,
                settings,
                heart=self.heart(calibration, request, settings),
                folder=folder,
                progress=self._sites,
                threads=self.threads,
            ),
            lambda value, folder: value.save(folder),
            LesionPlan.load,
            "Other strategies, for comparison",
        )

    def outcome(
        self, calibration: Calibration, plan: LesionPlan, run: InductionRun, request: PlanRequest, settings: PacingSettings
    ) -> Outcome:
        """Probability of non-inducibility over tissue samples."""
        key = content_hash(VERSION, "outcome", self.stages.keys["lesions"])
        return self.stages.run(
            "outcome",
            key,
            lambda folder: outcome(
                calibration.twin, plan, run, request, settings, folder=folder, progress=self._sites, threads=self.threads
            ),
            lambda value, folder: value.save(folder),
            Outcome.load,
            "Outcome over tissue samples",
        )

    def _sites(self, what: str, done: int, total: int) -> None:
        self.console.bar(done, total, what)


def _plain(settings: PacingSettings) -> Any:
    plain: dict[str, Any] = {"solver": asdict(settings.solver)}
    if settings.tables is not None:
        plain["tables"] = {name: [table.di_ms.tolist(), table.apd_ms.tolist()] for name, table in settings.tables.items()}
    return plain


def _evidence(patient: Patient) -> list[NDArray[Any] | bytes | str]:
    """What calibration reads, for its key."""
    parts: list[Any] = []
    if patient.eam is not None:
        eam = patient.eam.value
        parts += [eam.points_mm, eam.lat_ms, eam.bipolar_mv, eam.surface, {k: list(map(float, v)) for k, v in eam.landmarks.items()}]
        parts += [eam.ari_ms, str(eam.warp)]
    if patient.ecg is not None:
        parts += [patient.ecg.value.array(), patient.ecg.value.fs_hz, *patient.ecg.value.electrodes_mm.values()]
    return parts
