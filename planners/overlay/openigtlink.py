"""OpenIGTLink: targets and surfaces to a system that listens, as POINT and POLYDATA messages.

Protocol: Tokuda et al., Int J Med Robot 2009;5:423, and the message definitions of openigtlink.org (version 1 header; big-endian).
Positions are sent in RAS mm, as listeners such as 3D Slicer expect; everything inside vtwin is LPS.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.errors import InputError, RunFailed
from twin.mesh import SURFACES, HeartMesh
from twin.plan import Plan

PORT = 18944
"""The port that OpenIGTLink listeners use unless told otherwise."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADER = struct.Struct(">H12s20sQQQ")
_POINT = struct.Struct(">64s32s4B3ff20s")
_POLYDATA = struct.Struct(">10I")
_POLYNOMIAL = 0x42F0E1EBA9EA3693
"""CRC-64 of ECMA-182, as the protocol asks."""


def _crc_table() -> list[int]:
    """The 256 remainders of the checksum."""
    table = []
    for byte in range(256):
        value = byte << 56
        for _ in range(8):
            value = ((value << 1) ^ _POLYNOMIAL if value >> 63 else value << 1) & 0xFFFFFFFFFFFFFFFF
        table.append(value)
    return table


_TABLE = _crc_table()


def crc64(data: bytes) -> int:
    """Checksum of a message's body."""
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFFFFFFFFFFFFFF) ^ _TABLE[(value >> 56) ^ byte]
    return value


def message(kind: str, device: str, body: bytes, seconds: float) -> bytes:
    """One message with its header; seconds: time of sending since 1970, as 32.32 fixed point in the header."""
    stamp = int(seconds) << 32 | int((seconds % 1.0) * (1 << 32))
    return _HEADER.pack(1, kind.encode("ascii"), device.encode("ascii")[:20], stamp, len(body), crc64(body)) + body


def _ras(points_mm: ArrayLike) -> NDArray[np.float32]:
    return (np.asarray(points_mm, float).reshape(-1, 3) * (-1.0, -1.0, 1.0)).astype(np.float32)


def points_body(plan: Plan) -> bytes:
    """Every lesion's place as one POINT element: name is target and number, group is its surface, diameter is the lesion's, mm."""
    rows = []
    for target in plan.targets:
        for number, place in enumerate(_ras(target.positions_mm), 1):
            name, group = f"{target.id}.{number}".encode(), target.surface.encode()
            rows.append(_POINT.pack(name, group, 0, 114, 178, 255, *map(float, place), 2.0 * target.radius_mm, b""))
    return b"".join(rows)


def surface_body(points_mm: NDArray[np.float64], triangles: NDArray[np.int32]) -> bytes:
    """A surface as POLYDATA: points, then polygons as (3, i, j, k)."""
    used, index = np.unique(triangles, return_inverse=True)
    polygons = np.column_stack([np.full(len(triangles), 3), index.reshape(-1, 3)]).astype(">u4")
    head = _POLYDATA.pack(len(used), 0, 0, 0, 0, len(polygons), polygons.nbytes, 0, 0, 0)
    return head + _ras(points_mm[used]).astype(">f4").tobytes() + polygons.tobytes()


def messages(plan: Plan, mesh: HeartMesh | None, surfaces: Sequence[str] = SURFACES) -> Iterator[tuple[str, str, bytes]]:
    """(type, device name, body) of everything that is sent: surfaces first (none without a mesh), then the targets."""
    if mesh is not None:
        for name in surfaces:
            if len(mesh.surfaces[name]):
                yield "POLYDATA", name, surface_body(mesh.points_mm, mesh.surfaces[name])
    yield "POINT", "targets", points_body(plan)


@dataclass
class Link:
    """An open connection to a listener; every `send` is a whole state, in the order of the calls."""

    socket: socket.socket
    sent: int = 0

    def send(self, plan: Plan, mesh: HeartMesh | None = None) -> int:
        """Send the targets, and the surfaces of a mesh if one is given; returns the number of messages.

        Raises RunFailed where the listener has gone.
        """
        count = 0
        for kind, device, body in messages(plan, mesh):
            try:
                self.socket.sendall(message(kind, device, body, time.time()))
            except OSError as error:
                raise RunFailed(f"the listener takes no more ({error.strerror or error}): start it and the stream again") from None
            count += 1
        self.sent += count
        return count


@contextmanager
def connected(host: str = "127.0.0.1", port: int = PORT, remote: bool = False, timeout_s: float = 5.0) -> Iterator[Link]:
    """A connection to a listener, closed at the end.

    Raises InputError for a host that is not this machine unless `remote` says so, and RunFailed if nobody listens.
    """
    if host not in LOOPBACK and not remote:
        raise InputError("command line", "--host", f"{host} is not this machine", "say --remote to send the plan over the network")
    try:
        opened = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise RunFailed(f"nothing listens at {host}:{port} ({error.strerror or error}): start the listener first") from None
    with opened:
        yield Link(opened)
