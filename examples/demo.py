# %% [markdown]
# # The demo, step by step
# From a virtual patient's evidence to a plan, with the figures drawn as they come. Cells run in any editor that knows `# %%`
# (VS Code, Spyder, PyCharm), in Jupyter through jupytext, or all at once:
#
#     python examples/demo.py cases/two_isthmuses/case.toml out/script
#
# Research software: not a medical device.

# %%
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import planners

ARGUMENTS = [a for a in sys.argv[1:] if not a.startswith("-")]
CASE = Path(ARGUMENTS[0] if ARGUMENTS else "cases/demo/case.toml")
OUT = Path(ARGUMENTS[1] if len(ARGUMENTS) > 1 else "out/script")
FIGURES = OUT / "figures"

# %% [markdown]
# ## 1. What the hospital has
# A case file names the evidence. Loading checks it: units, axes, ranges, identity of leads, one heart.

# %%
loaded = planners.load(CASE, OUT / "labels")
patient = loaded.patient
labels = patient.labels.value
print(f"{patient.name}: wall of {labels.volume_ml('lv_myocardium', 'rv_myocardium', 'myocardium'):.0f} mL")
if patient.eam is not None:
    points = patient.eam.value
    print(f"map of {len(points.lat_ms)} points on the {points.surface}, {np.isfinite(points.lat_ms).sum()} with a time")

# %% [markdown]
# ## 2. The twin
# Labels become a mesh with fibres; map and ECG become velocities with their uncertainty.

# %%
model = planners.build(loaded, OUT / "plan")
mesh, tissue = model.mesh, model.twin.tissue
FIGURES.mkdir(parents=True, exist_ok=True)
print(f"{mesh.n_points} nodes, {len(mesh.tets)} tetrahedra")
for name in tissue.names:
    low, high = tissue.interval(name)
    print(f"{name}: {tissue.samples[0, tissue.names.index(name)]:.3f} m/s ({low:.3f} to {high:.3f})")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for column, name in enumerate(tissue.names):
    axes[0].hist(tissue.samples[:, column], bins=30, alpha=0.6, label=name.replace("/cv_", " ").replace("_m_s", "").replace("_", " "))
axes[0].set_xlabel("conduction velocity, m/s")
axes[0].legend(fontsize=8, frameon=False)
fitted = np.isfinite(model.calibration.map_lat_ms) & np.isfinite(model.calibration.map_predicted_ms)
axes[1].scatter(model.calibration.map_lat_ms[fitted], model.calibration.map_predicted_ms[fitted], s=4, color="#0072B2")
axes[1].set_xlabel("measured activation, ms")
axes[1].set_ylabel("twin, ms")
figure.savefig(FIGURES / "tissue.png", dpi=120)

# %% [markdown]
# ## 3. The plan
# Programmed stimulation, circuits, lesion sets re-tested on the same heart, outcome over tissue samples.

# %%
planned = planners.plan(model)
plan = planned.plan
for induction in plan.inductions:
    print(f"{induction.site}: {f'VT of {induction.cycle_length_ms:.0f} ms' if induction.induced else 'no VT'}")
for target in plan.targets:
    print(f"{target.id}: {len(target.positions_mm)} lesions on the {target.surface}: {target.why}")
outcome = plan.outcome
print(f"non-inducible afterwards in {100 * outcome['probability_non_inducible']:.0f} % of {outcome['samples']} tissue samples")

# %%
endo = mesh.points_mm[mesh.surface_nodes("lv_endo")]
scar = mesh.centroids_mm[mesh.in_region("scar")]
figure = plt.figure(figsize=(7, 6), layout="constrained")
axes3 = figure.add_subplot(projection="3d")
axes3.scatter(*endo[::8].T, s=1, color="#bbbbbb", label="LV endocardium")
axes3.scatter(*scar[::10].T, s=2, color="#5c4d6b", label="scar")
for circuit in plan.circuits:
    axes3.plot(*np.asarray(circuit.path_mm).T, color="#D55E00", label=f"{circuit.id}, {circuit.cycle_length_ms:.0f} ms")
for target in plan.targets:
    axes3.scatter(*np.asarray(target.positions_mm).T, s=60, color="#0072B2", label=target.id)
axes3.set(xlabel="left, mm", ylabel="back, mm", zlabel="head, mm")
axes3.legend(fontsize=8, frameon=False)
figure.savefig(FIGURES / "plan.png", dpi=120)

# %%
rows = [a for a in plan.alternatives if a.get("volume_ml") is not None]
figure, axis = plt.subplots(figsize=(6, 0.6 + 0.4 * max(len(rows), 1)), layout="constrained")
colours = ["#0072B2" if a.get("non_inducible") else "#999999" for a in rows]
axis.barh([a["strategy"].replace("_", " ") for a in rows], [a["volume_ml"] for a in rows], color=colours)
axis.set_xlabel("lesion volume, mL (blue: nothing inducible afterwards)")
figure.savefig(FIGURES / "alternatives.png", dpi=120)

# %% [markdown]
# ## 4. Out of the program

# %%
files = planners.export(planned, OUT / "overlay", formats=["slicer", "ensite", "csv"])
print(f"{len(files)} overlay files; report: {planned.report}")
