"""A finished heart on disk: the folder or the file that a command of vtwin left."""

from __future__ import annotations

import zipfile
from pathlib import Path

from twin.errors import InputError
from twin.mesh import HeartMesh


def read_heart(path: Path) -> HeartMesh:
    """The mesh in an .npz file, or in a folder with heart.npz (`vtwin mesh`) or one finished mesh stage (`vtwin plan`).

    Raises InputError for what is not there, is damaged, or has no fibres and coordinates.
    """
    file = _file_of(path)
    try:
        mesh = HeartMesh.load(file)
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        raise InputError(file, "file", "is not a heart mesh of vtwin, or it is damaged", "make it again with vtwin mesh") from None
    mesh.check(str(file))
    if not mesh.coordinates:
        raise InputError(file, "coordinates", "are missing", "make it again with vtwin mesh")
    return mesh


def _file_of(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(path, "file", "does not exist", "name a folder that vtwin mesh or vtwin plan wrote")
    if (path / "heart.npz").is_file():
        return path / "heart.npz"
    stages = sorted(path.glob("stages/mesh-*/mesh.npz"))
    if len(stages) != 1:
        problem = "holds no heart mesh" if not stages else f"holds {len(stages)} meshes"
        raise InputError(path, "folder", problem, "name a folder that vtwin mesh or vtwin plan wrote, or one .npz of it")
    return stages[0]
