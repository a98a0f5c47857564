"""Plans to a listener for OpenIGTLink: whole, in order, to this machine alone, as another implementation reads them."""

import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay_fixtures import WITHIN_MM, Listener, same_cloud, small_heart, small_plan

from planners.overlay import openigtlink
from twin.atomic import write_json
from twin.errors import InputError, RunFailed
from twin.mesh import SURFACES


@pytest.fixture(scope="module")
def mesh():
    return small_heart()


@pytest.fixture(scope="module")
def plan(mesh):
    return small_plan(mesh)


def test_a_listener_gets_surfaces_and_targets_in_order(mesh, plan):
    listener = Listener()
    listener.start()
    with openigtlink.connected(port=listener.port) as link:
        assert link.send(plan, mesh) == 5
    listener.join(5)
    assert [(kind, device) for kind, device, _ in listener.received] == [*(("POLYDATA", s) for s in SURFACES), ("POINT", "targets")]
    body = listener.received[0][2]
    n, *_, polygons, size, _, _, _ = struct.unpack(">10I", body[:40])
    points = np.frombuffer(body, ">f4", 3 * n, 40).reshape(-1, 3) * [-1, -1, 1]
    faces = np.frombuffer(body, ">u4", size // 4, 40 + 12 * n).reshape(-1, 4)
    assert (len(faces), set(faces[:, 0])) == (polygons, {3})
    assert faces[:, 1:].max() == n - 1
    assert same_cloud(points, mesh.points_mm[mesh.surface_nodes("lv_endo")]) < WITHIN_MM


def test_a_listener_gets_a_hundred_updates_in_order(mesh, plan):
    listener = Listener()
    listener.start()
    with openigtlink.connected(port=listener.port) as link:
        link.send(plan, mesh)
        for k in range(100):
            link.send(replace(plan, targets=[replace(plan.targets[0], id=f"U{k}")]))
        assert link.sent == 105
    listener.join(10)
    updates = [body for kind, device, body in listener.received[5:] if (kind, device) == ("POINT", "targets")]
    assert [struct.unpack(">64s", body[:64])[0].rstrip(b"\0").decode() for body in updates] == [f"U{k}.1" for k in range(100)]


class Recorded(dict):
    """What pyigtl keeps of each device is its newest message: this keeps all of them too, in the order in which they came."""

    def __init__(self):
        super().__init__()
        self.all = []

    def __setitem__(self, name, value):
        self.all.append(value)
        super().__setitem__(name, value)


def test_pyigtl_gets_a_hundred_updates_in_order(plan):
    """The same against an implementation that is not ours (MIT; `pip install pyigtl`): its server reads and its checksums agree."""
    server = pytest.importorskip("pyigtl").OpenIGTLinkServer(port=0, start_now=False)
    received = server.incoming_messages = Recorded()
    server.start()
    try:
        with openigtlink.connected(port=server.server_address[1]) as link:
            link.send(plan)
            for k in range(100):
                link.send(replace(plan, targets=[replace(plan.targets[0], id=f"U{k}")]))
            end = time.monotonic() + 20.0
            while len(received.all) < link.sent and time.monotonic() < end:
                time.sleep(0.01)
    finally:
        server.communication_thread_stop_requested = True
        server.shutdown()
        server.server_close()
    assert [m.device_name for m in received.all] == ["targets"] * 101
    assert [m.names[0] for m in received.all[1:]] == [f"U{k}.1" for k in range(100)]
    expected = np.array([p for t in plan.targets for p in t.positions_mm]) * [-1, -1, 1]
    assert np.abs(np.asarray(received.all[0].positions) - expected).max() < WITHIN_MM


def test_surfaces_are_the_bytes_that_pyigtl_writes(mesh):
    """Its reader of POLYDATA was never tested, as it says, and fails; its writer gives the same bytes as ours."""
    messages = pytest.importorskip("pyigtl").messages
    triangles = mesh.surfaces["lv_endo"]
    used, index = np.unique(triangles, return_inverse=True)
    cells = np.column_stack([np.full(len(triangles), 3), index.reshape(-1, 3)])
    theirs = messages.PolyDataMessage(points=mesh.points_mm[used] * [-1, -1, 1], polygons=cells.ravel())._pack_content()
    assert theirs == openigtlink.surface_body(mesh.points_mm, triangles)


def test_updates_of_guidance_are_streamed_as_they_come(mesh, plan, tmp_path, monkeypatch):
    from planners.app import leave_command
    from planners.app.console import Console

    (tmp_path / "stages" / "mesh-abc").mkdir(parents=True)
    mesh.save(tmp_path / "stages" / "mesh-abc" / "mesh.npz")
    made = replace(plan, run={"stages": {"mesh": "abc"}})
    write_json(tmp_path / "plan.json", made.as_dict())
    monkeypatch.setattr(leave_command, "PERIOD_S", 0.0)
    listener = Listener()
    listener.start()
    left = iter(range(4))

    def until():
        k = next(left, None)
        if k is not None and k < 3:
            write_json(tmp_path / "guidance" / f"{k + 1:04d}" / "plan.json", replace(made, targets=made.targets[: 2 - k % 2]).as_dict())
        return k is None or k == 3

    assert leave_command.stream(tmp_path, "127.0.0.1", listener.port, False, Console(True), True, until) == 0
    listener.join(5)
    assert [len(body) // 136 for kind, _, body in listener.received if kind == "POINT"] == [3, 3, 2, 3]


def test_points_are_what_another_implementation_reads(plan):
    messages = pytest.importorskip("pyigtl").messages
    data = openigtlink.message("POINT", "targets", openigtlink.points_body(plan), 1.5)
    header = messages.MessageBase.parse_header(data[:58])
    assert header["message_type"] == "POINT"
    found = messages.PointMessage()
    found._unpack_content(data[58:])
    expected = np.array([p for t in plan.targets for p in t.positions_mm]) * [-1, -1, 1]
    assert np.abs(np.asarray(found.positions) - expected).max() < WITHIN_MM


def test_the_checksum_is_that_of_ecma_182():
    assert openigtlink.crc64(b"123456789") == 0x6C40DF5F0B497347


@given(st.binary(max_size=64), st.floats(0, 4e9))
def test_a_message_says_its_own_size(body, seconds):
    data = openigtlink.message("STATUS", "x" * 30, body, seconds)
    assert struct.unpack(">Q", data[42:50])[0] == len(body) == len(data) - 58


def test_nothing_leaves_this_machine_unasked(mesh, plan):
    with pytest.raises(InputError, match="--remote"), openigtlink.connected("192.0.2.1"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(RunFailed, match="nothing listens"), openigtlink.connected(port=port):
        pass


def test_what_fails_beside_the_connection_is_not_blamed_on_it(plan):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(FileNotFoundError), openigtlink.connected(port=server.getsockname()[1]):
            Path("/nowhere/plan.json").read_text()
        with openigtlink.connected(port=server.getsockname()[1]) as link:
            link.socket.close()
            with pytest.raises(RunFailed, match="takes no more"):
                link.send(plan)
