"""Being the only one who writes: what gc and compaction insist on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.errors import StoreError

if TYPE_CHECKING:
    from featstore.store.lease import Leases


def require_solitude(leases: Leases) -> None:
    """Refuse while another run writes to the store.

    Raises
    ------
    StoreError
        If one does: names host and process.
    """
    others = {(claim.owner.host.partition(" ")[0], claim.owner.pid, claim.since) for claim in leases.others()}
    if others:
        who = "; ".join(f"process {pid} on {host}, since {since}" for host, pid, since in sorted(others))
        raise StoreError(
            f"This cache is being written to: {who}.",
            "Wait until that is done, and run the same command again.",
        )
