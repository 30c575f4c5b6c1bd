"""How much memory an extraction takes, announced before it begins and kept under a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.backbones.footprint import footprint
from featstore.errors import UsageError
from featstore.extraction.plan import BLOCK_ROWS, Plan
from featstore.images.extent import dearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from featstore.types import BackboneSpec

MEGABYTE = 1_000_000
BASE = 640 * MEGABYTE
"""A process with TensorFlow, Keras, h5py and the images' code loaded."""
SHARED = 0.43
"""Networks in one process share workspace: each but the largest adds this much of what it takes alone."""
CHANNELS = 3
BATCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a process needs beside its networks, to decode the largest pictures of a data set.

    Attributes
    ----------
    alone
        Bytes for the largest one.
    together
        Bytes for as many of the largest as threads may meet at the same time.
    """

    alone: int = 0
    together: int = 0

    @classmethod
    def of(cls, paths: Iterable[Path], threads: int, processes: int) -> Pictures:
        """Look at the headers of all files.

        Parameters
        ----------
        paths
            Files that will be decoded.
        threads
            That make pixels, in each process.
        processes
            Among which the largest are spread.
        """
        costs = dearest(paths, threads * processes)
        return cls(max(costs, default=0), max(max(costs, default=0), sum(costs) // processes))


NO_PICTURES = Pictures()


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


def passes(todo: Plan, budget: int | None, batch_size: int, pictures: Pictures = NO_PICTURES) -> list[Plan]:
    """Cut a plan into passes over the images whose networks fit into `budget` bytes together.

    The largest picture has to fit beside them; more at a time are decoded where there is room (`room`).

    Large networks come first, each with as many others as fit; without a budget there is one pass.

    Raises
    ------
    UsageError
        If a network alone does not fit.
    """
    budget = None if budget is None else budget - pictures.alone
    needed = {cell.key.backbone for cell in todo.cells if cell.missing}
    images = len(todo.ids)
    if budget is None or announced(list(needed), images, batch_size) <= budget:
        return [todo]
    waiting = sorted(needed, key=lambda spec: (-footprint(spec.name), spec.name))
    groups: list[list[BackboneSpec]] = []
    for spec in waiting:
        _require_room(spec, budget, images, batch_size, pictures)
        fitting = next((g for g in groups if announced([*g, spec], images, batch_size) <= budget), None)
        if fitting is None:
            groups.append([spec])
        else:
            fitting.append(spec)
    return [
        Plan(todo.ids, tuple(cell for cell in todo.cells if cell.key.backbone in group)) for group in groups
    ]


def peak(
    parts: Sequence[Plan], batch_size: int, pictures: Pictures = NO_PICTURES, budget: int | None = None
) -> int:
    """Largest announced peak of these passes, in bytes, the pictures that are decoded at a time included."""
    room = room_for_pictures(parts, batch_size, pictures, budget)
    return _networks(parts, batch_size) + (
        pictures.together if room is None else min(room, pictures.together)
    )


def room_for_pictures(
    parts: Sequence[Plan], batch_size: int, pictures: Pictures, budget: int | None
) -> int | None:
    """Bytes that pictures may take while they are decoded; None without a budget."""
    if budget is None:
        return None
    return max(pictures.alone, budget - _networks(parts, batch_size))


def _networks(parts: Sequence[Plan], batch_size: int) -> int:
    return max(
        announced(list({c.key.backbone for c in part.cells if c.missing}), len(part.ids), batch_size)
        for part in parts
    )


def _pixels(sides: set[int], images: int, batch_size: int) -> int:
    """One block of decoded images in every input size, and the batches between pixels and network."""
    block = min(BLOCK_ROWS, images) * sum(side * side * CHANNELS for side in sides)
    batches = BATCHES_IN_FLIGHT * batch_size * max(sides) ** 2 * CHANNELS * 4
    return block + batches


def _require_room(spec: BackboneSpec, budget: int, images: int, batch_size: int, pictures: Pictures) -> None:
    """Refuse a network that does not fit into `budget`, which is what the largest picture leaves."""
    needed = announced([spec], images, batch_size)
    if needed > budget:
        beside = f" and decoding the largest image {pictures.alone / MEGABYTE:.0f} MB"
        beside = beside if pictures.alone >= MEGABYTE else ""
        raise UsageError(
            f"{spec.name} alone takes {needed / MEGABYTE:.0f} MB{beside}, and --memory allows"
            f" {(budget + pictures.alone) / MEGABYTE:.0f} MB.",
            f"Allow at least --memory {math.ceil((needed + pictures.alone) / MEGABYTE)}MB, or leave {spec.name} out.",
        )
