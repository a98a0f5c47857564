"""What can go wrong, as a person should read it: file, field, problem, remedy, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class VtwinError(Exception):
    """Base of every error that vtwin raises on purpose; `exit_status` is what the command line returns."""

    exit_status = 1


class RunFailed(VtwinError):
    """The inputs were right and the run still failed (a solver diverged, nothing could be planned)."""


class InputError(VtwinError):
    """The input or the call is wrong: names the file, the field, the problem and the remedy."""

    exit_status = 2

    def __init__(self, where: str | Path, field: str, problem: str, remedy: str) -> None:
        self.where, self.field, self.problem, self.remedy = str(where), field, problem, remedy
        super().__init__(self.line())

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a worker process can hand it on: the class takes more than the line that `Exception` would give it."""
        return _again, (type(self), self.args, self.__dict__)

    def line(self) -> str:
        """The error as one line of text."""
        text = f"{self.where}: {self.field}: {self.problem}; {self.remedy}"
        return " ".join(text.split())


class Suspicious(InputError):
    """Readable but improbable input; stops the run unless the case lists `code` under `accept`."""

    def __init__(self, code: str, where: str | Path, field: str, problem: str, remedy: str) -> None:
        self.code = code
        super().__init__(where, field, problem, f"{remedy}, or add accept = [{code!r}] to the case if it is right")


def _again(kind: type[InputError], args: tuple[Any, ...], state: dict[str, Any]) -> InputError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class Interrupted(VtwinError):
    """The user stopped the run; what is finished is kept and the next run resumes."""

    exit_status = 130
