"""A small heart with a plan, and a listener for OpenIGTLink: for tests of what leaves the program."""

import socket
import struct
import threading

from analytic_hearts import ventricles

from meshing.anatomy import complete
from planners.overlay import openigtlink
from twin.plan import Circuit, Plan, Target

WITHIN_MM = 0.01


def small_heart():
    """Two ventricles of 5 mm with a scarred apex."""
    heart = complete(ventricles(5.0))
    apical = heart.coordinates["apicobasal"][heart.tets].mean(axis=1) < 0.3
    return heart.with_region(apical, "scar")


def small_plan(mesh):
    """One circuit, two targets with three lesions on two surfaces."""
    endo, epi = (mesh.points_mm[mesh.surface_nodes(name)] for name in ("lv_endo", "epi"))
    circuit = Circuit("VT1", 340.0, endo[:6].tolist(), endo[:3].tolist(), 6.0, endo[0].tolist(), endo[2].tolist(), 7)
    targets = [
        Target("T1", endo[:2].tolist(), "lv_endo", 4.0, 6.0, 1, 'cuts, "VT1"', ("VT1",)),
        Target("T2", epi[:1].tolist(), "epi", 3.0, 5.0, 2, "exit", ("VT1",)),
    ]
    return Plan({"name": "test"}, {}, {}, [], [circuit], targets, [], {}, [], {})


class Listener(threading.Thread):
    """Takes every message of one connection: (type, device, body), checked against its checksum."""

    def __init__(self):
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.received = []

    def run(self):
        link, _ = self.server.accept()
        with link, link.makefile("rb") as stream:
            while head := stream.read(58):
                _, kind, device, _, size, crc = struct.unpack(">H12s20sQQQ", head)
                body = stream.read(size)
                assert openigtlink.crc64(body) == crc
                self.received.append((kind.rstrip(b"\0").decode(), device.rstrip(b"\0").decode(), body))


def same_cloud(found, expected):
    """Largest distance from each point of one cloud to the nearest of the other, both ways."""
    from scipy.spatial import cKDTree

    return max(cKDTree(found).query(expected)[0].max(), cKDTree(expected).query(found)[0].max())
