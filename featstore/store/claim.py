"""What a lease file says: which process computes which rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from featstore.document import parse
from featstore.fingerprint import canonical_json
from featstore.store.ids import NO_IDS, IdSet
from featstore.store.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Rows = Mapping[str, IdSet]

LAST_PID = 1 << 31


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease file says.

    Attributes
    ----------
    token
        Random name of the lease.
    run
        Name of the run that it serves; the workers of one run do not exclude each other.
    owner
        The process that computes.
    since
        When the claim was made, by the owner's clock, UTC: for people only.
    rows
        Digest of a feature key -> ids of the images.
    """

    token: str
    run: str
    owner: Owner
    since: str
    rows: Rows


def overlapping(rows: Rows, claims: Iterable[Claim]) -> list[Claim]:
    """Those of the claims that have a row in common with `rows`."""
    return [c for c in claims if any(_common(ids, c.rows.get(key, NO_IDS)) for key, ids in rows.items())]


def without(rows: Rows, claims: Iterable[Claim]) -> Rows:
    """Subtract the rows of all claims; keys with no row left are left out."""
    for claim in claims:
        rows = {key: ids.difference(claim.rows.get(key, NO_IDS)) for key, ids in rows.items()}
    return {key: ids for key, ids in rows.items() if ids}


def encode(claim: Claim) -> bytes:
    """Serialise a claim to JSON; keys with the same images share one list."""
    lists: dict[bytes, list[str]] = {}
    for key, ids in claim.rows.items():
        lists.setdefault(ids.rows.tobytes(), []).append(key)
    rows = [{"ids": packed.hex(), "keys": keys} for packed, keys in lists.items()]
    page = {"run": claim.run, "owner": asdict(claim.owner), "since": claim.since, "rows": rows}
    return canonical_json(page).encode()


def decode(token: str, data: bytes) -> Claim:
    """Read back what `encode` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, RecursionError
        If the bytes are no claim.
    """
    page = parse(data)
    owner = Owner(str(page["owner"]["host"]), int(page["owner"]["pid"]), int(page["owner"]["start"]))
    if not 0 < owner.pid < LAST_PID or not owner.host.isprintable():
        raise ValueError(f"{owner} is no process")
    rows = {
        key: ids
        for group in page["rows"]
        for ids in [IdSet.from_bytes(bytes.fromhex(group["ids"]))]
        for key in group["keys"]
    }
    return Claim(token, str(page["run"]), owner, str(page["since"]), rows)


def _common(ids: IdSet, others: IdSet) -> bool:
    return bool(others.holds(ids.rows).any())
