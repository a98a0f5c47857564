"""Damaged studies: truncated, wrong counts, wrong encoding, exchanged columns, NaN, huge counts, bombs, names that lead out.

Each damaged file ends in an InputError within bounded time and memory, or reads as the undamaged one does: damage is never taken for
data. Where a format has no checksum, a digit that changes into another likely digit cannot be seen by anyone; such damage is not made.
"""

from __future__ import annotations

import io
import re
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from study_fixtures import shell, study
from test_carto import members, pack
from test_ensite import write_x
from test_openep import legacy, to_hdf5

from twin.errors import InputError
from twin.io import mat
from twin.io.carto import read_carto, write_carto
from twin.io.ensite import write_ensite
from twin.io.notes import Notes
from twin.io.openep import WANTED, read_openep, study_of, write_openep
from twin.io.studies import read_study
from twin.study import MappingStudy

QUICK, ROUNDS = 12, 200
SECONDS, MEGABYTES = 5.0, 200.0
FIELDS = ("points_mm", "lat_ms", "bipolar_mv", "unipolar_mv", "surface_mm", "reference_ms", "map_ms", "window_ms")
NUMBER = re.compile(rb"(?<![\w.-])-?\d+\.?\d*(?![\w.])")
COUNT = re.compile(rb"(?<![\w.-])\d{1,5}(?![\w.])")
Damage = Callable[[bytes, np.random.Generator], bytes]


def replaced(data: bytes, pattern: re.Pattern[bytes], new: bytes, rng: np.random.Generator) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data[: len(data) // 2]
    one = found[int(rng.integers(len(found)))]
    return data[: one.start()] + new + data[one.end() :]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(len(data) * rng.uniform(0.02, 0.95))]


def line_lost(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[int(rng.integers(len(lines)))]
    return b"".join(lines)


def columns_exchanged(data: bytes, rng: np.random.Generator) -> bytes:
    """A line cut in the middle and put together the other way round."""
    lines = data.splitlines(keepends=True)
    # of a line with one number other digits would come, which no reader can see
    wide = [k for k, line in enumerate(lines) if len(re.split(rb"[\s,]+", line.strip())) > 2]
    k = wide[int(rng.integers(len(wide)))]
    half = len(lines[k]) // 2
    # a cut between numbers leaves a row of as many numbers, exchanged: without a checksum nobody sees it
    while half < len(lines[k]) - 1 and not lines[k][half - 1 : half + 1].isalnum():
        half += 1
    lines[k] = lines[k][half:].rstrip() + lines[k][:half] + b"\n"
    return b"".join(lines)


TEXT: dict[str, Damage] = {
    "truncated": truncated,
    "line lost": line_lost,
    "nan": lambda d, r: replaced(d, NUMBER, r.choice([b"nan", b"inf", b"1e999", b"-nan"]), r),
    "huge": lambda d, r: replaced(d, COUNT, b"999999999999", r),
    "negative": lambda d, r: replaced(d, COUNT, b"-7777777", r),
    "text for a number": lambda d, r: replaced(d, NUMBER, b"abc", r),
    "utf-16": lambda d, r: d.decode("latin-1").encode("utf-16"),
    "zero bytes": lambda d, r: d[: (k := int(r.integers(len(d))))] + b"\0\0\0" + d[k:],
    "columns exchanged": columns_exchanged,
    "entities": lambda d, r: b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">]>' + d,
    "empty": lambda d, r: b"",
    "another file": lambda d, r: bytes(r.integers(0, 256, 3000, dtype=np.uint8)),
}


def some_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 20))):
        out[int(rng.integers(len(out)))] = int(rng.integers(256))
    return bytes(out)


BINARY: dict[str, Damage] = {
    "truncated": truncated,
    "bytes": some_bytes,
    "counts": lambda d, r: d[: (k := int(r.integers(128, len(d) - 8)))] + b"\xff\xff\xff\x7f" + d[k + 4 :],
    "inserted": lambda d, r: d[: (k := int(r.integers(len(d))))] + bytes(r.integers(0, 256, 9, dtype=np.uint8)) + d[k:],
    "lost": lambda d, r: d[: (k := int(r.integers(len(d) - 40)))] + d[k + int(r.integers(1, 40)) :],
    "another file": lambda d, r: d[:128] + bytes(r.integers(0, 256, 3000, dtype=np.uint8)),
}


def values(found: MappingStudy) -> list[np.ndarray]:
    """Everything that a study says, electrograms included."""
    out = [getattr(found, name) for name in FIELDS] + [found.point_ids]
    if found.surface is not None:
        out += [found.surface.points_mm, found.surface.triangles]
        out += [v for k, v in sorted(found.surface.point_data.items()) if k.endswith(("_ms", "_mv"))]
    for _, recording in found.electrograms():
        out += [recording.channels[name] for name in sorted(recording.channels)]
    return [np.asarray(v, np.float64) for v in out]


def unchanged(found: list[np.ndarray], original: list[np.ndarray]) -> bool:
    """Equal, or lacking a value: a cell without number is a value that was not measured in every one of these formats."""
    return len(found) == len(original) and all(
        a.shape == b.shape and bool(((a == b) | (np.isnan(a) & (np.isnan(a).sum() <= np.isnan(b).sum() + 3))).all())
        for a, b in zip(found, original, strict=True)
    )


def judged(read: Callable[[], MappingStudy], original: list[np.ndarray], what: str) -> bool:
    """Whether an error was raised; fails on silent acceptance, other exceptions, and on time and memory out of bounds."""
    begin = time.process_time()
    try:
        found = values(read())
    except InputError:
        return True
    finally:
        assert time.process_time() - begin < SECONDS, what
    assert unchanged(found, original), f"{what}: read as other data"
    return False


def members_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def text_rounds(tmp_path: Path, files: dict[str, bytes], as_zip: bool, rounds: int, seed: int) -> None:
    """Damage one member after another, every kind in turn."""
    target = tmp_path / ("s.zip" if as_zip else "s")

    def write(changed: dict[str, bytes]) -> None:
        if as_zip:
            pack(target, changed)
        else:
            put(target, changed)

    write(files)
    original = values(read_study(target))
    rng = np.random.default_rng(seed)
    # members of one kind are alike: each kind is hit as often as any other
    kinds: dict[str, list[str]] = {}
    for name in files:
        kinds.setdefault(re.sub(r"\d+", "", name), []).append(name)
    noticed = 0
    for k in range(rounds):
        kind = list(TEXT)[k % len(TEXT)]
        group = kinds[list(kinds)[int(rng.integers(len(kinds)))]]
        name = group[int(rng.integers(len(group)))]
        damaged = TEXT[kind](files[name], rng)
        write(files | {name: damaged} if as_zip else {name: damaged})
        noticed += judged(lambda: read_study(target), original, f"{name}: {kind} ({k})")
        if not as_zip:
            put(target, {name: files[name]})
    assert noticed > 0.4 * rounds


def carto_files(tmp_path: Path) -> dict[str, bytes]:
    write_carto(tmp_path / "made.zip", study(24, 40, 1150, False))
    return members(tmp_path / "made.zip")


def ensite_files(tmp_path: Path) -> dict[str, bytes]:
    write_ensite(tmp_path / "made", study(24, 40, 1150))
    return members_of(tmp_path / "made")


def ensite_x_files(tmp_path: Path) -> dict[str, bytes]:
    write_x(tmp_path / "made", study(24, 40, 1150))
    return members_of(tmp_path / "made")


def legacy_files(tmp_path: Path) -> dict[str, bytes]:
    legacy(tmp_path / "a.vtk", shell(60), "text")
    return {"a.vtk": (tmp_path / "a.vtk").read_bytes()}


MAKERS = {"carto": (carto_files, True), "ensite": (ensite_files, False), "ensite_x": (ensite_x_files, False)}


@pytest.mark.parametrize("name", MAKERS)
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    make, as_zip = MAKERS[name]
    text_rounds(tmp_path, make(tmp_path), as_zip, QUICK, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_two_hundred_damaged_files(tmp_path: Path, name: str) -> None:
    make, as_zip = MAKERS[name]
    text_rounds(tmp_path, make(tmp_path), as_zip, ROUNDS, 2)


def zip_rounds(tmp_path: Path, rounds: int) -> None:
    """Damage of the archive itself: its checksums find every bit."""
    data = pack(tmp_path / "s.zip", carto_files(tmp_path)).read_bytes()
    original = values(read_carto(tmp_path / "s.zip"))
    rng = np.random.default_rng(3)
    for k in range(rounds):
        kind = list(BINARY)[k % len(BINARY)]
        (tmp_path / "s.zip").write_bytes(BINARY[kind](data, rng))
        judged(lambda: read_study(tmp_path / "s.zip"), original, f"zip: {kind} ({k})")


def test_damaged_archives(tmp_path: Path) -> None:
    zip_rounds(tmp_path, QUICK)


@pytest.mark.slow
def test_two_hundred_damaged_archives(tmp_path: Path) -> None:
    zip_rounds(tmp_path, ROUNDS)


def seven_zip_rounds(tmp_path: Path, rounds: int) -> None:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(tmp_path / "s.7z", "w") as archive:
        for name, data in carto_files(tmp_path).items():
            archive.writestr(data, name)
    data = (tmp_path / "s.7z").read_bytes()
    original = values(read_carto(tmp_path / "s.7z"))
    rng = np.random.default_rng(4)
    for k in range(rounds):
        kind = list(BINARY)[k % len(BINARY)]
        (tmp_path / "s.7z").write_bytes(BINARY[kind](data, rng))
        judged(lambda: read_study(tmp_path / "s.7z"), original, f"7z: {kind} ({k})")


def test_a_damaged_seven_zip(tmp_path: Path) -> None:
    seven_zip_rounds(tmp_path, 1)


@pytest.mark.slow
def test_two_hundred_damaged_seven_zips(tmp_path: Path) -> None:
    seven_zip_rounds(tmp_path, ROUNDS)


def mat_rounds(tmp_path: Path, version: str, rounds: int, in_child: bool) -> None:
    """MATLAB files have no checksum beyond zlib's: only damage that breaks the structure must be noticed."""
    path = tmp_path / "s.mat"
    write_openep(path, study(24, 40, 1150))
    if version == "7.3":
        to_hdf5(path, tmp_path / "h.mat")
        path = tmp_path / "h.mat"
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    read = (lambda: read_openep(path)) if in_child else (lambda: study_of(in_process(path), path, Notes()))
    original = values(read())
    for k in range(rounds):
        kind = list(BINARY)[k % len(BINARY)]
        path.write_bytes(BINARY[kind](data, rng))
        begin = time.monotonic()
        try:
            found = values(read())
        except InputError:
            continue
        finally:
            assert time.monotonic() - begin < 60.0
        if version == "7":
            assert unchanged(found, original), f"{kind} ({k})"


def in_process(path: Path) -> mat.MatFields:
    """The child's work here; what it would turn into a line is an InputError."""
    try:
        return mat.MatFields({name: np.asarray(v) for name, v in mat.load(path, "userdata", WANTED)})
    except Exception as error:
        raise InputError(path, "file", type(error).__name__, "export again") from None


def test_damaged_matlab_files(tmp_path: Path) -> None:
    mat_rounds(tmp_path, "7", 2 * QUICK, False)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["7", "7.3"])
def test_two_hundred_damaged_matlab_files(tmp_path: Path, version: str) -> None:
    mat_rounds(tmp_path, version, ROUNDS, True)


def vtk_rounds(tmp_path: Path, rounds: int) -> None:
    files = legacy_files(tmp_path)
    path = tmp_path / "a.vtk"
    original = values(read_study(path))
    rng = np.random.default_rng(6)
    for k in range(rounds):
        kind = list(TEXT)[k % len(TEXT)]
        path.write_bytes(TEXT[kind](files["a.vtk"], rng))
        judged(lambda: read_study(path), original, f"vtk: {kind} ({k})")


def test_damaged_surfaces(tmp_path: Path) -> None:
    vtk_rounds(tmp_path, QUICK)


@pytest.mark.slow
def test_two_hundred_damaged_surfaces(tmp_path: Path) -> None:
    vtk_rounds(tmp_path, ROUNDS)


def test_huge_claims_take_no_memory(tmp_path: Path) -> None:
    """Counts of a header, sizes of an archive, lines without end: refused before anything of that size is made."""
    files = carto_files(tmp_path)
    mesh = next(name for name in files if name.endswith(".mesh"))
    claims = {
        "vertices": files | {mesh: re.sub(rb"NumVertex\s*= \d+", b"NumVertex = 4999999", files[mesh])},
        "triangles": files | {mesh: re.sub(rb"NumTriangle\s*= \d+", b"NumTriangle = 99999999999999999999", files[mesh])},
        "points": files | {"Study 1.xml": re.sub(rb'CartoPoints Count="\d+"', b'CartoPoints Count="900000000"', files["Study 1.xml"])},
        "depth": files | {"Study 1.xml": b"<Study><Maps>" + b"<a>" * 100_000},
        "a point of 5 MB": files | {next(n for n in files if n.endswith("_Point_Export.xml")): b" " * 5_000_000},
    }
    for name, changed in claims.items():
        path = pack(tmp_path / "s.zip", changed)
        tracemalloc.start()
        with pytest.raises(InputError):
            read_carto(path)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert peak < MEGABYTES, f"{name}: {peak:.0f} MB"


def test_links_and_folders_of_a_folder(tmp_path: Path) -> None:
    """A link that leads out of an export is not followed."""
    secret = tmp_path / "secret_car.txt"
    secret.write_text("VERSION_6_0 x\n")
    folder = tmp_path / "export"
    put(folder, carto_files(tmp_path))
    expected = values(read_carto(folder))
    (folder / "1-LV_car.txt").unlink()
    (folder / "1-LV_car.txt").symlink_to(secret)
    assert any("no car.txt" in line for line in read_carto(folder).notes)
    assert len(expected) > 10


def test_a_bomb_in_a_bomb(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.mesh", b"#TriangulatedMeshVersion2.0\n" + b" " * 20_000_000)
        archive.writestr("Study.xml", b"<Study><Maps>" + b'<Map Name="a" FileNames="1.mesh"><CartoPoints Count="0"/></Map></Maps></Study>')
    path = pack(tmp_path / "s.zip", {"a.zip": inner.getvalue()})
    begin = time.process_time()
    with pytest.raises(InputError):
        read_carto(path, "a")
    assert time.process_time() - begin < SECONDS
