"""What a reader must know of the features that were chosen: what was imported, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.findings import Finding
from featstore.matrix.absence import NAMES
from featstore.matrix.holdings import extract_command

if TYPE_CHECKING:
    from collections.abc import Collection

    from featstore.matrix.holdings import Asked, Holdings
    from featstore.store.request import Request
    from featstore.types import BackboneSpec, View


def imported(specs: Collection[BackboneSpec]) -> Finding | None:
    """FS404 where vectors take part that another program computed."""
    names = [spec.name for spec in specs if spec.is_foreign]
    own = [spec.name for spec in specs if not spec.is_foreign]
    if not names:
        return None
    cure = (
        f": --backbones {','.join(own)}"
        if own
        else " with networks that featstore computes: featstore extract DATA"
    )
    return Finding(
        "FS404",
        f"{_some(names)}: not computed here, but imported. Nobody can tell whether such vectors contain the label.",
        len(names),
        remedy=f"Say in the paper where they come from, and compare without them{cure}",
    )


def left_out(
    held: Holdings, specs: list[BackboneSpec], views: list[View], asked: Asked, last: Request | None
) -> Finding | None:
    """What the store has and what does not take part, unless the caller chose it himself."""
    taken = {spec.name for spec in specs}
    others = [s for s in held.best(asked) if s.name not in taken] if asked.backbones is None else []
    unused, partial = _other_views(held, specs, views, asked, last)
    if not others and not unused and not partial:
        return None
    parts = [f"Taken are {_some([spec.name for spec in specs])} ({_why(held, specs, asked, last)})."]
    if others:
        parts.append(f"Left out: {_some([_state(held, spec, asked) for spec in others])}.")
    if unused:
        parts.append(f"Complete and not asked for: {_views(unused)}.")
    if partial:
        parts.append(f"Not complete for all of these, and left out: {_views(partial)}.")
    return Finding("FS405", " ".join(parts), len(others), remedy=_cure(held, specs, views, others, asked))


def _other_views(
    held: Holdings, specs: list[BackboneSpec], views: list[View], asked: Asked, last: Request | None
) -> tuple[int, int]:
    """Number of augmented views that are complete and not taken, and that are not complete."""
    if asked.seeds is not None or asked.recipe is not None:
        return 0, 0
    shared = held.views(specs)
    wanted = last.views if last is not None and last.covers(specs) else ()
    partial = {v for v, count in shared.items() if count < held.images} | ({*wanted} - {*views})
    return len({*shared} - partial - {*views}), len(partial)


def _why(held: Holdings, specs: list[BackboneSpec], asked: Asked, last: Request | None) -> str:
    if asked.backbones is not None:
        return "named"
    if last is not None and last.covers(specs):
        return "asked for by the last extract of these images"
    return f"complete for all {held.images} images"


def _views(number: int) -> str:
    return f"{number} augmented view{'s' if number > 1 else ''}"


def _state(held: Holdings, spec: BackboneSpec, asked: Asked) -> str:
    count = held.specs[spec]
    extent = f"all {count} images" if count == held.images else held.phrase(count)
    return f"{spec.name} ({extent})" if asked.expects(spec) else f"{spec.name} ({extent}, {spec.precision})"


def _cure(
    held: Holdings, specs: list[BackboneSpec], views: list[View], others: list[BackboneSpec], asked: Asked
) -> str:
    """What to do to have others; every command line does it when typed."""
    done = "Nothing needs to be done"
    taken = [spec.name for spec in specs]
    ready = [spec.name for spec in others if held.has_all(spec) and asked.expects(spec)]
    partly = [spec for spec in others if asked.expects(spec) and not spec.is_foreign]
    if not others:
        return f"{done}; to choose views: --recipe and --seeds."
    if ready:
        return f"{done}; to take more in, name all that are wanted: --backbones {','.join([*taken, *ready])}"
    if partly:
        own = [spec for spec in [*specs, *partly] if not spec.is_foreign]
        return f"{done}; to take more in: {extract_command(own, views, held.decoding)}"
    return f"{done}."


def _some(names: list[str]) -> str:
    more = [f"{len(names) - NAMES} more"] if len(names) > NAMES else []
    return ", ".join([*names[:NAMES], *more])
