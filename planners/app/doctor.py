"""What this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

EXTRAS = {
    "ml": ("torch", "pip install 'vtwin[ml]' (segmentation and fusion networks)"),
    "dicom": ("pydicom", "pip install 'vtwin[dicom]' (DICOM images and segmentations)"),
    "signals": ("py7zr", "pip install 'vtwin[signals]' (WFDB electrocardiograms, 7-Zip archives of mapping systems)"),
    "tables": ("pyarrow", "pip install 'vtwin[tables]' (fusion models, tables of trials)"),
    "cluster": ("distributed", "pip install 'vtwin[cluster]' (cohorts on a cluster)"),
    "gpu": ("numba_cuda", "pip install 'vtwin[gpu]' (NVIDIA GPUs)"),
}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is as it should be, what was found, what to do."""

    name: str
    status: str
    found: str
    remedy: str = ""


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", "ok" if ok else "missing", platform.python_version(), "" if ok else "install Python 3.11 or newer")


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("cores", "ok", f"{usable} usable of {os.cpu_count()}")


def _vector_width() -> Finding:
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for flag, bits in (("avx512f", 512), ("avx2", 256), ("avx", 256), ("sse2", 128), ("neon", 128)):
        if features.get(flag, False):
            return Finding("vector width", "ok", f"{bits} bits ({flag}, {binding.get_host_cpu_name()})")
    return Finding("vector width", "ok", "none found by the compiler: kernels run scalar", "results are the same, only slower")


def _threads() -> Finding:
    import numba

    return Finding("threads", "ok", f"{numba.config.NUMBA_NUM_THREADS} for compiled kernels (--threads or NUMBA_NUM_THREADS)")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "ok", "size unknown on this system", "a plan at 2 mm needs up to 6 GB")
    enough = total >= 6
    return Finding("memory", "ok" if enough else "missing", f"{total:.1f} GB", "" if enough else "a plan at 2 mm needs up to 6 GB")


def _gpu() -> Finding:
    from solvers.monodomain.device import device_name, unusable

    problem = unusable()
    if problem is None:
        return Finding("gpu", "ok", f'{device_name()}: monodomain runs use it where [solver] says device = "cuda" or "auto"')
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "ok", f"none: everything runs on the processor ({problem})")
    return Finding("gpu", "missing", f"an NVIDIA driver is installed, but {problem}", EXTRAS["gpu"][1])


def _extra(name: str) -> Finding:
    module, remedy = EXTRAS[name]
    present = importlib.util.find_spec(module) is not None
    return Finding(f"extra {name}", "ok" if present else "optional", "installed" if present else "not installed", "" if present else remedy)


def _cache() -> Finding:
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).resolve().parents[2])
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "kernel cache", "missing", f"{folder} is not writable ({error.strerror})", "set NUMBA_CACHE_DIR to a writable folder"
        )
    return Finding("kernel cache", "ok", f"{folder} is writable: kernels are compiled once")


def _data() -> Finding:
    folder = os.environ.get("VTWIN_DATA")
    if not folder:
        return Finding("real data", "optional", "VTWIN_DATA is not set", "see cases/real_heart/README.md")
    found = Path(folder).is_dir()
    return Finding("real data", "ok" if found else "missing", folder, "" if found else "VTWIN_DATA names no folder")


def examine() -> list[Finding]:
    """Look at everything, in the order in which a user would ask."""
    machine = [look() for look in (_python, _cores, _vector_width, _threads, _memory, _gpu)]
    return [*machine, *(_extra(name) for name in EXTRAS), _cache(), _data()]


def as_records(findings: list[Finding]) -> list[dict[str, Any]]:
    """Plain dictionaries for `--json`."""
    return [asdict(f) for f in findings]
