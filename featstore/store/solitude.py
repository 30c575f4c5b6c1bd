"""Being the only one who writes: what gc and compaction insist on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.store.lease import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.store.claim import Claim
    from featstore.store.lease import Leases

log = logging.getLogger(__name__)
POLL = 0.5
"""Seconds between two looks at a lease whose owner cannot be asked."""


def require_solitude(leases: Leases) -> None:
    """Refuse while another run writes to the store.

    A lease of another host, of before a reboot or of an ended container has an owner who cannot be asked. It is
    watched until its heart beats, or until the expiry is over and it counts as left behind.

    Raises
    ------
    StoreError
        If another run does: names host, process and the file of its lease. Or if the leases cannot be read.
    """
    leases.require_readable()
    told: set[str] = set()
    while others := leases.others():
        certain = [claim for claim in others if leases.is_certain(claim)]
        if certain:
            raise _written_to(leases, certain)
        if fresh := [claim for claim in others if claim.token not in told]:
            told.update(claim.token for claim in fresh)
            log.warning(
                "%s: %s cannot be asked from here; its lease is watched for %.0f s, and left behind if it is still.",
                leases.file_of(fresh[0]),
                _who(fresh[0]) + (f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""),
                leases.expiry,
            )
        time.sleep(POLL)


def _written_to(leases: Leases, claims: Sequence[Claim]) -> StoreError:
    who = "; ".join(sorted({f"{_who(claim)}, since {claim.since}" for claim in claims}))
    return StoreError(
        f"This cache is being written to: {who}.",
        "Wait until that is done, and run the same command again. Should nothing run there, delete"
        f" {leases.file_of(claims[0])}.",
    )


def _who(claim: Claim) -> str:
    host = claim.owner.host.partition(" ")[0]
    return (
        "an owner whose lease may not be read" if host == UNKNOWN else f"process {claim.owner.pid} on {host}"
    )
