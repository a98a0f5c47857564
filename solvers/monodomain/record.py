"""What is written while a run goes on: voltages at probes, electrocardiograms, frames; each file is good up to its last whole row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes, write_text


class Observer(Protocol):
    """Sees the voltage of the solver's rows every `every_ms`."""

    @property
    def every_ms(self) -> float:
        """Pace, ms; rounded to steps."""

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """v (rows,) mV: read only, and only now."""


class FileObserver(Observer, Protocol):
    """An observer that writes files, and goes on in them after `position` if it was made with one (size, time in ms)."""

    def position(self) -> int:
        """How much is written, all of it handed to the system."""

    def close(self) -> None:
        """Complete and close the files."""


class Traces:
    """Voltage at rows (k,) in memory; row -1: nothing conducts there, NaN."""

    def __init__(self, rows: NDArray[np.integer], every_ms: float) -> None:
        self.rows, self.every_ms = rows, every_ms
        self._times: list[float] = []
        self._values: list[NDArray[np.float64]] = []

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """Keep one sample."""
        if self.rows.size:
            self._times.append(time_ms)
            self._values.append(_at(self.rows, v))

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times (t,) ms and voltages (t, k) mV."""
        return np.array(self._times), np.array(self._values).reshape(len(self._times), len(self.rows))


def _at(rows: NDArray[np.integer], v: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(rows < 0, np.nan, v[np.maximum(rows, 0)].astype(float))


class _Csv:
    """A table that grows at its end; every row is handed over whole. after: bytes to keep and the time of the last row (None: new)."""

    def __init__(self, path: Path, names: Sequence[str], every_ms: float, after: tuple[int, float] | None) -> None:
        self.every_ms = every_ms
        self._file, self._last_ms = _open(path, after)
        if after is None:
            self._file.write((",".join(["time_ms", *names]) + "\n").encode())

    def _write(self, time_ms: float, values: NDArray[np.float64], digits: int) -> None:
        if time_ms > self._last_ms:
            row = ",".join([f"{time_ms:.6f}".rstrip("0").rstrip("."), *(f"{value:.{digits}f}" for value in values)])
            self._file.write(f"{row}\n".encode())
            self._last_ms = time_ms

    def position(self) -> int:
        """Bytes written."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close it."""
        self._file.close()


def _open(path: Path, after: tuple[int, float] | None) -> tuple[IO[bytes], float]:
    """The file, cut to what is to be kept, and the time up to which it is filled."""
    size, last_ms = after or (0, -np.inf)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    file = open(path, "r+b")  # noqa: SIM115 - closed by its owner
    file.truncate(size)
    file.seek(size)
    return file, last_ms


class ProbeFile(_Csv):
    """probes.csv: one column of mV per row of the solver (-1: nothing conducts there)."""

    def __init__(self, path: Path, rows: NDArray[np.integer], every_ms: float, after: tuple[int, float] | None = None) -> None:
        super().__init__(path, [f"probe_{i}" for i in range(len(rows))], every_ms, after)
        self.rows = rows

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """One line."""
        self._write(time_ms, _at(self.rows, v), 4)


class EcgFile(_Csv):
    """ecg.csv: one column of mV per lead. weights: lead -> (rows,) of a lead field, in the solver's order."""

    def __init__(
        self, path: Path, weights: Mapping[str, NDArray[np.float64]], every_ms: float, after: tuple[int, float] | None = None
    ) -> None:
        super().__init__(path, list(weights), every_ms, after)
        self.weights = np.stack(list(weights.values()))

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """One line. A sum in node order, not a threaded product, whose last digits would depend on the threads."""
        self._write(time_ms, np.einsum("lr,r->l", self.weights, v.astype(float)), 6)


class Frames:
    """frames.xdmf with frames_mesh.bin, frames_v.bin and frames_ms.bin: the voltage of every mesh node again and again.

    XDMF over flat files, because ParaView opens it, the mesh is written once (a .vtu per frame would repeat it), appending is the only
    operation, so memory and time per frame do not grow, and a killed run leaves every whole frame readable (an HDF5 file that was not
    closed need not be). The small .xdmf is rewritten, atomically, whenever as many frames again have come as it lists, at every
    `position` and at the end. points_mm (n, 3), tets (m, 4); nodes: mesh node of each of the solver's rows, others are NaN.
    """

    def __init__(
        self,
        folder: Path,
        points_mm: NDArray[np.float64],
        tets: NDArray[np.int32],
        nodes: NDArray[np.int32],
        every_ms: float,
        after: tuple[int, float] | None = None,
    ) -> None:
        self.every_ms, self.folder, self.nodes = every_ms, folder, nodes
        self._n, self._m = len(points_mm), len(tets)
        kept, last_ms = after or (0, -np.inf)
        self._v, self._last_ms = _open(folder / "frames_v.bin", (4 * self._n * kept, last_ms))
        self._ms, _ = _open(folder / "frames_ms.bin", (8 * kept, last_ms))
        self._count, self._listed = kept, kept
        if after is None:
            mesh = np.ascontiguousarray(points_mm, "<f4").tobytes() + np.ascontiguousarray(tets, "<i4").tobytes()
            write_bytes(folder / "frames_mesh.bin", mesh)

    def see(self, time_ms: float, v: NDArray[Any]) -> None:
        """One frame."""
        if time_ms <= self._last_ms:
            return
        whole = np.full(self._n, np.nan, "<f4")
        whole[self.nodes] = v
        self._v.write(whole.tobytes())
        self._ms.write(np.array([time_ms], "<f8").tobytes())
        self._last_ms = time_ms
        self._count += 1
        if self._count >= 2 * self._listed:
            self._list()

    def position(self) -> int:
        """Frames written."""
        self._list()
        return self._count

    def close(self) -> None:
        """List every frame and close."""
        self._list()
        self._v.close()
        self._ms.close()

    def _list(self) -> None:
        self._v.flush()
        self._ms.flush()
        topology, points = (
            _item("Int", 12 * self._n, f"{self._m} 4", "frames_mesh.bin"),
            _item("Float", 0, f"{self._n} 3", "frames_mesh.bin"),
        )
        mesh = f'<Topology TopologyType="Tetrahedron" NumberOfElements="{self._m}">{topology}</Topology>'
        mesh += f'<Geometry GeometryType="XYZ">{points}</Geometry>'
        lines = ['<?xml version="1.0"?>', '<Xdmf Version="2.0"><Domain><Grid Name="vtwin" GridType="Collection" CollectionType="Temporal">']
        for k, time_ms in enumerate(np.fromfile(self.folder / "frames_ms.bin", "<f8")):
            v = _item("Float", 4 * self._n * k, str(self._n), "frames_v.bin")
            values = f'<Attribute Name="v_mv" Center="Node" AttributeType="Scalar">{v}</Attribute>'
            lines.append(f'<Grid Name="v_mv" GridType="Uniform"><Time Value="{time_ms:.9g}"/>{mesh}{values}</Grid>')
        write_text(self.folder / "frames.xdmf", "\n".join([*lines, "</Grid></Domain></Xdmf>", ""]))
        self._listed = self._count


def _item(kind: str, seek: int, dimensions: str, name: str) -> str:
    about = f'NumberType="{kind}" Precision="4" Endian="Little" Seek="{seek}" Dimensions="{dimensions}"'
    return f'<DataItem Format="Binary" {about}>{name}</DataItem>'
