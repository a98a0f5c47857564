"""A kernel is compiled anew when a constant changed that its module imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

from twin.compiled_cache import ROOT, files_behind

KERNEL = """
from numba import njit
from pair.numbers import LIMIT

@njit(cache=True)
def limit():
    return LIMIT
"""
RUN = """
import sys
from pathlib import Path
import twin
from twin import compiled_cache
compiled_cache.ROOT, compiled_cache.PACKAGES = Path(sys.argv[1]), ("pair",)
sys.path.insert(0, sys.argv[1])
from pair.kernel import limit
print(limit(), sum(limit.stats.cache_hits.values()))
"""


def test_files_behind_a_kernel_are_those_that_it_imports_from():
    names = {str(f.relative_to(ROOT)) for f in files_behind(ROOT / "solvers" / "kernels" / "reentrant.py")}
    assert {f"solvers/kernels/{n}.py" for n in ("reentrant", "eikonal", "heap")} <= names
    assert not any(n.startswith("planners") for n in names)


@pytest.mark.skipif(not hasattr(config, "CACHE_LOCATOR_CLASSES"), reason="this numba does not ask where kernels are kept")
def test_a_kernel_is_compiled_anew_when_a_constant_changed_that_it_imports(tmp_path: Path):
    package = tmp_path / "pair"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kernel.py").write_text(KERNEL)
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT")}
    said = []
    for limit in (3, 3, 4):
        (package / "numbers.py").write_text(f"LIMIT = {limit}\n")
        done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout.split())
    assert said == [["3", "0"], ["3", "1"], ["4", "0"]]
