"""What identifies a person stays in the inputs: names of cases and files are shown as what they are, unless the user asks otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from string import ascii_letters
from typing import Any

from twin.case import Case
from twin.patient import Evidence, Patient
from twin.run import content_hash

IDENTIFIED = "This output is identified (--identified): it names the case and its files."

_PLAIN = """
activation anatomy annotations bivme cardiac case cine contrast contours ct data demo dicom eam ecg electrograms endo enhancement epi
export facts folder heart image images infarct la label labels late lge lv map mapping mask mesh mr mri patient points polygons qrs rec
record recorded reports rv scar seg segmentation short signals sinus stack strocchi study surface vt wall
"""
PLAIN = frozenset(_PLAIN.split())
"""Words of which a file's name may be made without naming anybody; digits beside them are allowed up to three."""

LEAST = 3
"""Shorter parts of a name are not looked for in texts: they are in every word (of Latin letters; in other scripts two are a whole name)."""


def _speaks(stem: str) -> bool:
    """True if a name is made of plain words and small numbers only; of other scripts no word is known to be plain."""
    if not stem.isascii():
        return False
    words = [w for w in re.split(r"[^a-z]+", stem.lower()) if w]
    return all(w in PLAIN for w in words) and not re.search(r"\d{4,}", stem)


def _is_name(stem: str) -> bool:
    """True if it may name somebody, and is long enough to be looked for."""
    return not _speaks(stem) and (len(stem) >= LEAST or not stem.isascii())


def _paths(value: Any, kind: str = "") -> Iterator[tuple[str, Path]]:
    """(kind, path) of everything that a case names, its own file and folder too."""
    if isinstance(value, Path):
        yield kind, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item, kind)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from _paths(getattr(value, entry.name), entry.name.removesuffix("_path").replace("labels", "segmentation"))


class Names:
    """Names of files that may name a person, and what is written in their place."""

    def __init__(self, case: Case) -> None:
        self.instead: dict[str, str] = {}
        for kind, path in _paths(case):
            suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
            stem = path.name.removesuffix(suffix)
            if _is_name(stem):
                label = "case" if kind == "path" else kind
                self.instead[path.name] = f"{label}{suffix}"
                self.instead.setdefault(stem, label)
            folder = path.parent.name
            if _is_name(folder):
                self.instead.setdefault(f"{folder}/", "")

    def text(self, text: str) -> str:
        """The text without those names, the longest first; words that merely hold the letters of one ("time" for Tim) stay."""
        for name in sorted(self.instead, key=len, reverse=True):
            begin = r"(?<![A-Za-z])" if name[0] in ascii_letters else ""
            end = r"(?![A-Za-z])" if name[-1] in ascii_letters else ""
            text = re.sub(begin + re.escape(name) + end, self.instead[name].replace("\\", r"\\"), text)
        return text

    def patient(self, patient: Patient) -> Patient:
        """The same evidence with sources and notes that name nobody."""
        changed: dict[str, Any] = {"notes": tuple(self.text(n) for n in patient.notes)}
        for entry in fields(patient):
            item = getattr(patient, entry.name)
            if isinstance(item, Evidence):
                changed[entry.name] = replace(item, source=self.text(item.source), quality=self.text(item.quality))
        return replace(patient, **changed)


def hidden(case: Case, identified: bool = False) -> Case:
    """The case under a name made of its segmentation's content, its recorded VTs by number; as it is if virtual, or if asked for."""
    if identified or case.virtual:
        return case
    vts = tuple({**vt, "name": f"VT {k + 1}"} for k, vt in enumerate(case.clinical))
    return replace(case, name=f"patient-{content_hash(case.labels_path)[:8]}", note="", clinical=vts)


def without_names(case: Case, patient: Patient, identified: bool = False) -> Patient:
    """A patient whose sources and notes name nobody; with `identified` as it is, and it says so."""
    if identified:
        return replace(patient, notes=(*patient.notes, IDENTIFIED))
    return replace(Names(case).patient(patient), name=hidden(case).name)


def without_names_said(case: Case, tell: Callable[[str], None], identified: bool = False) -> Callable[[str], None]:
    """`tell`, but what is said names nobody."""
    names = Names(case)
    return tell if identified else lambda line: tell(names.text(line))
