"""What holds for every test: the same examples every time, the longest files first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

# hypothesis runs the same examples every time, so that a failure is a change of the code and not of the dice
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that make whole plans first: begun last, one of them would keep one process busy when all others are done."""
    long = {item.path for item in items if item.get_closest_marker("line")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="module")
def planned() -> Any:
    """Plan, twin and inducing trains of the slab that guidance is tested on (`guidance_slab`)."""
    import guidance_slab

    return guidance_slab.planned()


@pytest.fixture(scope="module")
def learning(planned: Any) -> Any:
    """The same with a tissue posterior that new points go into."""
    import guidance_slab

    return guidance_slab.learning(planned)
