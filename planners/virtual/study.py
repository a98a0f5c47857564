"""A virtual patient's map as a mapping system would export it: shell, points, electrograms and ECG in one frame.

The potential of each electrode is its lead field times a smooth upstroke of every node at its activation time and a smooth fall at its
recovery (`phantom_apd_ms`), without the cell model's course between. The twelve leads beside them are `sinus_ecg`'s: they have no T wave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.spatial import KDTree

from planners.virtual.measure import Activated, MeasureSpec
from solvers.ecg.electrograms import CATHETERS, band_passed, bipole, contact_weights, peak_to_peak_mv
from solvers.eikonal.reaction import smear_for
from twin.io.surfaces import Surface
from twin.mesh import HeartMesh
from twin.params import Param
from twin.patient import LEADS, Ecg, ElectroanatomicalMap
from twin.study import MappingStudy, Progress, Recording

Array = NDArray[np.float64]
UPSTROKE_MV = Param(115.0, "mV", 100.0, 130.0, "chosen here: from -85 to +30 mV, the usual upstroke of ventricular muscle")
RISE_MS = Param(1.0, "ms", 0.5, 2.0, "chosen here: upstroke in tissue, before the blur that the mesh needs")
FALL_MS = Param(25.0, "ms", 15.0, 40.0, "chosen here: time constant of the phase-3 repolarisation as a tanh")
APD_MS = Param(285.0, "ms", 260.0, 320.0, "chosen here: of ventricular muscle at the middle of wall and axis")
ENDO_MINUS_EPI_MS = Param(25.0, "ms", 0.0, 40.0, "chosen here: inner muscle recovers later after its activation than outer")
APEX_MINUS_BASE_MS = Param(20.0, "ms", -20.0, 40.0, "chosen here")
NOISE_MV = Param(0.01, "mV", 0.005, 0.05, "chosen here: noise of a quiet channel")
SAMPLES, REFERENCE_MS = 2500, 2000.0
"""As CARTO records: 2.5 s at 1 kHz, the reference annotation 2 s after the start."""
FINE_MS = 0.25
PAD_MS, LATE_PAD_MS = 60.0, 150.0
"""Before the first upstroke and about each, and about each fall."""

BLOCK = 32
FORMATS = ("carto", "ensite", "openep")


def phantom_apd_ms(mesh: HeartMesh) -> Array:
    """The true duration from activation to steepest recovery at every node, (n,) ms: linear through the wall and along the axis."""
    through, along = mesh.coordinates["transmural"] - 0.5, mesh.coordinates["apicobasal"] - 0.5
    return np.asarray(float(APD_MS) - float(ENDO_MINUS_EPI_MS) * through - float(APEX_MINUS_BASE_MS) * along)


def phantom_study(
    beat: Activated, spec: MeasureSpec, eam: ElectroanatomicalMap, truth_frame: Array, ecg: Ecg, seed: int, progress: Progress | None = None
) -> MappingStudy:
    """The study of a mapped beat. truth_frame (4, 4): from the map's frame to the patient's; voltages are those of the electrograms."""
    mesh = beat.mesh
    here, normals, nodes = _contacts(beat, (eam.points_mm @ truth_frame[:3, :3].T + truth_frame[:3, 3]))
    waves = _traces(beat, spec, here, normals, ecg, np.random.default_rng([seed, 3]), progress)
    back = np.linalg.inv(truth_frame)
    shell_nodes = mesh.surface_nodes("lv_endo")
    renumber = np.full(mesh.n_points, -1, np.int64)
    renumber[shell_nodes] = np.arange(len(shell_nodes))
    bipolar, unipolar = waves.voltages()
    _, near = KDTree(here).query(mesh.points_mm[shell_nodes])
    arrival = beat.arrival_ms[shell_nodes] - spec.lat_reference_ms
    fields = {
        "lat_ms": np.where(np.isfinite(arrival), arrival, np.nan),
        "bipolar_mv": bipolar[near],
        "unipolar_mv": unipolar[near],
    }
    points = mesh.points_mm[shell_nodes] @ back[:3, :3].T + back[:3, 3]
    surface = Surface(points, renumber[mesh.surfaces["lv_endo"]].astype(np.int32), fields)
    n = len(eam.points_mm)
    waves.lat_ms = eam.lat_ms
    return MappingStudy(
        "1-LV",
        "vtwin phantom",
        eam.points_mm,
        eam.lat_ms,
        bipolar,
        unipolar,
        np.arange(1, n + 1, dtype=np.int64),
        surface,
        mesh.points_mm[nodes] @ back[:3, :3].T + back[:3, 3],
        np.full(n, REFERENCE_MS),
        REFERENCE_MS + eam.lat_ms,
        np.tile([-spec.lat_reference_ms - 50.0, 350.0], (n, 1)),
        dict(eam.landmarks),
        waves,
    )


def _contacts(beat: Activated, points_mm: Array) -> tuple[Array, Array, NDArray[np.int32]]:
    """Where the catheter touches for positions (n, 3) mm: the endocardium under them, its normals into the cavity, the nearest nodes."""
    mesh, triangles = beat.mesh, beat.mesh.surfaces["lv_endo"]
    corner = mesh.points_mm[triangles]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal = np.zeros((mesh.n_points, 3))
    for k in range(3):
        np.add.at(normal, triangles[:, k], face)
    nodes = mesh.surface_nodes("lv_endo")
    _, near = KDTree(mesh.points_mm[nodes]).query(points_mm)
    chosen = nodes[near]
    return mesh.points_mm[chosen], normal[chosen] / np.linalg.norm(normal[chosen], axis=1, keepdims=True), chosen


@dataclass
class PhantomWaves:
    """Traces (n, t) float32 of the beat from `start` ms after the record's begin; outside nothing moves. Leads: name -> (SAMPLES,)."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    bipolar: NDArray[np.float32]
    start: int
    qrs: int
    """Samples from `start` until all muscle is excited: voltages are those of this part."""
    leads: dict[str, Array]
    lat_ms: Array
    seed: int

    def __len__(self) -> int:
        return len(self.first)

    def voltages(self) -> tuple[Array, Array]:
        """Peak-to-peak bipolar and unipolar voltages, (n,) mV."""
        bipolar, unipolar = (peak_to_peak_mv(part[:, : self.qrs].astype(np.float64)) for part in (self.bipolar, self.first))
        return np.round(bipolar, 3), np.round(unipolar, 3)

    def read(self, index: int) -> Recording | None:
        """One point's record with its own noise."""
        rng = np.random.default_rng([self.seed, index])

        def whole(values: NDArray[np.float32]) -> Array:
            out = NOISE_MV.value * rng.normal(size=SAMPLES)
            inside = slice(self.start, self.start + len(values))
            out[inside] += values
            out[inside.stop :] += values[-1]
            return out

        times = np.arange(float(SAMPLES))
        reference = np.exp(-(((times - REFERENCE_MS) / 4.0) ** 2))
        channels = {"M1": whole(self.first[index]), "M2": whole(self.second[index]), "M1-M2": whole(self.bipolar[index])}
        channels |= {"CS1-CS2": reference, **self.leads}
        return Recording(1000.0, channels, "M1-M2", "M1", "CS1-CS2", REFERENCE_MS, REFERENCE_MS + float(self.lat_ms[index]))


def _traces(
    beat: Activated, spec: MeasureSpec, sites_mm: Array, normals: Array, ecg: Ecg, rng: np.random.Generator, progress: Progress | None
) -> PhantomWaves:
    arrival = beat.arrival_ms
    reached = np.isfinite(arrival)
    last = float(arrival[reached].max())
    recovery = arrival[reached] + phantom_apd_ms(beat.mesh)[reached]
    # bins of times, convolved with the upstroke or the fall: every node of one bin rises or falls at once
    edges = np.arange(-PAD_MS, float(recovery.max()) + LATE_PAD_MS + FINE_MS, FINE_MS)
    courses = []
    for times, pad, constant, sign in (
        (arrival[reached], PAD_MS, np.hypot(RISE_MS.value, smear_for(beat.mesh)), 1.0),
        (recovery, LATE_PAD_MS, FALL_MS.value, -1.0),
    ):
        place = (times + PAD_MS) / FINE_MS
        low = np.floor(place).astype(np.int64)
        kernel_t = np.arange(-pad, pad + FINE_MS, FINE_MS)
        courses.append((low, place - low, sign * 0.5 * UPSTROKE_MV.value * np.gradient(np.tanh(kernel_t / constant))))
    every = round(1.0 / FINE_MS)
    n, t = len(sites_mm), len(edges[::every])
    first, second = np.zeros((n, t), np.float32), np.zeros((n, t), np.float32)
    for begin in range(0, n, BLOCK):
        stop = min(begin + BLOCK, n)
        pairs = [bipole(CATHETERS["ablation"], sites_mm[k], normals[k]) for k in range(begin, stop)]
        weights = contact_weights(beat.mesh, [p[0] for p in pairs] + [p[1] for p in pairs])[reached]
        for k in range(2 * len(pairs)):
            change = np.zeros(len(edges))
            for low, part, course in courses:
                bins = np.bincount(low, weights[:, k] * (1.0 - part), len(edges)) + np.bincount(low + 1, weights[:, k] * part, len(edges))
                change += fftconvolve(bins, course, "same")
            wave = np.cumsum(change)[::every]
            (first if k < len(pairs) else second)[begin + k % len(pairs)] = wave[:t]
        if progress is not None:
            progress("electrograms", stop, n)
    bipolar = band_passed(first.astype(np.float64) - second, 1000.0).astype(np.float32)
    start = round(REFERENCE_MS - spec.lat_reference_ms - PAD_MS)
    leads = {}
    offset = round(REFERENCE_MS - spec.lat_reference_ms - spec.ecg_before_ms)
    for name in LEADS:
        values = ecg.leads[name][: SAMPLES - offset]
        leads[name] = np.full(SAMPLES, values[0])
        leads[name][offset : offset + len(values)] = values
        leads[name][offset + len(values) :] = values[-1]
    room = SAMPLES - start
    qrs = round(last + 2.0 * PAD_MS)
    seed = int(rng.integers(0, 2**31))
    return PhantomWaves(first[:, :room], second[:, :room], bipolar[:, :room], start, qrs, leads, np.full(n, np.nan), seed)


def write_format(folder: Path, study: MappingStudy, kind: str, progress: Progress | None = None) -> Path:
    """Write `study.zip` (carto), `study_ensite/` or `study.mat` (openep) in a folder; returns what was written."""
    from twin.io.carto import write_carto
    from twin.io.ensite import write_ensite
    from twin.io.openep import write_openep

    writers: dict[str, tuple[str, Callable[..., None]]] = {
        "carto": ("study.zip", write_carto),
        "ensite": ("study_ensite", write_ensite),
        "openep": ("study.mat", write_openep),
    }
    name, write = writers[kind]
    write(folder / name, study, progress=progress)
    return folder / name
