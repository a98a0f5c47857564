"""Where numba keeps compiled kernels, and when they are stale: also if a module changed that theirs imports from.

Numba compiles a kernel anew when its own file changed. But it compiles in the constants and the functions that the file imports from
others: after a change there the old machine code would be loaded, with array sizes that nobody uses any more, say. So the stamp of a file
of this project covers every file of the project that it imports from. Numba is told by NUMBA_CACHE_LOCATOR_CLASSES (`twin/__init__.py`);
versions that do not know it cache as they always did.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching

ROOT = Path(__file__).parents[1]
PACKAGES = ("twin", "meshing", "solvers", "planners")
_IMPORT = re.compile(rb"^from ([\w.]+) import ([^\n#]+)|^import ([\w.]+)", re.MULTILINE)


@cache
def files_behind(path: Path) -> tuple[Path, ...]:
    """A file of the project and all files of the project that it imports from when it is loaded, in order of their names."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for module, names, plain in _IMPORT.findall(file.read_bytes()):
            name = (module or plain).decode()
            parts = [f"{name}.{n.split(b' as ')[0].strip(b' ()').decode()}" for n in names.split(b",")] if module else []
            todo += [f for m in (name, *parts) if (f := _file_of(m)) is not None]
    return tuple(sorted(found))


def _file_of(module: str) -> Path | None:
    """The file of a module of this project, None for what is none."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)


class _Together:
    """Before a locator of numba's: its stamp of a file, together with what stands in the files behind it."""

    _py_file: str

    def get_source_stamp(self) -> Any:
        own = super().get_source_stamp()  # type: ignore[misc]
        path = Path(self._py_file)
        if not any(path.is_relative_to(ROOT / package) for package in PACKAGES):
            return own
        files = files_behind(path)
        if files == (path,):
            return own
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return own, digest.hexdigest()


def _of_numba(name: str) -> Any:
    """A locator of numba's, whose names began with an underscore in some versions."""
    return getattr(caching, name, None) or getattr(caching, f"_{name}")


UserProvided: Any = type("UserProvided", (_Together, _of_numba("UserProvidedCacheLocator")), {})
InTree: Any = type("InTree", (_Together, _of_numba("InTreeCacheLocator")), {})
UserWide: Any = type("UserWide", (_Together, _of_numba("UserWideCacheLocator")), {})
IPython: Any = _of_numba("IPythonCacheLocator")
