"""What `vtwin inspect` knows: one line for each kind of file, with how it is told by its name or first bytes and what reads it.

A reader is named as `module:function`, imported only when it is needed. It takes a path and returns one of the nouns that
`inspect_values` describes (label volume, image, cine stack, surface, mesh, map, electrocardiogram, Findings), or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Sniff = Callable[[Path, bytes], bool]


@dataclass(frozen=True)
class Findings:
    """What a file is, facts (plain values that JSON holds, no identifiers), what is doubtful, and something to draw (or None)."""

    what: str
    facts: Mapping[str, Any]
    suspicious: tuple[str, ...] = ()
    shown: Any = None


@dataclass(frozen=True)
class Kind:
    """name: what a file of this kind is called; is_one: by path and first bytes (empty for a folder); read: `module:function`."""

    name: str
    is_one: Sniff
    read: str

    def reader(self) -> Callable[[Path], Any]:
        """The function that reads it."""
        module, _, function = self.read.partition(":")
        found: Callable[[Path], Any] = getattr(import_module(module), function)
        return found


def ends(*suffixes: str) -> Sniff:
    """By the end of the name, in any case."""
    return lambda path, start: bool(start) and path.name.lower().endswith(suffixes)


def starts(*magic: bytes) -> Sniff:
    """By the first bytes."""
    return lambda path, start: start.startswith(magic)


def holds(*names: str) -> Sniff:
    """A folder that holds files of these patterns, one of each."""
    return lambda path, start: path.is_dir() and all(any(path.glob(name)) for name in names)


def says(text: str) -> Sniff:
    """By a line among the first bytes."""
    return lambda path, start: text.encode() in start


def _nifti(path: Path, start: bytes) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz")) or start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c")


def _dicom(path: Path, start: bytes) -> bool:
    return start[128:132] == b"DICM"


def _dicom_folder(path: Path, start: bytes) -> bool:
    if not path.is_dir():
        return False
    for file in sorted(p for p in path.rglob("*") if p.is_file())[:50]:
        with open(file, "rb") as handle:
            if handle.read(132)[128:] == b"DICM":
                return True
    return False


def _mat(path: Path, start: bytes) -> bool:
    return start.startswith((b"MATLAB 5.0", b"MATLAB 7.3")) or (path.name.lower().endswith(".mat") and start.startswith(b"\x89HDF"))


def _study(path: Path, start: bytes) -> bool:
    """An export of a mapping system: only folders, archives, XML and CSV are looked into."""
    if start and not (start.startswith((b"PK", b"7z")) or path.name.lower().endswith((".xml", ".csv"))):
        return False
    from planners.app.inspect_study import is_study

    return is_study(path, start)


VALUES, DATA, SIGNALS = "planners.app.inspect_values", "planners.app.inspect_data", "planners.app.inspect_signals"
KINDS: tuple[Kind, ...] = (
    Kind("volume (NRRD)", starts(b"NRRD"), f"{VALUES}:read_volume_file"),
    Kind("volume (NIfTI-1)", _nifti, f"{VALUES}:read_volume_file"),
    Kind("volume (MetaImage)", ends(".mha", ".mhd"), f"{VALUES}:read_volume_file"),
    Kind("electrocardiogram (DICOM)", says("1.2.840.10008.5.1.4.1.1.9.1."), f"{SIGNALS}:electrocardiogram"),
    Kind("DICOM file", _dicom, f"{VALUES}:read_dicom_path"),
    Kind("folder of a run", holds("run.json"), f"{DATA}:run_folder"),
    Kind("openCARP experiment", holds("*.par"), f"{DATA}:par_folder"),
    Kind("study of a mapping system", _study, "planners.app.inspect_study:read_study_file"),
    Kind("OpenEP study", _mat, "planners.app.inspect_study:read_study_file"),
    Kind("DICOM folder", _dicom_folder, f"{VALUES}:read_dicom_path"),
    Kind("folder", lambda path, start: path.is_dir(), f"{DATA}:folder"),
    Kind("surface", ends(".vtp", ".ply", ".stl", ".obj"), "twin.io.surfaces:read_surface"),
    Kind("mesh", ends(".vtu", ".vtk", ".msh", ".exo", ".e", ".ex2", ".g"), "twin.io.convert:read_mesh"),
    Kind("openCARP mesh", ends(".pts", ".elem", ".lon", ".bpts", ".belem", ".blon"), f"{DATA}:carp_mesh"),
    Kind("openCARP grid in time (IGB)", ends(".igb"), f"{DATA}:igb"),
    Kind("openCARP parameters", ends(".par"), f"{DATA}:par"),
    Kind("openCARP node list", ends(".vtx"), f"{DATA}:vtx"),
    Kind("openCARP values", ends(".dat"), f"{DATA}:dat"),
    Kind("openCARP surface", ends(".surf"), f"{DATA}:surf"),
    Kind("NPZ bundle", ends(".npz"), f"{DATA}:npz"),
    Kind("activation map (CSV)", says("# vtwin-eam"), "twin.io.eam:read_eam"),
    Kind("electrocardiogram (CSV)", says("# vtwin-ecg"), f"{SIGNALS}:electrocardiogram"),
    Kind("electrocardiogram (WFDB)", ends(".hea"), f"{SIGNALS}:electrocardiogram"),
    Kind("electrocardiogram (HL7 aECG)", says("AnnotatedECG"), f"{SIGNALS}:electrocardiogram"),
    Kind("case or experiment", ends(".toml"), f"{DATA}:toml"),
    Kind("JSON", ends(".json"), f"{DATA}:json_file"),
)
"""In the order in which they are tried."""


def kind_of(path: Path, start: bytes) -> Kind | None:
    """The first kind that fits, or None."""
    return next((kind for kind in KINDS if kind.is_one(path, start)), None)
