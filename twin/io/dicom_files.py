"""Where DICOM comes from: a file, a folder or a zip, opened one at a time, header first, with every size bounded.

Only the tags that a reader names are ever looked at, so that names, dates, numbers and private tags of a patient go no further
than the file. What pydicom says about a damaged file may quote its values: its warnings are silenced and its errors reworded.
"""

from __future__ import annotations

import io
import logging
import mmap
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from twin.errors import InputError, VtwinError
from twin.io.source import file_size

MAX_FILES = 50_000
MODALITY = 0x00080060
"""Always asked for: an empty list of tags would mean all of them."""

MAX_MEMBER_BYTES = 600_000_000
"""A zipped file is held in memory while it is read."""

MAX_TOTAL_BYTES = 20_000_000_000
DEFLATED = b"UI\x16\x001.2.840.10008.1.2.1.99"
"""The transfer syntax as it stands in the file's first bytes; pydicom would inflate without a limit."""

AGAIN = "export or copy it again"


@dataclass(frozen=True)
class DicomFile:
    """One file: `path` on disk, or the member `member` of the zip at `path`."""

    path: Path
    member: str = ""
    archive: zipfile.ZipFile | None = None

    @property
    def where(self) -> str:
        """What an error calls it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes as a file that never reads beyond its end, however long an element claims to be."""
        if self.archive is not None:
            with self.archive.open(self.member) as handle:
                size = self.archive.getinfo(self.member).file_size
                data = handle.read(size + 1)
            if len(data) != size:
                raise InputError(self.where, "zip", "holds more or less than it says", AGAIN)
            yield io.BytesIO(data)
            return
        file_size(self.path)
        # mmap's read stops at the end of the file and takes no memory for what a damaged length asks for
        with open(self.path, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as view:
            yield cast(BinaryIO, view)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings and log lines of pydicom and highdicom, which may quote values of a file, are dropped."""
    loggers = [logging.getLogger("pydicom"), logging.getLogger("highdicom")]
    states = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, state in zip(loggers, states, strict=True):
            logger.disabled = state


@contextmanager
def guarded(where: str, field: str = "file") -> Iterator[None]:
    """Any exception of a parser becomes one InputError that quotes nothing of the file."""
    try:
        with quiet():
            yield
    except VtwinError:
        raise
    except Exception as error:  # pydicom raises nearly every built-in exception on damaged files
        raise InputError(where, field, f"is damaged ({type(error).__name__})", AGAIN) from None


def need_pydicom() -> Any:
    """The module pydicom. Raises InputError with the way to install it."""
    try:
        import pydicom
    except ImportError:
        raise InputError("DICOM", "pydicom", "is not installed", "pip install 'vtwin[dicom]'") from None
    return pydicom


def is_dicom(start: bytes) -> bool:
    """True if the first 132 bytes are those of a DICOM file."""
    return start[128:132] == b"DICM"


def _members(path: Path) -> list[DicomFile]:
    """Files of a zip whose names, counts and sizes are those of an honest one."""
    with guarded(str(path), "zip"):
        archive = zipfile.ZipFile(path)
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > MAX_FILES:
            raise InputError(path, "zip", f"holds {len(infos)} files, the limit is {MAX_FILES}", "pack one study")
        if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
            raise InputError(path, "zip", f"unpacks to more than {MAX_TOTAL_BYTES / 1e9:.0f} GB", "pack one study")
        for info in infos:
            parts = info.filename.replace("\\", "/").split("/")
            if ".." in parts or parts[0] == "" or ":" in parts[0]:
                raise InputError(path, "zip", "a member's name leads out of the archive", "pack it again with plain names")
            if info.flag_bits & 1:
                raise InputError(path, "zip", "is encrypted", "unpack it, or pack it without a password")
            if info.file_size > MAX_MEMBER_BYTES or info.file_size > 1_000_000 + 1100 * info.compress_size:
                raise InputError(path, "zip", f"a member claims {info.file_size / 1e6:.0f} MB", "unpack it and give the folder")
        files = [DicomFile(path, info.filename, archive) for info in infos if info.file_size >= 132]
        found = []
        for file in sorted(files, key=lambda one: one.member):
            with archive.open(file.member) as handle:
                if is_dicom(handle.read(132)):
                    found.append(file)
        return found


def dicom_files(path: Path) -> list[DicomFile]:
    """The DICOM files in a folder (with its subfolders), a zip, or the file itself, in the order of their names. Raises InputError."""
    if path.is_dir():
        files = [DicomFile(p) for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        if len(files) > MAX_FILES:
            raise InputError(path, "folder", f"holds {len(files)} files, the limit is {MAX_FILES}", "name the folder of one study")
        files = [one for one in files if one.path.stat().st_size >= 132 and one.path.name.upper() != "DICOMDIR"]
        return [one for one in files if is_dicom(_start(one.path))]
    file_size(path)
    start = _start(path)
    if start.startswith(b"PK\3\4"):
        return _members(path)
    if not is_dicom(start):
        raise InputError(path, "magic", "is not DICOM (no DICM at byte 128)", "give a DICOM file, a folder or a zip of them")
    return [DicomFile(path)]


def _start(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(132)


def _inflated(handle: BinaryIO, tags: Sequence[int], where: str) -> BinaryIO:
    """A deflated file as an uncompressed one, after counting (not keeping) what it unpacks to."""
    pydicom = need_pydicom()
    handle.seek(140)
    handle.seek(144 + int.from_bytes(handle.read(4), "little"))
    stream, total = zlib.decompressobj(wbits=-15), 0
    while chunk := stream.unconsumed_tail or handle.read(1 << 16):
        total += len(stream.decompress(chunk, 1 << 20))
        if total > MAX_MEMBER_BYTES:
            raise InputError(where, "file", f"unpacks to more than {MAX_MEMBER_BYTES / 1e6:.0f} MB", "export it without compression")
        if stream.eof:
            break
    handle.seek(0)
    whole = pydicom.dcmread(handle, specific_tags=[*tags, MODALITY, 0x7FE00010])
    whole.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    plain = io.BytesIO()
    whole.save_as(plain, enforce_file_format=True)
    plain.seek(0)
    return plain


@contextmanager
def header(file: DicomFile, tags: Sequence[int]) -> Iterator[tuple[Any, BinaryIO]]:
    """The named tags of one file (a pydicom Dataset) and the file, placed at its pixel data. Raises InputError."""
    pydicom = need_pydicom()
    with guarded(file.where), file.open() as handle:
        start = handle.read(2000)
        if not is_dicom(start):
            raise InputError(file.where, "magic", "is not DICOM (no DICM at byte 128)", "give DICOM files")
        handle.seek(0)
        if DEFLATED in start:
            handle = _inflated(handle, tags, file.where)
        yield pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=[*tags, MODALITY]), handle
