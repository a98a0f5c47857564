"""`python -m planners.virtual CASE_FOLDER ...`: make the files of virtual patients from their recipes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planners.virtual.record import make_case
from twin.errors import VtwinError
from twin.study import UNVERIFIED


def main(arguments: list[str] | None = None) -> int:
    """Make every named case; returns the exit status (0, or that of the first error)."""
    parser = argparse.ArgumentParser(prog="python -m planners.virtual", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="folder with recipe.toml; the files are written beside it")
    kinds = ("carto", "ensite", "openep")
    parser.add_argument("--study", choices=kinds, action="append", default=[], help=f"write the map as a study too ({UNVERIFIED})")
    given = parser.parse_args(arguments)
    for folder in given.folder:
        try:
            make_case(folder, print, given.study)
        except VtwinError as error:
            print(error, file=sys.stderr)
            return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
