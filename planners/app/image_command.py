"""`vtwin image`: what images say about a heart - scar by every rule, channels, thickness, volumes - as numbers and a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from meshing.label_grid import canonical, crop
from meshing.resample import has_thick_slices, isotropic
from meshing.voxelise import read_segmentation
from planners.app.console import Console
from planners.app.mesh_command import parse_labels
from planners.app.output import claim, finish
from twin.atomic import write_bytes, write_json
from twin.case import load_case
from twin.errors import InputError
from twin.image import CineStack
from twin.imaging.align import put_back, slice_shifts
from twin.imaging.channels import conducting_channels, describe
from twin.imaging.lge import METHODS, Enhancement, classify
from twin.imaging.quantify import quantify
from twin.imaging.radiomics import of_enhancement
from twin.imaging.repair import repair
from twin.imaging.thickness import Thickness, wall_thickness
from twin.imaging.volumes import beat_of_cine, cavity_ml, ventricles
from twin.io.image import read_cine, read_image
from twin.io.labels import check_heart
from twin.io.notes import Notes
from twin.io.nrrd import write_nrrd
from twin.run import RunRecord, content_hash
from twin.volume import LabelVolume


def image(source: Path, out: Path, console: Console, given: dict[str, Path | None], method: str, labels: str | None, fresh: bool) -> int:
    """Write image.json, image.png, labels.nrrd (scar by the chosen rule) and run.json; `given`: lge, ct, cine."""
    if method not in METHODS:
        raise InputError("command line", "--method", f"{method!r} is not known", f"choose one of {', '.join(METHODS)}")
    numbers, accept = parse_labels(labels), ()
    paths = {name: path for name, path in given.items() if path is not None}
    if source.suffix == ".toml":
        case = load_case(source)
        paths = {**case.image_paths, **paths}
        if case.labels_path == case.model_image_path:
            remedy = "run vtwin segment predict, and give its labels.nrrd as [segmentation] file"
            raise InputError(source, "segmentation.file", "is missing: this case has a network in place of labels", remedy)
        source, numbers, accept = case.labels_path, case.labels if numbers is None else numbers, case.accept  # type: ignore[assignment]
    notes = Notes(accept)
    volume = read_segmentation(source, numbers)
    check_heart(volume, source, notes)
    inputs = {"segmentation": content_hash(source), **{name: content_hash(path) for name, path in paths.items()}}
    identity = {"command": "image", "inputs": inputs, "settings": {"method": method, "labels": labels}}
    claim(out, identity, fresh)
    volume, repairs = repair(crop(canonical(volume)))
    value: dict[str, Any] = {"ventricles": ventricles(volume), "repairs": [str(one) for one in repairs]}
    found = None
    if "lge" in paths:
        console.progress("late enhancement by every rule ...")
        lge = read_image(paths["lge"], notes)
        found = classify(lge, volume)
        value["late_enhancement"] = quantify(found, method)
        value["radiomics"] = of_enhancement(found, method)
        drawn = volume.mask("scar", "border_zone", "isthmus").any()
        volume = volume if drawn else found.labels(method)
        value["scar_labels"] = "as drawn" if drawn else f"late enhancement, {method}"
    console.progress("wall thickness and channels ...")
    cubes = _cubes(volume, value)
    thick = wall_thickness(cubes)
    value["thickness"] = {"segments": _segments(thick), "thinned_ml": round(float(thick.thinned().sum()) * cubes.voxel_mm3 / 1000.0, 2)}
    value["channels"] = describe(conducting_channels(cubes))
    if "ct" in paths:
        ridges = thick.ridges()
        value["ridges"] = [
            {**row, "thickness_mm": thick.along(one.polyline_mm).round(2).tolist()} for one, row in zip(ridges, describe(ridges))
        ]
        value["ventricles"]["lv_ml_partial_volume"] = round(cavity_ml(volume, read_image(paths["ct"], notes)), 2)
    if "cine" in paths:
        value["cine"] = [_beat(stack, volume) for stack in read_cine(paths["cine"], notes) if len(stack.slices) > 2]
    value["notes"] = notes.lines
    write_json(out / "image.json", value)
    write_nrrd(out / "labels.nrrd", volume)
    write_bytes(out / "image.png", _picture(found, thick, method))
    finish(out, identity, RunRecord("image", 0, inputs, {"method": method, "labels": labels}).as_dict())
    console.result(value, [*_lines(value), f"wrote {out / 'image.json'} and {out / 'image.png'}"])
    return 0


def _cubes(volume: LabelVolume, value: dict[str, Any]) -> LabelVolume:
    if not has_thick_slices(volume):
        return isotropic(volume)
    shifts = slice_shifts(volume)
    value["repairs"] += shifts.describe()
    return isotropic(put_back(volume, shifts))


def _segments(thick: Thickness) -> dict[str, Any]:
    try:
        return thick.by_segment()
    except InputError as error:
        return {"missing": f"{error.field}: {error.problem}"}


def _beat(stack: CineStack, volume: LabelVolume) -> dict[str, object]:
    try:
        return beat_of_cine(stack, volume).as_dict()
    except InputError as error:
        return {"missing": f"{error.field}: {error.problem}"}


def _lines(value: dict[str, Any]) -> list[str]:
    size = value["ventricles"]
    lines = [f"LV {size['lv_ml']:.1f} mL, RV {size['rv_ml']:.1f} mL, LV mass {size['lv_mass_g']:.0f} g", *value["repairs"]]
    if "late_enhancement" in value:
        lge = value["late_enhancement"]
        lines += [f"{name:9s} core {m['core_g']:6.1f} g  border {m['border_g']:6.1f} g" for name, m in lge["methods"].items()]
        lines.append(f"scar labels: {value['scar_labels']}")
    lines += [f"channel: {c['length_mm']:.0f} mm long, {c['narrowest_mm']:.1f} mm at its narrowest" for c in value["channels"]]
    lines += [f"ridge: {c['length_mm']:.0f} mm long, {c['typical_mm']:.1f} mm wide" for c in value.get("ridges", [])]
    lines += [f"ejection fraction {b['ejection_fraction_percent']:.1f} %" for b in value.get("cine", []) if "missing" not in b]
    return [*lines, *value["notes"]]


def _picture(found: Enhancement | None, thick: Thickness, method: str) -> bytes:
    """Slices of the image with core and border outlined, masses by rule, and thickness in three slices."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.5 if found is not None else 4.2), layout="constrained")
    rows = 2 if found is not None else 1
    axes = figure.subplots(rows, 4, squeeze=False)
    if found is not None:
        _enhancement_row(axes[0], found, method)
    levels = _levels(thick.wall, 3)
    for k, ax in zip(levels, axes[-1]):
        shown = ax.imshow(np.where(thick.wall[:, :, k], thick.mm[:, :, k], np.nan).T, cmap="viridis", vmin=0, vmax=12, origin="lower")
        ax.set_title(f"wall thickness, slice {k}")
    figure.colorbar(shown, ax=list(axes[-1][:3]), label="mm", fraction=0.03)
    mm = thick.mm[np.isfinite(thick.mm)]
    axes[-1][3].hist(mm, bins=40, range=(0, 16), color="#777777")
    axes[-1][3].set_xlabel("wall thickness (mm)")
    axes[-1][3].set_ylabel("voxels")
    for ax in (*axes[0][:3], *axes[-1][:3]):
        ax.set_axis_off()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _levels(mask: np.ndarray, count: int) -> list[int]:
    filled = np.flatnonzero(mask.any(axis=(0, 1)))
    return [int(filled[round(share * (len(filled) - 1))]) for share in np.linspace(0.2, 0.8, count)]


def _enhancement_row(axes: np.ndarray, found: Enhancement, method: str) -> None:
    from matplotlib.lines import Line2D

    one, top = found.methods[method], found.levels.maximum
    mask = one.enhanced if one.enhanced.any() else found.wall
    for k, ax in zip(_levels(mask, 3), axes):
        ax.imshow(found.values[:, :, k].T, cmap="gray", vmin=0, vmax=1.1 * top, origin="lower")
        for part, colour in ((found.wall, "#66bbff"), (one.enhanced, "#ffcc00"), (one.core, "#ff3333")):
            if part[:, :, k].any():
                ax.contour(part[:, :, k].T.astype(float), [0.5], colors=[colour], linewidths=1.0)
        ax.set_title(f"late enhancement, slice {k}")
    handles = [Line2D([], [], color=c, label=n) for c, n in (("#66bbff", "LV wall"), ("#ffcc00", "border zone"), ("#ff3333", "core"))]
    axes[0].legend(handles=handles, fontsize=7, loc="lower left")
    names = list(found.methods)
    core = [found.mass_g(found.methods[n].core) for n in names]
    border = [found.mass_g(found.methods[n].border) for n in names]
    axes[3].barh(names, core, color="#cc3333", label="core")
    axes[3].barh(names, border, left=core, color="#e6b800", label="border zone")
    axes[3].set_xlabel("g")
    axes[3].set_title(f"mass by rule (labels: {method})")
    axes[3].legend(fontsize=7)
