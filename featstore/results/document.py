"""How a result is written to JSON and read back: names, order and bounds of its fields come from its class alone.

A result is a frozen `msgspec.Struct` whose fields stand in the order of the document. A field that has another name
there says so (``field(name=...)``); one with a default may be absent, as it is in runs of older versions. What a
later featstore writes beside them is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, TypedDict, TypeVar, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert

from featstore.findings import Finding
from featstore.tables import html_table, printable

T = TypeVar("T")

LONGEST_TEXT = 10_000
"""Characters of a text."""
LARGEST_NUMBER = 2.0**63
ROUNDING = 1e-9

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=-ROUNDING, le=1 + ROUNDING)]
"""From 0 to 1, but for rounding."""
Interval = tuple[float, float] | None
"""95 % interval; None where undefined."""


class ShapeError(ValueError):
    """A document of another shape than it should have. One line, without a full stop."""


class Result(Struct, frozen=True, kw_only=True):
    """What a command returns, or a part of it."""

    IN_MEMORY: ClassVar[frozenset[str]] = frozenset()
    """Fields that no document holds."""

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json`` and, without the examples of findings, which name files, ``metrics.json``."""
        return {
            written: _plain(getattr(self, name), examples=examples)
            for name, written in zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True)
            if name not in self.IN_MEMORY
        }

    def table(self) -> list[dict[str, Any]]:
        """Rows of its table, each a dict by column: ``pandas.DataFrame(result.table())`` is a data frame."""
        return [self.to_json(examples=False)]

    def headline(self) -> str:
        """What it is and says, in one line; empty for parts that say it by their fields."""
        return ""

    def _shown(self) -> list[dict[str, Any]]:
        """Rows of the table that a notebook shows: fewer columns, where `table` has many."""
        return self.table()

    def __repr__(self) -> str:
        """One line: `headline`, or the fields of a part."""
        said = self.headline()
        return f"<{type(self).__name__}: {printable(said)}>" if said else super().__repr__()

    def _repr_html_(self) -> str | None:
        """What a notebook shows: `headline` and one table; parts are shown by their fields."""
        said = self.headline()
        return html_table(f"{type(self).__name__}: {said}", self._shown()) if said else None


def bounds(name: str, value: float | None, interval: Interval) -> dict[str, float | None]:
    """Cells of a value and the ends of its interval, for a row of `Result.table`."""
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _plain(value: Any, *, examples: bool) -> Any:  # noqa: ANN401
    match value:
        case Result() | Finding():
            return value.to_json(examples=examples)
        case Mapping():
            return {name: _plain(part, examples=examples) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part, examples=examples) for part in value]
    return value


def read_result(kind: type[T], document: Any, what: str, opaque: Collection[str] = ()) -> T:  # noqa: ANN401
    """Read a document, or a part of one, that may be damaged or forged.

    Parameters
    ----------
    kind
        Class of the result, or type of a plain dict or list.
    document
        Lists, dicts and plain values, as of `featstore.serialization.parse_json`.
    what
        What an error calls it.
    opaque
        Fields of any size, which are shown as they are and not understood.

    Raises
    ------
    ShapeError
        If it is of another shape, a text is longer than `LONGEST_TEXT`, or a number is none or beyond
        `LARGEST_NUMBER`.
    """
    known = getattr(kind, "__struct_encode_fields__", None) or getattr(kind, "__annotations__", None)
    if known and isinstance(document, dict):
        document = {name: document[name] for name in known if name in document}
        _require_bounds([part for name, part in document.items() if name not in opaque], what)
    else:
        _require_bounds([document], what)
    try:
        return convert(document, kind)
    except (ValidationError, UnicodeError) as error:
        # A text of the document may stand in the message: on one line, and without what a terminal would obey.
        raise ShapeError(f"{what}: {str(error)[:200].encode('unicode_escape').decode()}") from error


def fields_of(kind: type[Any]) -> Any:  # noqa: ANN401
    """Type of the plain dict that `dataclasses.asdict` makes of a dataclass; whole numbers in it are counts."""
    hints = {name: Count if hint is int else hint for name, hint in get_type_hints(kind).items()}
    return TypedDict(kind.__name__, hints)  # type: ignore[operator]  # mypy knows literal fields only


def _require_bounds(rest: list[Any], what: str) -> None:
    """Part by part, without recursion."""
    while rest:
        match rest.pop():
            case dict() as table:
                rest += [*table.keys(), *table.values()]
            case list() as parts:
                rest += parts
            case str() as text if len(text) > LONGEST_TEXT:
                raise ShapeError(f"{what} holds a text of more than {LONGEST_TEXT} characters")
            case int() | float() as number if not abs(number) <= LARGEST_NUMBER:
                raise ShapeError(f"{what} holds what is no number")
