"""Answers kept by the content of the question, so that the stages of one plan that ask the same thing share one computation."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, TypeVar

from twin.run import content_hash

P = ParamSpec("P")
R = TypeVar("R")


def kept(count: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the last `count` answers of a function of nouns, arrays and plain values are kept in memory, by content, for this process.

    Equal content gives the same object, which nobody may change. What raises is asked again.
    """

    def of(make: Callable[P, R]) -> Callable[P, R]:
        answers: OrderedDict[str, R] = OrderedDict()
        lock = threading.Lock()

        @functools.wraps(make)
        def ask(*args: P.args, **kwargs: P.kwargs) -> R:
            key = content_hash(*_parts(args), *(part for name in sorted(kwargs) for part in (name, *_parts((kwargs[name],)))))
            with lock:
                if key in answers:
                    answers.move_to_end(key)
                    return answers[key]
                # room first: answers may be large
                while len(answers) >= count:
                    answers.popitem(last=False)
            found = make(*args, **kwargs)
            with lock:
                answers[key] = found
            return found

        return ask

    return of


def _parts(values: tuple[Any, ...]) -> Iterator[Any]:
    """What a value is made of: the fields of a noun, else the value itself."""
    for value in values:
        if is_dataclass(value):
            yield type(value).__name__
            yield from (getattr(value, field.name) for field in fields(value))
        else:
            yield value
