"""The command line `vtwin`: the commands put together, and how every one of them ends.

A command stands in the file of the floor of the house whose work it does (`cli_decide`, `cli_build`, `cli_know`, `cli_predict`): its words
and options there, its work in a `*_command.py` that is imported when it is asked for, since `vtwin --help` imports nothing heavy.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer

from planners.app import cli_build, cli_decide, cli_know, cli_predict, segment_command
from twin.errors import VtwinError

app = typer.Typer(
    name="vtwin",
    help="From a segmentation, a map and an ECG to a ventricular tachycardia ablation plan. Research software: not a medical device.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for floor in (cli_decide, cli_build, cli_know, cli_predict):
    for command in floor.COMMANDS:
        app.command()(command)
app.add_typer(segment_command.app, name="segment")

_OF_THE_USER = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place that you may read and write"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "check the path and the spelling"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "name a shorter path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room and run the same command again: it resumes"),
}
"""What the system says of a path that the user gave, and what helps."""


INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
    """Entry point: every expected failure is one line on standard error and an exit status (interface.md)."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status: 0 done, 1 failed, 2 wrong input, 3 expectation missed, 130 interrupted."""
    try:
        result: Any = app(args=argv, standalone_mode=False, prog_name="vtwin")
    except VtwinError as error:
        sys.stderr.write(f"vtwin: {error}\n")
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:  # whoever read the output has seen enough: `vtwin verify | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.errno not in _OF_THE_USER or (error.filename is None and not full):
            raise
        place = "output" if error.filename is None else error.filename
        if error.filename is None:  # what standard output still holds would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"vtwin: {place}: {(error.strerror or 'cannot be used').lower()}; {_OF_THE_USER[error.errno]}\n")
        return 1 if full else 2
    except Exception as error:
        # click's own complaints about the call (unknown option, missing argument) carry an exit code and a message
        if hasattr(error, "format_message") and type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(f"{error.format_message()}\n")
            return 2
        if hasattr(error, "format_message"):
            command = getattr(getattr(error, "ctx", None), "command_path", "vtwin")
            sys.stderr.write(f"vtwin: {error.format_message()} ({command} --help lists what there is)\n")
            return 2
        raise
    if result == INTERRUPTED:  # typer makes a status of the exception
        return _interrupted()
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    """Say that nothing is lost."""
    sys.stderr.write("vtwin: interrupted; what is finished is kept, the same command resumes\n")
    return INTERRUPTED
