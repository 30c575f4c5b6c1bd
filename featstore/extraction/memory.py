"""How much memory an extraction takes, announced before it begins and kept under a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.backbones.footprint import footprint
from featstore.errors import UsageError
from featstore.extraction.plan import BLOCK_ROWS, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.types import BackboneSpec

MEGABYTE = 1_000_000
BASE = 640 * MEGABYTE
"""A process with TensorFlow, Keras, h5py and the images' code loaded."""
SHARED = 0.43
"""Networks in one process share workspace: each but the largest adds this much of what it takes alone."""
CHANNELS = 3
BATCHES_IN_FLIGHT = 4


def announced(specs: Sequence[BackboneSpec], images: int, batch_size: int) -> int:
    """Peak resident bytes of one process that holds these networks together and reads so many images.

    The numbers of the catalogue were measured with batches of 16 in float32 (`benchmarks/footprint.py`); other
    precisions are announced like float32, which is more than they take.
    """
    alone = sorted((footprint(spec.name) * MEGABYTE for spec in specs), reverse=True)
    networks = sum(alone[:1]) + SHARED * sum(alone[1:])
    return (
        round(BASE + networks + _pixels({spec.input_size for spec in specs}, images, batch_size))
        if specs
        else BASE
    )


def passes(todo: Plan, budget: int | None, batch_size: int) -> list[Plan]:
    """Cut a plan into passes over the images whose networks fit into `budget` bytes together.

    Large networks come first, each with as many others as fit; without a budget there is one pass.

    Raises
    ------
    UsageError
        If a network alone does not fit.
    """
    needed = {cell.key.backbone for cell in todo.cells if cell.missing}
    images = len(todo.ids)
    if budget is None or announced(list(needed), images, batch_size) <= budget:
        return [todo]
    waiting = sorted(needed, key=lambda spec: (-footprint(spec.name), spec.name))
    groups: list[list[BackboneSpec]] = []
    for spec in waiting:
        _require_room(spec, budget, images, batch_size)
        fitting = next((g for g in groups if announced([*g, spec], images, batch_size) <= budget), None)
        if fitting is None:
            groups.append([spec])
        else:
            fitting.append(spec)
    return [
        Plan(todo.ids, tuple(cell for cell in todo.cells if cell.key.backbone in group)) for group in groups
    ]


def peak(parts: Sequence[Plan], batch_size: int) -> int:
    """Largest announced peak of these passes, in bytes."""
    return max(
        announced(list({c.key.backbone for c in part.cells if c.missing}), len(part.ids), batch_size)
        for part in parts
    )


def _pixels(sides: set[int], images: int, batch_size: int) -> int:
    """One block of decoded images in every input size, and the batches between pixels and network."""
    block = min(BLOCK_ROWS, images) * sum(side * side * CHANNELS for side in sides)
    batches = BATCHES_IN_FLIGHT * batch_size * max(sides) ** 2 * CHANNELS * 4
    return block + batches


def _require_room(spec: BackboneSpec, budget: int, images: int, batch_size: int) -> None:
    needed = announced([spec], images, batch_size)
    if needed > budget:
        raise UsageError(
            f"{spec.name} alone takes {needed / MEGABYTE:.0f} MB, and --memory allows {budget / MEGABYTE:.0f} MB.",
            f"Allow at least --memory {needed / MEGABYTE:.0f}MB, or leave {spec.name} out.",
        )
