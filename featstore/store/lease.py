"""Who is computing which rows right now, so that nobody else does: an economy, never a truth.

A shard is named by its bytes, so work that is done twice costs time and nothing else; hence no kernel locks, which
network file systems lack or get wrong, and no error where a lease cannot be written. A lease is a small file that
ends with its owner. On the owner's host, the process itself is looked at. Elsewhere its heart must beat: the file's
time of modification must *change* before `expiry` seconds of the observer's own monotonic clock are over. Times of
two machines are never compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from featstore.errors import StoreError
from featstore.files import UnfitFileError
from featstore.fingerprint import digest
from featstore.store import rooms
from featstore.store.claim import Claim, decode, encode, overlapping, without
from featstore.store.commit import commit
from featstore.store.ids import NO_IDS, IdSet
from featstore.store.owner import Owner, is_gone, this_process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from featstore.store.claim import Rows
    from featstore.types import FeatureKey

log = logging.getLogger(__name__)

SUFFIX = ".json"
UNKNOWN = "unknown"
MAX_BYTES = 1 << 31
EXPIRY = 120.0
"""Seconds; NFS clients may show a file's time a minute late."""
BEATS = 8
"""Heartbeats within the time of expiry."""
PATIENCE = 0.5
"""Seconds that two simultaneous claims have to sort themselves out."""


class Leases:
    """The leases of one store.

    Parameters
    ----------
    root
        The cache folder. It need not exist; looking never creates it.
    run
        Leases of the run with this name are one's own.
    expiry
        Seconds without a heartbeat after which the owner on another host counts as dead.
    """

    def __init__(self, root: Path, *, run: str | None = None, expiry: float = EXPIRY) -> None:
        self.run = run or secrets.token_hex(8)
        self.root = root
        self._folder = root / "leases"
        self.expiry = expiry
        self._beats_seen: dict[str, tuple[int, float]] = {}
        self._beating: set[str] = set()
        self._held: dict[str, Lease] = {}
        self._heart: threading.Thread | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        """Keep the claims alive until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what is still held."""
        self._stop.set()
        for lease in list(self._held.values()):
            lease.release()

    def live(self) -> list[Claim]:
        """Claims of living owners, those of this run included; the files of dead ones are removed.

        Raises
        ------
        StoreError
            If the folder of the leases is a link or cannot be read. A file in its place holds none.
        """
        if rooms.is_file(self._folder):
            return []
        found = []
        for path in rooms.files(self.root, self._folder, "lease"):
            claim = self._read(path)
            if claim is not None and self._lives(claim, path):
                found.append(claim)
        return found

    def others(self) -> list[Claim]:
        """Live claims of other runs."""
        return [claim for claim in self.live() if claim.run != self.run]

    def claim(self, rows: Mapping[FeatureKey, IdSet]) -> Lease:
        """Claim those of `rows` that no other live run claims; ``lease.rows`` tells which.

        Two that claim at once both write and then look. If both see each other, the smaller token keeps the rows. If
        only one sees the other, the other does not move any more, and keeps them.
        """
        wanted = {digest(key.to_json()): ids for key, ids in rows.items()}
        lease = Lease(self, secrets.token_hex(16), without(wanted, self.others()))
        lease.publish()
        deadline = time.monotonic() + PATIENCE
        while rivals := overlapping(lease.rows, self.others()):
            stronger = [rival for rival in rivals if rival.token < lease.token]
            if stronger or time.monotonic() > deadline:
                lease.rows = without(lease.rows, stronger or rivals)
                lease.publish()
            else:
                time.sleep(PATIENCE / 50)
        return lease

    def hold(self, lease: Lease) -> None:
        """Let the heart beat for a lease, too."""
        self._held[lease.token] = lease
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._heart.start()

    def drop(self, lease: Lease) -> None:
        """Let the heart beat no longer for a lease."""
        self._held.pop(lease.token, None)

    def path(self, lease: Lease) -> Path:
        """File of a lease."""
        return self._folder / f"{lease.token}{SUFFIX}"

    def require_readable(self) -> None:
        """Raise StoreError if the leases cannot be read: that none are seen would mean nothing."""
        rooms.names(self.root, self._folder)

    def is_certain(self, claim: Claim) -> bool:
        """Whether the owner of a live claim is known to live: it runs on this host, or its heart was seen to beat.

        For all others, which no one here can ask, the expiry has to be waited for.
        """
        return is_gone(claim.owner) is False or claim.token in self._beating

    def file_of(self, claim: Claim) -> Path:
        """File of a claim."""
        return self._folder / f"{claim.token}{SUFFIX}"

    def _beat(self) -> None:
        while not self._stop.wait(self.expiry / BEATS):
            for lease in list(self._held.values()):
                with contextlib.suppress(OSError):
                    os.utime(self.path(lease))

    def _lives(self, claim: Claim, path: Path) -> bool:
        gone = is_gone(claim.owner)
        if gone is None:
            gone = self._is_silent(path)
        if gone:
            self._remove(path)
        return not gone

    def _is_silent(self, path: Path) -> bool:
        try:
            beat = path.lstat().st_mtime_ns
        except OSError:
            return True
        now = time.monotonic()
        last, since = self._beats_seen.get(path.name, (None, now))
        if beat != last:
            if last is not None:
                self._beating.add(path.stem)
            self._beats_seen[path.name] = beat, now
            return False
        return now - since > self.expiry

    def _read(self, path: Path) -> Claim | None:
        """What a lease file says; what says nothing is nobody's, and removed.

        One that may not be read has an owner all the same: a colleague, of whom nothing is known.
        """
        try:
            return decode(path.stem, rooms.read_file(path, MAX_BYTES))
        except (FileNotFoundError, UnfitFileError):  # released meanwhile, or no lease
            return None
        except OSError as error:
            log.debug("%s cannot be read: %s", path, error)
            return Claim(path.stem, "", Owner(UNKNOWN, 1, -1), UNKNOWN, {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            log.debug("%s is no lease: %s", path, error)
            self._remove(path)
            return None

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            rooms.unlink(self.root, path)

    def remove(self, lease: Lease) -> None:
        """Take the file of a lease away."""
        self._remove(self.path(lease))


class Lease:
    """Rows that this process has claimed; as a context manager, until the block ends.

    Attributes
    ----------
    rows
        What was granted: digest of a feature key -> ids of the images.
    """

    def __init__(self, leases: Leases, token: str, rows: Rows) -> None:
        self.token = token
        self.rows = rows
        self._leases = leases

    def __enter__(self) -> Self:
        """Hold the rows."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release them."""
        self.release()

    def granted(self, key: FeatureKey) -> IdSet:
        """Ids that are this owner's to compute under a key."""
        return self.rows.get(digest(key.to_json()), NO_IDS)

    def publish(self) -> None:
        """Write the file for all to see; where that fails, work may be done twice. No rows, no file."""
        if not self.rows:
            self.release()
            return
        since = datetime.now(UTC).isoformat(timespec="seconds")
        claim = Claim(self.token, self._leases.run, this_process(), since, self.rows)
        try:
            commit(self._leases.root, self._leases.path(self), encode(claim))
        except StoreError as error:
            log.debug("lease not written: %s", error.cause)
        else:
            self._leases.hold(self)

    def release(self) -> None:
        """Remove the file."""
        self._leases.drop(self)
        self._leases.remove(self)
