"""`python -m planners.virtual CASE_FOLDER ...`: make the files of virtual patients from their recipes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planners.virtual.record import make_case
from twin.errors import VtwinError


def main(arguments: list[str] | None = None) -> int:
    """Make every named case; returns the exit status (0, or that of the first error)."""
    parser = argparse.ArgumentParser(prog="python -m planners.virtual", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="folder with recipe.toml; the files are written beside it")
    for folder in parser.parse_args(arguments).folder:
        try:
            make_case(folder, print)
        except VtwinError as error:
            print(error, file=sys.stderr)
            return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
