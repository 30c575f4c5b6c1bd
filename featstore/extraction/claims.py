"""What other runs are computing is left to them: rows are claimed block by block, before anything is read."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from featstore.extraction.plan import Cell, Plan, blocks
from featstore.fingerprint import digest
from featstore.store.claim import overlapping, without
from featstore.store.ids import IdSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from featstore.extraction.plan import Block
    from featstore.store.claim import Claim, Rows
    from featstore.store.lease import Lease, Leases
    from featstore.store.quarantine import BadImage
    from featstore.store.store import Store
    from featstore.types import Decoding, FeatureKey, Features

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the leases of others."""


class Claims:
    """A store that is written to by several runs at once: a sink, and the turnstile before the engine.

    Parameters
    ----------
    store
        Where rows go.
    leases
        Those of this run.

    Attributes
    ----------
    left
        Rows that were left to other runs.
    """

    def __init__(self, store: Store, leases: Leases) -> None:
        self.left = 0
        self._store = store
        self._leases = leases
        self._open: dict[Lease, set[FeatureKey]] = {}

    def take(self, wanted: Iterable[Block]) -> Iterator[Block]:
        """Claim block after block, and yield what of each is granted and not stored by now."""
        for block in wanted:
            yield from blocks(self._granted(block), len(block.ids))

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features) -> None:
        """Commit rows. A lease ends with the last key of its block; with the run, where a key had only bad images."""
        self._store.write(key, ids, features)
        for lease, keys in list(self._open.items()):
            if key in keys and ids[0] in lease.granted(key):
                keys.discard(key)
                self._close(lease)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        self._store.record_bad_image(decoding, bad)

    def _granted(self, block: Block) -> Plan:
        """Claim first, then look what is stored: whoever let go of a row in between has stored it before."""
        wanted = {key: IdSet.of(step.ids) for step in block.steps for key in step.keys}
        lease = self._leases.claim(wanted)
        granted = {key: lease.granted(key) for key in wanted if lease.granted(key)}
        self.left += sum(map(len, wanted.values())) - sum(map(len, granted.values()))
        stored = self._store.stored(granted)
        missing = {key: ids.difference(stored[key]) for key, ids in granted.items()}
        self._open[lease] = {key for key, ids in missing.items() if ids}
        self._close(lease)
        return Plan(block.ids, tuple(Cell(key, ids, 0) for key, ids in missing.items()))

    def _close(self, lease: Lease) -> None:
        """Let go of a lease that has nothing open any more."""
        if not self._open[lease]:
            del self._open[lease]
            lease.release()


def unclaimed(todo: Plan, leases: Leases, replan: Callable[[], Plan]) -> Plan:
    """Return `todo` as soon as it holds a row that no other run is computing, or nothing any more.

    While others compute all that is missing, this waits and says so; what they have stored, or left behind when
    they died, is planned anew.
    """
    others = leases.others()
    told: set[str] = set()
    while todo.rows_missing and others and not without(_rows(todo), others):
        _tell([claim for claim in overlapping(_rows(todo), others) if claim.run not in told], todo)
        told.update(claim.run for claim in others)
        time.sleep(POLL)
        before, others = others, leases.others()
        if {claim.token for claim in others} != {claim.token for claim in before}:
            todo = replan()
    return todo


def _rows(todo: Plan) -> Rows:
    return {digest(cell.key.to_json()): cell.missing for cell in todo.cells if cell.missing}


def _tell(claims: Sequence[Claim], todo: Plan) -> None:
    if claims:
        who = {f"process {claim.owner.pid} on {claim.owner.host.partition(' ')[0]}" for claim in claims}
        log.warning(
            "waiting for %s, which computes the last %d vectors.", ", ".join(sorted(who)), todo.rows_missing
        )
