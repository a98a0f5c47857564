"""A scene that 3D Slicer opens in one go: `scene.mrml` beside the models, the segmentation and the markups that it names.

Format: MRML of 3D Slicer 5 (https://slicer.readthedocs.io, "MRML overview"). Everything inside is LPS mm and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from twin.atomic import write_text

RESEARCH = "vtwin: research software, not a medical device. LPS, mm. Not verified on any vendor's hardware."


@dataclass
class Scene:
    """Nodes of a scene in the order in which they were added; numbers are given by kind."""

    lines: list[str] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)

    def node(self, kind: str, attributes: Mapping[str, str]) -> str:
        """Add a node of a kind and return its identity."""
        self.count[kind] = self.count.get(kind, 0) + 1
        identity = f"vtkMRML{kind}Node{self.count[kind]}"
        words = " ".join(f"{key}={quoteattr(value)}" for key, value in {"id": identity, **attributes}.items())
        self.lines.append(f" <{kind} {words}></{kind}>")
        return identity

    def stored(self, kind: str, storage: str, display: str, name: str, file: str, look: Mapping[str, str]) -> None:
        """A thing that lives in a file: its storage, how it looks, and itself."""
        lps = {"coordinateSystem": "LPS"} if storage != "SegmentationStorage" else {}
        kept = self.node(storage, {"name": f"{name} storage", "fileName": file, **lps})
        shown = self.node(display, {"name": f"{name} display", "visibility": "true", **look})
        self.node(kind, {"name": name, "references": f"display:{shown};storage:{kept};"})

    def write(self, path: Path) -> None:
        """Write the scene, atomically."""
        head = ['<?xml version="1.0" encoding="UTF-8"?>', f"<!-- {RESEARCH} -->", '<MRML version="Slicer5" userTags="">']
        write_text(path, "\n".join([*head, *self.lines, "</MRML>"]) + "\n")


def write_scene(
    path: Path, models: Mapping[str, tuple[str, Sequence[float], float]], segmentation: str, markups: Mapping[str, str]
) -> Path:
    """Write `scene.mrml`; models: name -> (file, colour, opacity); markups: file -> kind. Files are named relative to the scene."""
    scene = Scene()
    for name, (file, colour, opacity) in models.items():
        look = {"color": " ".join(f"{c:g}" for c in colour), "opacity": f"{opacity:g}"}
        scene.stored("Model", "ModelStorage", "ModelDisplay", name, file, look)
    scene.stored("Segmentation", "SegmentationStorage", "SegmentationDisplay", "heart", segmentation, {"opacity": "0.5"})
    for file, kind in markups.items():
        scene.stored(f"Markups{kind}", "MarkupsJsonStorage", "MarkupsDisplay", file.removesuffix(".mrk.json"), file, {})
    scene.write(path)
    return path
