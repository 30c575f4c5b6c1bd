"""The shape that a stranger's document must have before anyone looks into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = Callable[[Any, str], None]
"""Looks at a value, and raises `ShapeError` naming the place where it is not what it should be."""

LONGEST = 10_000
LARGEST = 2.0**63
ROUNDING = 1e-9


class ShapeError(ValueError):
    """A value of another shape than it should have. One line, without a full stop."""


def number(value: Any, where: str) -> None:  # noqa: ANN401
    """Finite, and no flag."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ShapeError(f"{where} is no number")


def share(value: Any, where: str) -> None:  # noqa: ANN401
    """From 0 to 1, but for rounding."""
    number(value, where)
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise ShapeError(f"{where} is not between 0 and 1")


def count(value: Any, where: str) -> None:  # noqa: ANN401
    """Whole, zero or more."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ShapeError(f"{where} is no count")


def flag(value: Any, where: str) -> None:  # noqa: ANN401
    """True or false."""
    if type(value) is not bool:
        raise ShapeError(f"{where} is neither true nor false")


def text(value: Any, where: str) -> None:  # noqa: ANN401
    """At most `LONGEST` characters; what they are is for whoever shows them to escape."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ShapeError(f"{where} is no text of up to {LONGEST} characters")


def anything(value: Any, where: str) -> None:  # noqa: ANN401
    """Whatever is there; for what is shown as JSON and not understood."""


def maybe(shape: Shape) -> Shape:
    """None, or a value of the shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if value is not None:
            shape(value, where)

    return check


def one_of(*known: str) -> Shape:
    """One of some words."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, str) or value not in known:
            raise ShapeError(f"{where} is none of {', '.join(known)}")

    return check


def each(shape: Shape) -> Shape:
    """Items of a list, all of one shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, list):
            raise ShapeError(f"{where} is no list")
        for at, part in enumerate(value):
            shape(part, f"{where}[{at}]")

    return check


def row(*shapes: Shape) -> Shape:
    """A list of exactly these."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, list) or len(value) != len(shapes):
            raise ShapeError(f"{where} is no list of {len(shapes)}")
        for at, (part, shape) in enumerate(zip(value, shapes, strict=True)):
            shape(part, f"{where}[{at}]")

    return check


def table(shape: Shape) -> Shape:
    """Values by name, all of one shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ShapeError(f"{where} is no table")
        for name, part in value.items():
            text(name, f"a name in {where}")
            shape(part, f"{where}.{name[:40]}")

    return check


def fields(**shapes: Shape) -> Shape:
    """At least these fields, each of its shape. Others may stand beside them: a later featstore knows more."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ShapeError(f"{where} is no table")
        for name, shape in shapes.items():
            if name not in value:
                raise ShapeError(f"{where} has no {name!r}")
            shape(value[name], f"{where}.{name}")

    return check
