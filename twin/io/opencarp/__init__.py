"""openCARP's files: meshes (.pts .elem .lon, text or binary), fields (.dat .vtx .surf), grids in time (.igb), parameters (.par).

Facts from openCARP's public manual (https://opencarp.org/documentation, file formats) and from files that it wrote.
"""

from twin.io.opencarp.elements import ELEMENTS
from twin.io.opencarp.fields import read_dat, read_surf, read_vtx, write_dat, write_surf, write_vtx
from twin.io.opencarp.igb import Igb, read_igb, write_igb
from twin.io.opencarp.mesh import BINARY, TEXT, CarpMesh, exists, prefix_of, read, write
from twin.io.opencarp.par import format_par, parse_par

__all__ = [
    "BINARY",
    "ELEMENTS",
    "TEXT",
    "CarpMesh",
    "Igb",
    "exists",
    "format_par",
    "parse_par",
    "prefix_of",
    "read",
    "read_dat",
    "read_igb",
    "read_surf",
    "read_vtx",
    "write",
    "write_dat",
    "write_igb",
    "write_surf",
    "write_vtx",
]
