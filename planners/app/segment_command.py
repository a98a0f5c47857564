"""`vtwin segment`: train a network on images and labels, ask it, test it; and phantoms to try it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planners.app.console import Console
from twin.errors import InputError

if TYPE_CHECKING:
    from twin.image import Image
    from twin.imaging.segmentation.model_file import Card

app = typer.Typer(
    help="Labels from images by a trained network; without training of your own it is not for patients.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Replace what is there.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.", min=0)]
Labels = Annotated[str | None, typer.Option(help="Label numbers in the files, lv_blood=1,rv_blood=2,myocardium=3.")]
ModelFile = Annotated[Path, typer.Option("--model", help="Trained network (.safetensors).")]


@app.command()
def phantoms(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for images/ and labels/.")],
    count: Annotated[int, typer.Option(help="How many.", min=2, max=2000)] = 40,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Make short-axis images of virtual hearts with their labels: to try the network, never to train one for patients.

    Example: vtwin segment phantoms -o out/phantoms --count 40
    """
    from planners.virtual.cine_phantom import write_phantoms

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("command line", "-o", f"{out} is not an empty folder", "name a new one")
    console = Console(json)
    paths = write_phantoms(out, count, seed, console.bar)
    console.result({"folder": str(out), "count": len(paths)}, [f"wrote {len(paths)} images and their labels to {out}"])
    return 0


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="images/NAME beside labels/NAME, or NAME beside NAME_labels (NIfTI, NRRD, MHA).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model to write (.safetensors); its card is written beside it.")],
    steps: Annotated[int, typer.Option(help="Batches of 8 slices; 1500 take about a minute on two cores.", min=1, max=1_000_000)] = 1500,
    held_out: Annotated[float, typer.Option(help="Share of the subjects that is held out to test on.", min=0.01, max=0.9)] = 0.2,
    context: Annotated[int, typer.Option(help="Neighbouring slices seen on each side.", min=0, max=4)] = 1,
    pixel: Annotated[str | None, typer.Option(help="In-plane size the network sees, with unit (default: the images' median).")] = None,
    threads: Annotated[int, typer.Option(help="Threads; the same number gives the same weights.", min=1)] = 2,
    labels: Labels = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Train a network on a folder of images and labels, test it on held-out subjects, write it with its card.

    Example: vtwin segment train out/phantoms -o out/model.safetensors
    """
    from datetime import UTC, datetime

    from planners.app.mesh_command import parse_labels
    from twin.imaging.segmentation.train import Settings
    from twin.imaging.segmentation.train import train as learn
    from twin.units import quantity

    if out.suffix != ".safetensors":
        raise InputError("command line", "-o", f"{out.name} is not called .safetensors", "name it MODEL.safetensors")
    if out.exists() and not fresh:
        raise InputError("command line", "-o", f"{out} exists", "name another file or add --fresh")
    pixel_mm = None if pixel is None else quantity(pixel, "mm", "command line", "--pixel")
    if pixel_mm is not None and not 0.3 <= pixel_mm <= 5.0:
        raise InputError("command line", "--pixel", f"{pixel_mm:g} mm", "choose between 0.3 and 5 mm")
    console = Console(json)
    settings = Settings(steps=steps, seed=seed, share=held_out, pixel_mm=pixel_mm, context=context, threads=threads)
    card = learn(folder, out, settings, parse_labels(labels), console.bar, datetime.now(UTC).date().isoformat())
    console.result(card.as_dict(), [*card_lines(card), f"wrote {out} and {out.with_suffix('.md').name}"])
    return 0


def card_lines(card: Card) -> list[str]:
    """What a person should know of a model."""
    return [*_score_lines(card.scores, "held out"), *_score_lines(card.scores_own, "held out, own images"), card.use]


def _score_lines(scores: Any, what: str) -> list[str]:
    return [
        f"{what}: {name:14s} Dice {one['dice']:.3f} (least {one['dice_least']:.3f})  Hausdorff 95 % {_or(one['hausdorff95_mm'])} mm  "
        f"volume {one['volume_bias_ml']:+.1f} mL ({_or(one['volume_bias_percent'])} %)"
        for name, one in scores.items()
    ]


def _or(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="Image: DICOM folder or file, NRRD, NIfTI, MetaImage.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for labels.nrrd, entropy.nrrd and segment.json.")],
    model: ModelFile,
    phase: Annotated[float | None, typer.Option(help="Of a cine: which share of the beat, 0 = R wave.", min=0.0, max=1.0)] = None,
    passes: Annotated[int, typer.Option(help="Views of the image that are averaged, 1 to 8.", min=1, max=8)] = 8,
    seed: Seed = 0,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Label an image, with the uncertainty of every voxel and the mean confidence of every label.

    Example: vtwin segment predict sax.nrrd --model out/model.safetensors -o out/labels
    """
    from planners.app.output import claim, finish
    from planners.virtual.late_enhancement import write_scan
    from twin.atomic import write_json
    from twin.image import Image as Volume
    from twin.imaging.segmentation.case_labels import write_segmented
    from twin.imaging.segmentation.predict import Model, segment
    from twin.run import RunRecord, content_hash

    network, (scan, notes) = Model.load(model), _image(image, phase)
    inputs = {"image": content_hash(image), "model": content_hash(model)}
    identity = {"command": "segment predict", "inputs": inputs, "settings": {"phase": phase, "passes": passes, "seed": seed}}
    claim(out, identity, fresh)
    console = Console(json)
    console.progress(f"segmenting {scan.data.shape[0]} x {scan.data.shape[1]} x {scan.data.shape[2]} voxels ...")
    found = segment(scan, network, seed, passes)
    value: dict[str, Any] = {
        "volumes_ml": {name: round(found.labels.volume_ml(name), 2) for name in network.card.classes[1:]},
        "confidence": found.confidence,
        "mean_entropy_of_heart": round(float(found.entropy[found.labels.data > 0].mean()), 4) if found.labels.data.any() else None,
        "model": {"file": model.name, "use": network.card.use, "scores": network.card.scores},
        "notes": [*notes, *found.notes],
    }
    write_segmented(out / "labels.nrrd", found, network.card.use)
    write_scan(out / "entropy.nrrd", Volume(found.entropy, found.labels.affine))
    write_json(out / "segment.json", value)
    finish(out, identity, RunRecord("segment predict", seed, inputs, identity["settings"]).as_dict())  # type: ignore[arg-type]
    lines = [f"{name:14s} {ml:7.1f} mL  confidence {found.confidence.get(name, 0.0):.3f}" for name, ml in value["volumes_ml"].items()]
    console.result(value, [*lines, *value["notes"], network.card.use, f"wrote {out / 'labels.nrrd'} and {out / 'entropy.nrrd'}"])
    return 0


def _image(path: Path, phase: float | None) -> tuple[Image, list[str]]:
    """A still image, or one time of a cine; and what its reader noted."""
    from twin.io.image import read_cine, read_image
    from twin.io.notes import Notes

    notes = Notes()
    if phase is None:
        return read_image(path, notes), notes.lines
    stacks = [stack for stack in read_cine(path, notes) if len(stack.slices) > 1] or list(read_cine(path, notes))
    return stacks[0].at(phase), notes.lines


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(help="Folder of images and labels (with --model), or labels (with --truth).")],
    model: Annotated[Path | None, typer.Option("--model", help="Trained network to ask for every image.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Labels that are taken as right, on the same grid.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File for the numbers of every image (.json).")] = None,
    labels: Labels = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    json: Json = False,
) -> int:
    """Dice, Hausdorff distance and volume bias: of a network on a folder, or of one segmentation against another.

    Example: vtwin segment evaluate out/phantoms --model out/model.safetensors
    """
    from planners.app.mesh_command import parse_labels
    from twin.atomic import write_json
    from twin.imaging.segmentation.evaluate import against, of_model
    from twin.imaging.segmentation.metrics import summary

    if (model is None) is (truth is None):
        raise InputError(
            "command line", "--model", "one of --model and --truth is needed", "give --model with a folder, --truth with labels"
        )
    if out is not None and out.exists() and not fresh:
        raise InputError("command line", "-o", f"{out} exists", "name another file or add --fresh")
    console, numbers = Console(json), parse_labels(labels)
    if truth is not None:
        rows, use = {source.name: against(source, truth, numbers)}, ""
    else:
        assert model is not None
        rows, use = of_model(source, model, numbers, seed, console.bar)
    value = {"summary": summary(list(rows.values())), "images": [_as_dict(name, row) for name, row in rows.items()], "use": use}
    if out is not None:
        write_json(out, value)
    console.result(value, [*_score_lines(value["summary"], f"{len(rows)} images"), *([use] if use else [])])
    return 0


def _as_dict(name: str, row: Any) -> dict[str, Any]:
    return {
        "image": name,
        **{
            structure: {
                "dice": round(one.dice, 4),
                "hausdorff95_mm": one.hausdorff95_mm,
                "found_ml": round(one.found_ml, 3),
                "true_ml": round(one.true_ml, 3),
            }
            for structure, one in row.items()
        },
    }
