"""The CUDA path without a GPU: its matrix layout, its messages, what its kernels compile to, and all of it in the simulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba import types

from meshing.box import box_tets
from solvers.bench import device as bench
from solvers.ionic import Cells, ionic_model
from solvers.kernels import cuda_ionic, cuda_sparse, sparse_assembly
from solvers.monodomain.device import unusable
from solvers.monodomain.solver import Monodomain, Settings
from twin.errors import InputError

no_gpu = pytest.mark.skipif(unusable() is None, reason="there is a GPU")


def test_everything_in_the_simulator():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name("cuda_simulated.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def product(start, offset, value, x):
    """What a warp of 32 threads does."""
    out = x - x
    for i in range(len(x)):
        for at in range(start[i // 32] + i % 32, start[i // 32 + 1], 32):
            out[i] += value[at] * (x[i + offset[at]] - x[i])
    return out


def test_slices_give_the_product_of_the_rows_they_were_made_of():
    points, tets = box_tets((3.0, 2.0, 2.5), 0.5, "alternating")
    n = len(points)
    start, column = sparse_assembly.pattern(tets, n)
    rng = np.random.default_rng(1)
    value, x = rng.random(len(column)), rng.random(n)
    order = cuda_sparse.sorted_rows(start)
    slices, offset, source = cuda_sparse.sliced(start, column, order)
    assert offset.dtype == np.int16
    assert (np.sort(source[source >= 0]) == np.arange(len(column))).all()
    padded = np.where(source >= 0, value[source], 0.0)
    expected = np.array([(value[a:b] * (x[column[a:b]] - x[i])).sum() for i, (a, b) in enumerate(pairwise(start))])
    np.testing.assert_allclose(product(slices, offset, padded, x[order]), expected[order], atol=1e-12)


def test_sorting_within_windows_leaves_little_padding_and_keeps_neighbours_near():
    lengths = np.random.default_rng(2).integers(8, 25, 20_000)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    column = np.zeros(start[-1], np.int32)
    order = cuda_sparse.sorted_rows(start)
    assert np.abs(order - np.arange(len(order))).max() < cuda_sparse.WINDOW
    for chosen, most in ((order, 0.05), (np.arange(len(order)), 0.6)):
        _, offset, source = cuda_sparse.sliced(start, column, chosen)
        assert offset.dtype == np.int16
        assert len(source) / len(column) - 1.0 < most
    far = np.full(start[-1], 19_999, np.int32)
    far[:8] = 40_000
    many = np.concatenate([start, np.full(30_000, start[-1])]).astype(np.int32)
    assert cuda_sparse.sliced(many, far, np.arange(50_000))[1].dtype == np.int32


def _solver(device, scheme="explicit"):
    points, tets = box_tets((1.0, 0.5, 0.5), 0.5)
    m, model = len(tets), ionic_model("mitchell_schaeffer")
    fibre = np.tile([1.0, 0.0, 0.0], (m, 1))
    return Monodomain(
        points,
        tets,
        fibre,
        np.full(m, 0.1),
        np.full(m, 0.1),
        lambda nodes: Cells([model], np.zeros(len(nodes), np.int32)),
        Settings(device=device, scheme=scheme),
    )


@no_gpu
def test_without_a_gpu_cuda_is_refused_in_one_line_and_auto_takes_the_processor():
    with pytest.raises(InputError) as error:
        _solver("cuda")
    assert "\n" not in str(error.value)
    assert 'write device = "cpu"' in str(error.value)
    assert _solver("auto").run([], 0.1).summary["device"] == "cpu"
    with pytest.raises(InputError, match="write one of cpu, cuda, auto"):
        _solver("gpu")
    (record,) = bench.records()
    assert record["skipped"].startswith("no GPU: ")


def test_the_reference_scheme_stays_on_the_processor():
    with pytest.raises(InputError, match="the reference scheme runs on the processor only"):
        _solver("cuda", "reference")
    assert _solver("auto", "reference").device is None


def _arrays(real):
    """Types of one-dimensional and two-dimensional arrays as the solver passes them."""
    one, two = (types.Array(real, dimensions, "C") for dimensions in (1, 2))
    matrix = (types.Array(types.int32, 1, "C"), types.Array(types.int16, 1, "C"), one)
    return one, two, matrix, types.Array(types.int32, 1, "C")


def _ptx(kernel, signature, monkeypatch):
    from numba import cuda
    from numba.cuda import dispatcher

    # device functions ask the GPU what to compile for
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(8, 0)))
    try:
        return cuda.compile_ptx(kernel.py_func, signature, cc=(8, 0))[0]
    except Exception as problem:
        if "nvvm" in str(problem).lower():
            pytest.skip(f"no CUDA compiler: {str(problem).strip().splitlines()[0]}")
        raise


@pytest.mark.parametrize("name", ["ten_tusscher_panfilov_2006", "mitchell_schaeffer"])
def test_kernel_of_a_model_is_all_float32_and_calls_nothing(name, monkeypatch):
    if numba.config.ENABLE_CUDASIM:
        pytest.skip("the simulator does not compile")
    model, real = ionic_model(name), types.float32
    kernel = cuda_ionic.kernel(model.name, model.step(), model.state_names, tuple(model.parameters), "float32")
    one, two, matrix, ints = _arrays(real)
    signature = (two, ints, types.Array(types.uint8, 1, "C"), two, two, one, real, *matrix, real, one, one, ints, types.int64)
    ptx = _ptx(kernel, signature, monkeypatch)
    assert not re.search(r"\.f64|\bcall\b|\bdiv\.(s|u|rn)", ptx)
    # the hardware's exponential, and every state stored beside y and rest
    assert "ex2.approx" in ptx
    assert len(re.findall(r"st\.global\.f32", ptx)) == len(model.state_names) + 2


def test_other_kernels_are_all_float32(monkeypatch):
    real = types.float32
    one, two, matrix, ints = _arrays(real)
    horner = (*matrix, one, real, one, real, one, ints, types.int64)
    advance = (*matrix, one, real, one, one, real, real, real, ints, ints, ints, ints, two, types.int64)
    for kernel, signature in ((cuda_sparse.mass_horner, horner), (cuda_sparse.advance, advance)):
        ptx = _ptx(kernel, signature, monkeypatch)
        assert not re.search(r"\.f64|\bcall\b|\bdiv\.", ptx)
