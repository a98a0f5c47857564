"""A planned slab of scar with one isthmus, for tests of guidance: paced in the graph model, so that no whole heart is needed."""

from dataclasses import dataclass, field, replace

import numpy as np
from graph_model import scar_slab, slab_model, slab_sites

from planners.calibration import Calibration
from planners.circuits import Reentry, collect
from planners.guidance.base import Attempt, Base
from planners.guidance.inputs import NewPoints
from planners.lesions.search import Search
from planners.pacing import induce_model, load_protocol
from planners.pacing.trains import Answer
from solvers.eikonal.forward import EikonalForward
from twin.calibrate.gaussian import Gaussian
from twin.io.lesions import Delivered
from twin.model import Twin
from twin.plan import Plan, PlanRequest
from twin.tissue import Tissue

QUICK = load_protocol("quick")
ENDO = PlanRequest(access=("lv_endo",))
NO_FACES = np.zeros((0, 3), np.int32)
POSE = np.array([[0.0, -1, 0, 4], [1, 0, 0, -2], [0, 0, 1, 3], [0, 0, 0, 1]])


@dataclass(frozen=True)
class SlabBase(Base):
    """A base whose trains are paced in the graph model of the slab, so that no tissue posterior is needed."""

    repeated: list = field(default_factory=list)

    def repeat(self, attempt, blocked, cancelled=bool):
        self.repeated.append(attempt)
        mesh = self.twin.mesh.with_region(blocked, "lesion")
        found = induce_model(slab_model(mesh), {attempt.site: slab_sites(mesh)[attempt.site]}, QUICK, require_capture=False)
        return Answer(True, found.induced, found.episodes[0].cycle_length_ms if found.induced else None)


class Topological(SlabBase):
    """Trains induce as long as an isthmus conducts: as quick as 200 sequences of events need."""

    def repeat(self, attempt, blocked, cancelled=bool):
        return Answer(True, False)


def planned():
    """Plan, twin and inducing trains of the slab: one isthmus, paced in the graph model."""
    mesh = scar_slab()
    none = np.zeros(0)
    twin = Twin(mesh, Tissue((), np.zeros((1, 0)), none, none, {}, np.zeros(1, np.int32), np.zeros(1)), np.eye(4))
    paced = induce_model(slab_model(mesh), {"left": slab_sites(mesh)["left"]}, QUICK)
    found = collect(Reentry.of(mesh), paced.inductions, paced.episodes)

    def retest(blocked, sites):
        places = {name: slab_sites(mesh)[name] for name in sites}
        return induce_model(slab_model(mesh.with_region(blocked, "lesion")), places, QUICK, stop_at_first=True, require_capture=False)

    lesions = Search(twin, ENDO, ["left"], retest).plan(paced, found.circuits)
    named = {(i.site, i.coupling_ms): i.circuit for i in found.inductions if i.induced}
    attempts = tuple(Attempt(e.site, e.cycle_ms, e.coupling_ms, named[(e.site, e.coupling_ms)]) for e in paced.episodes)
    run_record = {"stages": {"mesh": "abc"}, "settings": {}}
    plan = Plan({"name": "slab"}, {}, {}, found.inductions, lesions.circuits, lesions.targets, [], {}, ["a limit"], run_record)
    return plan, twin, attempts


def learning(planned):
    """The slab with a tissue posterior that new points go into: healthy velocities, one source in the left edge, known to 20 %."""
    plan, twin, attempts = planned
    mesh = replace(twin.mesh, surfaces={**twin.mesh.surfaces, "rv_endo": NO_FACES, "base": NO_FACES})
    names = tuple(f"{region}/cv_{way}_m_s" for region in ("healthy", "border_zone") for way in ("longitudinal", "transverse"))
    source = np.array([int(np.argmin(np.linalg.norm(mesh.points_mm - [0.0, 30.0, 0.0], axis=1)))], np.int32)
    mean = np.array([*np.log([0.6, 0.25, 0.4, 0.2]), 0.0])
    belief = Gaussian((*names, "source 0"), mean, np.diag([*[0.2**2] * 4, 2.0**2]))
    draws = belief.draw(40, np.random.default_rng(0))[:, :4]
    low, high = np.exp(mean[:4]) / 2, np.exp(mean[:4]) * 2
    tissue = Tissue(names, np.exp(draws), low, high, dict.fromkeys(names, "map"), source, np.zeros(1))
    own = Twin(mesh, tissue, POSE)
    arrival = EikonalForward(mesh).arrival_ms(tissue.velocities(), source, np.zeros(1))
    none = np.zeros(0)
    calibration = Calibration(own, arrival, None, None, none.reshape(0, 3), none, none, none, np.zeros(mesh.n_points), belief)
    return plan, own, attempts, calibration


def learner(learning, folder, kind=None):
    plan, twin, attempts, calibration = learning
    return (kind or Topological)(folder, plan, twin, ENDO, attempts, calibration)


def mapped(learning, count, seed=0, speed=0.8, moved=(0.0, 0.0, 0.0), noise_ms=1.0):
    """Points in the map's frame as a heart of another velocity (factor `speed`) would give them, on a map that has moved."""
    _, twin, _, calibration = learning
    rng = np.random.default_rng(seed)
    nodes = np.flatnonzero(np.isfinite(calibration.arrival_ms) & (twin.mesh.points_mm[:, 2] == 0))
    picked = rng.choice(nodes, count, replace=False)
    places = twin.mesh.points_mm[picked] + moved
    lat = calibration.arrival_ms[picked] / speed + rng.normal(scale=noise_ms, size=count)
    volts = np.where(rng.random(count) < 0.3, 0.3, 2.0)
    return NewPoints((places - POSE[:3, 3]) @ POSE[:3, :3], lat, volts, np.arange(count, dtype=float), "")


def points_text(points, extra=""):
    rows = np.column_stack([points.points_mm, points.lat_ms, points.bipolar_mv, points.time_s])
    lines = [",".join(f"{x:.4f}" for x in row) for row in rows]
    return f"# vtwin-eam 1\n{extra}x_mm,y_mm,z_mm,lat_ms,bipolar_mv,time_s\n" + "".join(line + "\n" for line in lines)


def delivered(positions, **more):
    places = np.asarray(positions, float).reshape(-1, 3)
    values = dict.fromkeys(("time_s", "radius_mm", "depth_mm", "power_w", "duration_s"), np.full(len(places), np.nan))
    return Delivered(places, **(values | more), frame="mesh")


def planned_places(base):
    return [p for t in base.plan.targets for p in t.positions_mm]
