"""Exports of mapping systems as they arrive: a folder, a zip, a zip in a zip, 7-Zip under either name. Names and sizes are checked first.

Members are opened one at a time and never read beyond what they claim. A 7-Zip archive is unpacked by a child process with bounded
memory, time and disk, into a temporary folder that goes with the reader.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from twin.errors import InputError
from twin.io.source import DEFLATE_LIMIT, file_size

MAX_FILES = 500_000
MAX_TOTAL_BYTES = 100_000_000_000
MAX_MEMBER_BYTES = 2_000_000_000
MAX_UNPACKED_BYTES = 30_000_000_000
"""What a 7-Zip archive or a zip within a zip may take on the disk while it is read."""

SEVEN_ZIP_MAGIC = b"7z\xbc\xaf\x27\x1c"
ZIP_MAGIC = (b"PK\3\4", b"PK\5\6")
AGAIN = "export or copy it again"
CHILD_MEMORY = 3_000_000_000
CHILD_SECONDS = 1800.0
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError, MemoryError)


@dataclass
class StudyFiles:
    """Files of a study by their plain names (no folders); `where` is what the user named, for errors.

    members: name -> path within folder or archive. Two files of one name in different folders of one export: the first is kept and
    the name is in `doubled`.
    """

    where: Path
    members: dict[str, str]
    sizes: dict[str, int]
    folder: Path | None = None
    archive: zipfile.ZipFile | None = None
    doubled: tuple[str, ...] = ()
    keep: list[Any] = field(default_factory=list)
    """What must live as long as this reader: temporary folders."""

    def names(self, suffix: str = "") -> list[str]:
        """Plain names that end so (in any case), sorted."""
        return sorted(name for name in self.members if name.lower().endswith(suffix.lower()))

    def find(self, name: str) -> str:
        """The name as it is stored, for one spelt in another case; "" if there is none."""
        if name in self.members:
            return name
        lowered = name.lower()
        return next((known for known in self.members if known.lower() == lowered), "") if name else ""

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """One member as a stream of bytes. Raises InputError for damage, also on reading."""
        try:
            if self.archive is not None:
                with self.archive.open(self.members[name]) as handle:
                    yield handle  # type: ignore[misc]
            else:
                assert self.folder is not None
                with open(self.folder / self.members[name], "rb") as handle:
                    yield handle
        except InputError:
            raise
        except BROKEN as error:
            raise InputError(self.where, kind_of_name(name), f"is damaged ({type(error).__name__})", AGAIN) from None

    def read(self, name: str, max_bytes: int) -> bytes:
        """Whole content of one member of at most `max_bytes`."""
        if self.sizes[name] > max_bytes:
            field_name = kind_of_name(name)
            raise InputError(self.where, field_name, f"has {self.sizes[name] / 1e6:.0f} MB, the limit is {max_bytes / 1e6:.0f} MB", AGAIN)
        with self.open(name) as handle:
            data = handle.read(max_bytes + 1)
        if len(data) != self.sizes[name]:
            raise InputError(self.where, kind_of_name(name), "holds more or less than the archive says", AGAIN)
        return data

    def start(self, name: str, count: int = 4096) -> bytes:
        """The first bytes of one member."""
        with self.open(name) as handle:
            return handle.read(count)


def kind_of_name(name: str) -> str:
    """What an error calls a member: exports put patients' names into the names of study files, so these are not repeated."""
    lower = name.lower()
    for suffix, kind in (
        (".mesh", "mesh"),
        ("_car.txt", "car.txt"),
        ("point_export.xml", "Point_Export.xml"),
        ("points_export.xml", "Points_Export.xml"),
        (".xml", "study XML"),
        (".csv", "CSV file"),
        (".txt", "text file"),
    ):
        if lower.endswith(suffix):
            return kind
    return "ECG_Export" if "ecg_export" in lower else "file"


def open_study(path: Path, flat: bool = True) -> StudyFiles:
    """The files of a folder, zip or 7-Zip archive, by their plain names; not flat: by their paths within it.

    Raises InputError for dishonest names, counts and sizes, and for encryption.
    """
    if path.is_dir():
        return _folder(path, path, flat)
    file_size(path, MAX_TOTAL_BYTES)
    with open(path, "rb") as handle:
        start = handle.read(8)
    if start.startswith(SEVEN_ZIP_MAGIC):
        return _seven_zip(path, path, flat)
    if start.startswith(ZIP_MAGIC):
        return _zip(path, path, flat)
    raise InputError(path, "file", "is neither a folder, a zip nor a 7-Zip archive", "give the export as the mapping system wrote it")


def looks_packed(start: bytes) -> bool:
    """True for the first bytes of a zip or 7-Zip archive."""
    return start.startswith((SEVEN_ZIP_MAGIC, *ZIP_MAGIC))


def _hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _plain(found: list[tuple[str, int]], where: Path, flat: bool) -> tuple[dict[str, str], dict[str, int], tuple[str, ...]]:
    if len(found) > MAX_FILES:
        raise InputError(where, "files", f"{len(found)} files, the limit is {MAX_FILES}", "pack one study")
    members: dict[str, str] = {}
    sizes: dict[str, int] = {}
    doubled: list[str] = []
    for inside, size in sorted(found, key=lambda item: (item[0].count("/"), item[0])):
        name = PurePosixPath(inside).name if flat else inside
        if name in members:
            doubled.append(name)
            continue
        members[name], sizes[name] = inside, size
    return members, sizes, tuple(doubled)


def _folder(path: Path, where: Path, flat: bool) -> StudyFiles:
    found = []
    for one in path.rglob("*"):
        inside = one.relative_to(path)
        # a link may lead out of the export
        if not one.is_symlink() and one.is_file() and not _hidden(inside.parts):
            found.append((inside.as_posix(), one.stat().st_size))
            if len(found) > MAX_FILES:
                break
    members, sizes, doubled = _plain(found, where, flat)
    inner = [name for name in members if name.lower().endswith((".zip", ".7z"))]
    if len(members) == 1 and inner:
        return open_study(path / members[inner[0]], flat)
    return StudyFiles(where, members, sizes, folder=path, doubled=doubled)


def check_member(name: str, size: int, packed: int, where: Path) -> None:
    """Raise InputError for a member that leads out of the archive or claims what cannot be."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
        raise InputError(where, "archive", "a member's name leads out of the archive", "pack it again with plain names")
    if size > MAX_MEMBER_BYTES or size > 1_000_000 + (DEFLATE_LIMIT + 100) * packed:
        raise InputError(where, "archive", f"a member claims {size / 1e6:.0f} MB", "unpack it and give the folder")


def encrypted(where: Path) -> InputError:
    """What is said of an encrypted archive."""
    return InputError(
        where,
        "archive",
        "is encrypted (the mapping system asks for a password on export)",
        "unpack it with its password and give the folder, or export it without one",
    )


def _zip(path: Path, where: Path, flat: bool) -> StudyFiles:
    try:
        archive = zipfile.ZipFile(path)
        infos = [info for info in archive.infolist() if not info.is_dir()]
    except BROKEN as error:
        raise InputError(where, "zip", f"is damaged ({type(error).__name__})", AGAIN) from None
    for info in infos:
        if info.flag_bits & 1:
            raise encrypted(where)
        check_member(info.filename, info.file_size, info.compress_size, where)
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL_BYTES:
        raise InputError(where, "zip", f"unpacks to {total / 1e9:.0f} GB", "pack one study")
    found = [(info.filename, info.file_size) for info in infos if not _hidden(PurePosixPath(info.filename).parts)]
    members, sizes, doubled = _plain(found, where, flat)
    packed = [name for name in members if name.lower().endswith((".zip", ".7z"))]
    if packed and not any(name.lower().endswith((".mesh", ".csv")) for name in members):
        return _inner(archive, members[packed[0]], sizes[packed[0]], len(packed), where, flat)
    return StudyFiles(where, members, sizes, archive=archive, doubled=doubled)


def _inner(archive: zipfile.ZipFile, member: str, size: int, count: int, where: Path, flat: bool) -> StudyFiles:
    """The archive within an archive: the export inside what was sent."""
    if count > 1:
        raise InputError(where, "zip", f"holds {count} archives", "give one of them")
    if size > MAX_UNPACKED_BYTES:
        raise InputError(where, "zip", f"the archive in it has {size / 1e9:.0f} GB", "unpack it and give the folder")
    folder = tempfile.TemporaryDirectory(prefix="vtwin-")
    target = Path(folder.name) / "inner"
    try:
        with archive.open(member) as source, open(target, "wb") as out:
            left = size
            while left > 0 and (block := source.read(min(1 << 20, left))):
                out.write(block)
                left -= len(block)
    except BROKEN as error:
        raise InputError(where, "zip", f"is damaged ({type(error).__name__})", AGAIN) from None
    start = target.open("rb").read(8)
    if not looks_packed(start):
        raise InputError(where, "zip", "the archive in it is none", AGAIN)
    files = _seven_zip(target, where, flat) if start.startswith(SEVEN_ZIP_MAGIC) else _zip(target, where, flat)
    files.keep.append(folder)
    return files


def _seven_zip(path: Path, where: Path, flat: bool) -> StudyFiles:
    try:
        import py7zr  # noqa: F401
    except ImportError:
        raise InputError(where, "7-Zip", "is read by py7zr, which is not installed", "pip install 'vtwin[signals]', or unpack it") from None
    folder = tempfile.TemporaryDirectory(prefix="vtwin-")
    code = "import sys; from twin.io.archive import unpack_child; unpack_child(*sys.argv[1:])"
    limit = min(MAX_UNPACKED_BYTES, 50_000_000 + 2000 * path.stat().st_size)
    call = [sys.executable, "-c", code, str(path), folder.name, str(limit)]
    seconds = min(CHILD_SECONDS, 60.0 + path.stat().st_size / 1e6)
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(where, "7-Zip", f"takes more than {seconds:.0f} s to unpack", "unpack it and give the folder") from None
    if done.returncode == 3:
        raise encrypted(where)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["the reader ended without a word"])[-1]
        raise InputError(where, "7-Zip", f"cannot be unpacked ({last[:120]})", AGAIN)
    files = _folder(Path(folder.name), where, flat)
    files.keep.append(folder)
    return files


def unpack_child(path: str, folder: str, limit: str) -> None:
    """The child process: unpack a 7-Zip archive whose names and sizes are honest; status 3 if it is encrypted, 1 for anything else."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    except (ImportError, ValueError, OSError):
        pass  # systems without limits: the time limit remains
    import py7zr

    try:
        with py7zr.SevenZipFile(path) as archive:
            if archive.needs_password():
                raise SystemExit(3)
            entries = archive.list()
            for entry in entries:
                check_member(entry.filename, int(entry.uncompressed or 0), 10**9, Path("archive"))
            if len(entries) > MAX_FILES or sum(int(e.uncompressed or 0) for e in entries) > int(limit):
                sys.stderr.write("it unpacks to more than it can hold\n")
                raise SystemExit(1)
            archive.extractall(folder)
    except (py7zr.PasswordRequired, py7zr.exceptions.CrcError) as error:
        raise SystemExit(3 if isinstance(error, py7zr.PasswordRequired) else 1) from None
    except InputError as error:
        sys.stderr.write(error.problem + "\n")
        raise SystemExit(1) from None
    except MemoryError:
        sys.stderr.write("it claims more data than it holds\n")
        raise SystemExit(1) from None
    except Exception as error:  # py7zr raises many kinds on damaged archives; their texts may quote names
        sys.stderr.write(type(error).__name__ + "\n")
        raise SystemExit(1) from None


def text_lines(data: bytes, where: Path, field_name: str, encoding: str = "cp1252") -> io.StringIO:
    """Text of an export, UTF-8 if it is valid UTF-8 and else `encoding`; InputError for zero bytes, which no text has."""
    if b"\0" in data:
        raise InputError(where, field_name, "holds zero bytes, it is not text", AGAIN)
    try:
        return io.StringIO(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return io.StringIO(data.decode(encoding, "replace"))
