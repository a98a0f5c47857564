"""Pacing of all sites, each an independent task whose result is kept as soon as it is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.circuits.episode import Episode
from planners.pacing.memory import Memory
from planners.pacing.protocol import Protocol
from planners.pacing.site import Reexcitable, Site, SiteResult
from twin.atomic import read_npz, write_npz
from twin.errors import InputError
from twin.experiment import Activations
from twin.plan import Induction

Progress = Callable[[str, int, int], None]
"""Called with what was finished, how many are done and how many there are."""


@dataclass(frozen=True)
class InductionRun:
    """What a protocol gave: inductions by site (every sustained and non-sustained one, and one line where there was none) and the
    activation log of the last three cycles of each sustained one.
    """

    protocol: str
    inductions: tuple[Induction, ...]
    episodes: tuple[Episode, ...]
    attempts: int

    @property
    def induced(self) -> bool:
        """True if anything sustained was induced."""
        return bool(self.episodes)

    @property
    def inducing_sites(self) -> tuple[str, ...]:
        """Sites from which sustained reentry was induced, in the order of the protocol."""
        return tuple(dict.fromkeys(e.site for e in self.episodes))

    def save(self, folder: Path) -> None:
        """Write `inductions.npz` to a folder, atomically."""
        meta = {"protocol": self.protocol, "inductions": [asdict(i) for i in self.inductions], "attempts": self.attempts}
        arrays, meta["episodes"] = _packed(self.episodes)
        write_npz(folder / "inductions.npz", arrays, meta)

    @staticmethod
    def load(folder: Path) -> InductionRun:
        """Read what `save` wrote."""
        arrays, meta = read_npz(folder / "inductions.npz")
        return InductionRun(
            meta["protocol"], tuple(_inductions(meta["inductions"])), tuple(_unpacked(arrays, meta["episodes"])), meta["attempts"]
        )


def induce_model(
    model: Reexcitable,
    sites: Mapping[str, NDArray[np.int32]],
    protocol: Protocol,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    threads: int = 1,
    stop_at_first: bool = False,
    require_capture: bool = True,
    stop: threading.Event | None = None,
    memory: Memory | None = None,
) -> InductionRun:
    """Pace any model that can be re-excited from named sets of nodes; otherwise as `induce`.

    memory: keeps runs where its model is paced, and is asked where another is; the result is the same without.
    """
    stop = stop or threading.Event()

    def task(name: str) -> SiteResult:
        path = folder / f"site-{name}.npz" if folder else None
        if path is not None and path.exists():
            return load_site(path)
        result = Site(model, sites[name], protocol, name, stop.is_set, memory).pace()
        if path is not None:
            save_site(path, result)
        return result

    results = _in_pool(task, list(sites), threads, stop, progress, (lambda r: bool(r.episodes)) if stop_at_first else None)
    if require_capture and not any(r.episodes for r in results):
        _check_capture(protocol, results)
    return InductionRun(
        protocol.name,
        tuple(i for r in results for i in r.inductions),
        tuple(e for r in results for e in r.episodes),
        sum(r.attempts for r in results),
    )


def _in_pool(
    task: Callable[[str], SiteResult],
    names: list[str],
    threads: int,
    stop: threading.Event,
    progress: Progress | None,
    enough: Callable[[SiteResult], bool] | None,
) -> list[SiteResult]:
    """Results in the order of names; with `enough`, only those up to the first for which it holds, whatever the thread count."""
    results: dict[str, SiteResult] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    queue = list(names)
    running: dict[Future[SiteResult], str] = {}
    try:
        while queue or running:
            while queue and len(running) < max(1, threads):
                name = queue.pop(0)
                running[pool.submit(task, name)] = name
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                results[name] = future.result()
                if progress:
                    progress(name, len(results), len(names))
                if enough and enough(results[name]):
                    queue.clear()
    except BaseException:
        # also KeyboardInterrupt: what is finished is kept, what runs ends at its next stimulus
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)
    ordered = [results[name] for name in names if name in results]
    if enough:
        first = next((k for k, r in enumerate(ordered) if enough(r)), len(ordered) - 1)
        ordered = ordered[: first + 1]
    return ordered


def _check_capture(protocol: Protocol, results: list[SiteResult]) -> None:
    # bursts are made faster until they are not followed any more: only the slowest has to be
    for k, drive in enumerate(protocol.drives if protocol.extras else protocol.drives[:1]):
        tried = [r for r in results if len(r.drives_captured) > k]
        if tried and not any(r.drives_captured[k] for r in tried):
            raise InputError(
                f"protocol {protocol.name}",
                "drive",
                f"the drive of {drive.cycle_ms:g} ms captured from none of the sites {', '.join(r.site for r in tried)}",
                "stimulate tissue that conducts, or lengthen the cycle",
            )


def save_site(path: Path, result: SiteResult) -> None:
    """Write one site's result to an .npz file, atomically."""
    arrays, episodes = _packed(result.episodes)
    meta = {
        "site": result.site,
        "drives_captured": result.drives_captured,
        "attempts": result.attempts,
        "inductions": [asdict(i) for i in result.inductions],
        "episodes": episodes,
    }
    write_npz(path, arrays, meta)


def load_site(path: Path) -> SiteResult:
    """Read what `save_site` wrote."""
    arrays, meta = read_npz(path)
    episodes = _unpacked(arrays, meta["episodes"])
    return SiteResult(meta["site"], meta["drives_captured"], _inductions(meta["inductions"]), episodes, meta["attempts"])


_LOG = ("node", "activation_ms", "recovery_ms", "parent")


def _packed(episodes: Sequence[Episode]) -> tuple[dict[str, NDArray], list[dict[str, Any]]]:
    arrays = {f"{k}/{name}": getattr(episode.log, name) for k, episode in enumerate(episodes) for name in _LOG}
    return arrays, [{k: v for k, v in e.__dict__.items() if k != "log"} for e in episodes]


def _unpacked(arrays: Mapping[str, NDArray], meta: Sequence[Mapping[str, Any]]) -> list[Episode]:
    return [
        Episode(**{**e, "coupling_ms": tuple(e["coupling_ms"])}, log=Activations(*(arrays[f"{k}/{name}"] for name in _LOG)))
        for k, e in enumerate(meta)
    ]


def _inductions(meta: Sequence[Mapping[str, Any]]) -> list[Induction]:
    return [Induction(**{**i, "coupling_ms": tuple(i["coupling_ms"])}) for i in meta]
