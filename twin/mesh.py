"""HeartMesh: the noun that every stage after meshing shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.errors import InputError

REGIONS = {"healthy": 1, "border_zone": 2, "scar": 3, "isthmus": 4, "lesion": 5}
"""Region numbers of tetrahedra. Dense scar and lesions do not conduct; the isthmus is surviving, slow tissue in scar."""

NON_CONDUCTING = ("scar", "lesion")
WALLS = ("lv_endo", "rv_endo", "epi")
"""Surfaces of the muscle from which a catheter reaches it."""

SURFACES = (*WALLS, "base")


def signed_volumes_mm3(points_mm: NDArray[np.float64], tets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Signed volume of each tetrahedron, (m,) mm^3, in blocks: memory stays a few hundred bytes a block element."""
    out = np.empty(len(tets))
    for start in range(0, len(tets), 200_000):
        p = points_mm[tets[start : start + 200_000]]
        cross = np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0])
        out[start : start + 200_000] = np.einsum("ij,ij->i", p[:, 1] - p[:, 0], cross) / 6.0
    return out


@dataclass(frozen=True)
class HeartMesh:
    """Tetrahedral heart in patient space (LPS, mm).

    points_mm (n, 3) float64; tets (m, 4) int32, positively oriented; region (m,) int16, values of `REGIONS`;
    fibre, sheet (m, 3) float64 unit vectors (zeros before the fibre stage);
    surfaces: name -> triangles (k, 3) int32, outward normals;
    coordinates: name -> (n,) float64: apicobasal (0 apex, 1 base), transmural (0 endo, 1 epi), rotational (radians, -pi..pi),
    transventricular (0 LV, 1 RV); aha_segment (n,) int16 (0 = RV or none); quality: numbers of `quality.json`.
    """

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    region: NDArray[np.int16]
    surfaces: Mapping[str, NDArray[np.int32]]
    fibre: NDArray[np.float64]
    sheet: NDArray[np.float64]
    coordinates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    aha_segment: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_points(self) -> int:
        """Number of nodes."""
        return len(self.points_mm)

    @property
    def centroids_mm(self) -> NDArray[np.float64]:
        """Centre of each tetrahedron, (m, 3) mm."""
        return self.points_mm[self.tets].mean(axis=1)

    @property
    def tet_volumes_mm3(self) -> NDArray[np.float64]:
        """Signed volume of each tetrahedron, (m,) mm^3."""
        return signed_volumes_mm3(self.points_mm, self.tets)

    def surface_nodes(self, name: str) -> NDArray[np.int32]:
        """Sorted node numbers of a named surface."""
        return np.unique(self.surfaces[name]).astype(np.int32)

    def in_region(self, *names: str) -> NDArray[np.bool_]:
        """Tetrahedra that belong to any of the named regions, (m,) bool."""
        return np.isin(self.region, [REGIONS[name] for name in names])

    def conducting(self) -> NDArray[np.bool_]:
        """Tetrahedra through which a wave can pass, (m,) bool."""
        return ~self.in_region(*NON_CONDUCTING)

    def with_region(self, tets: NDArray[np.bool_], name: str) -> HeartMesh:
        """A copy in which the marked tetrahedra (m,) belong to another region (a lesion, say)."""
        region = self.region.copy()
        region[tets] = REGIONS[name]
        return replace(self, region=region)

    def check(self, where: str = "mesh") -> None:
        """Raise InputError if indices, shapes, orientation or numbers are impossible."""
        again = "write the mesh again"
        if self.points_mm.shape != (self.n_points, 3) or self.tets.ndim != 2 or self.tets.shape[1] != 4:
            raise InputError(where, "points, tets", f"have shapes {self.points_mm.shape} and {self.tets.shape}", again)
        if self.tets.size == 0 or self.tets.min() < 0 or self.tets.max() >= self.n_points:
            raise InputError(where, "tets", "node numbers out of range", again)
        if not np.isfinite(self.points_mm).all():
            raise InputError(where, "points", "coordinates are not finite", again)
        if (self.tet_volumes_mm3 <= 0).any():
            raise InputError(where, "tets", "inverted or flat tetrahedra", "orient them positively")
        for name, shape in (("region", ()), ("fibre", (3,)), ("sheet", (3,))):
            values = getattr(self, name)
            if values.shape != (len(self.tets), *shape):
                raise InputError(where, name, "one value per tetrahedron is needed", again)
            if not np.isfinite(values).all():
                raise InputError(where, name, "values are not finite", again)
        for name, triangles in self.surfaces.items():
            if triangles.size and (triangles.min() < 0 or triangles.max() >= self.n_points):
                raise InputError(where, f"surface {name}", "node numbers out of range", again)
        for name, values in self.coordinates.items():
            if values.shape != (self.n_points,):
                raise InputError(where, f"coordinate {name}", "one value per node is needed", again)

    def save(self, path: Path) -> None:
        """Write everything to one .npz file, atomically."""
        arrays: dict[str, NDArray[Any]] = {
            "points_mm": self.points_mm,
            "tets": self.tets,
            "region": self.region,
            "fibre": self.fibre,
            "sheet": self.sheet,
            "aha_segment": self.aha_segment,
        }
        arrays |= {f"surface/{name}": tris for name, tris in self.surfaces.items()}
        arrays |= {f"coordinate/{name}": values for name, values in self.coordinates.items()}
        write_npz(path, arrays, {"quality": dict(self.quality)})

    @staticmethod
    def load(path: Path) -> HeartMesh:
        """Read what `save` wrote."""
        arrays, meta = read_npz(path)
        return HeartMesh(
            points_mm=arrays["points_mm"],
            tets=arrays["tets"],
            region=arrays["region"],
            fibre=arrays["fibre"],
            sheet=arrays["sheet"],
            aha_segment=arrays["aha_segment"],
            surfaces={k.split("/")[1]: v for k, v in arrays.items() if k.startswith("surface/")},
            coordinates={k.split("/")[1]: v for k, v in arrays.items() if k.startswith("coordinate/")},
            quality=meta["quality"],
        )
