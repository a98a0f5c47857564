"""The patient: evidence in, calibration, and the nouns that everyone shares."""

import os

# Threads of a compiled loop look so often whether there is work before they sleep. GNU OpenMP reads it once, when it is loaded: waking
# sleepers costs more than a step of 10,000 nodes (20 instead of 10 ns per node and step), and its own choice keeps cores from others.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Compiled kernels are stale also when a module changed that theirs imports constants or functions from (twin.compiled_cache).
os.environ.setdefault(
    "NUMBA_CACHE_LOCATOR_CLASSES", ",".join(f"twin.compiled_cache.{name}" for name in ("UserProvided", "InTree", "UserWide", "IPython"))
)
