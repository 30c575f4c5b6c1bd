"""Leases: rows that a run has reserved, so that no other run computes them; they save work and guarantee nothing.

A shard is named by its bytes, so work that is done twice costs time and nothing else; hence no kernel locks, which
network file systems lack or get wrong, and no error where a lease cannot be written. A lease is a small file that
ends with its owner. On the owner's host, the process itself is looked at. Elsewhere it must renew it: the file's time
of modification must *change* before `expiry` seconds of the observer's own monotonic clock are over. Times of two
machines are never compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from featstore.errors import StoreError
from featstore.serialization import UnfitFileError, canonical_json, digest, parse_json
from featstore.store import paths
from featstore.store.paths import commit
from featstore.store.shard import NO_IDS, IdSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from featstore.types import FeatureKey

    Rows = Mapping[str, IdSet]

# Leases of one store

log = logging.getLogger(__name__)

SUFFIX = ".json"
UNKNOWN = "unknown"
MAX_LEASE_BYTES = 1 << 31
EXPIRY = 120.0
"""Seconds; NFS clients may show a file's time a minute late."""
BEATS = 8
"""Heartbeats within the time of expiry."""
RETRY_SECONDS = 0.5
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

    def live(self) -> list[LeaseRecord]:
        """Claims of living owners, those of this run included; the files of dead ones are removed.

        Raises
        ------
        StoreError
            If the folder of the leases is a link or cannot be read. A file in its place holds none.
        """
        if paths.is_file(self._folder):
            return []
        found = []
        for path in paths.files(self.root, self._folder, "lease"):
            record = self._read(path)
            if record is not None and self._lives(record, path):
                found.append(record)
        return found

    def others(self) -> list[LeaseRecord]:
        """Live claims of other runs."""
        return [record for record in self.live() if record.run != self.run]

    def acquire(self, rows: Mapping[FeatureKey, IdSet]) -> Lease:
        """Claim those of `rows` that no other live run claims; ``lease.rows`` tells which.

        Two that claim at once both write and then look. If both see each other, the smaller token keeps the rows. If
        only one sees the other, the other does not move any more, and keeps them.
        """
        wanted = {digest(key.to_json()): ids for key, ids in rows.items()}
        lease = Lease(self, secrets.token_hex(16), without(wanted, self.others()))
        lease.publish()
        deadline = time.monotonic() + RETRY_SECONDS
        while rivals := overlapping(lease.rows, self.others()):
            stronger = [rival for rival in rivals if rival.token < lease.token]
            if stronger or time.monotonic() > deadline:
                lease.rows = without(lease.rows, stronger or rivals)
                lease.publish()
            else:
                time.sleep(RETRY_SECONDS / 50)
        return lease

    def start_renewal(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._held[lease.token] = lease
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._heart.start()

    def stop_renewal(self, lease: Lease) -> None:
        """Renew a lease no longer."""
        self._held.pop(lease.token, None)

    def path(self, lease: Lease) -> Path:
        """File of a lease."""
        return self._folder / f"{lease.token}{SUFFIX}"

    def require_readable(self) -> None:
        """Raise StoreError if the leases cannot be read: that none are seen would mean nothing."""
        paths.names(self.root, self._folder)

    def is_certain(self, record: LeaseRecord) -> bool:
        """Whether the owner of a live claim is known to live: it runs on this host, or was seen to renew its lease.

        For all others, which no one here can ask, the expiry has to be waited for.
        """
        return is_gone(record.owner) is False or record.token in self._beating

    def file_of(self, record: LeaseRecord) -> Path:
        """File of a claim."""
        return self._folder / f"{record.token}{SUFFIX}"

    def _beat(self) -> None:
        while not self._stop.wait(self.expiry / BEATS):
            for lease in list(self._held.values()):
                with contextlib.suppress(OSError):
                    os.utime(self.path(lease))

    def _lives(self, record: LeaseRecord, path: Path) -> bool:
        gone = is_gone(record.owner)
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

    def _read(self, path: Path) -> LeaseRecord | None:
        """What a lease file says; what says nothing is nobody's, and removed.

        One that may not be read has an owner all the same: a colleague, of whom nothing is known.
        """
        try:
            return decode_claim(path.stem, paths.read_file(path, MAX_LEASE_BYTES))
        except (FileNotFoundError, UnfitFileError):  # released meanwhile, or no lease
            return None
        except OSError as error:
            log.debug("%s cannot be read: %s", path, error)
            return LeaseRecord(path.stem, "", Owner(UNKNOWN, 1, -1), UNKNOWN, {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            log.debug("%s is no lease: %s", path, error)
            self._remove(path)
            return None

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            paths.unlink(self.root, path)

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
        record = LeaseRecord(self.token, self._leases.run, this_process(), since, self.rows)
        try:
            commit(self._leases.root, self._leases.path(self), encode_claim(record))
        except StoreError as error:
            log.debug("lease not written: %s", error.cause)
        else:
            self._leases.start_renewal(self)

    def release(self) -> None:
        """Remove the file."""
        self._leases.stop_renewal(self)
        self._leases.remove(self)


# Lease files: which process computes which rows

LAST_PID = 1 << 31


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Content of a lease file.

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


def overlapping(rows: Rows, records: Iterable[LeaseRecord]) -> list[LeaseRecord]:
    """Those of the claims that have a row in common with `rows`."""
    return [c for c in records if any(_common(ids, c.rows.get(key, NO_IDS)) for key, ids in rows.items())]


def without(rows: Rows, records: Iterable[LeaseRecord]) -> Rows:
    """Subtract the rows of all claims; keys with no row left are left out."""
    for record in records:
        rows = {key: ids.difference(record.rows.get(key, NO_IDS)) for key, ids in rows.items()}
    return {key: ids for key, ids in rows.items() if ids}


def encode_claim(record: LeaseRecord) -> bytes:
    """Serialise a claim to JSON; keys with the same images share one list."""
    lists: dict[bytes, list[str]] = {}
    for key, ids in record.rows.items():
        lists.setdefault(ids.rows.tobytes(), []).append(key)
    rows = [{"ids": packed.hex(), "keys": keys} for packed, keys in lists.items()]
    page = {"run": record.run, "owner": asdict(record.owner), "since": record.since, "rows": rows}
    return canonical_json(page).encode()


def decode_claim(token: str, data: bytes) -> LeaseRecord:
    """Read back what `encode` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, RecursionError
        If the bytes are no claim.
    """
    page = parse_json(data)
    owner = Owner(str(page["owner"]["host"]), int(page["owner"]["pid"]), int(page["owner"]["start"]))
    if not 0 < owner.pid < LAST_PID or not owner.host.isprintable():
        raise ValueError(f"{owner} is no process")
    rows = {
        key: ids
        for group in page["rows"]
        for ids in [IdSet.from_bytes(bytes.fromhex(group["ids"]))]
        for key in group["keys"]
    }
    return LeaseRecord(token, str(page["run"]), owner, str(page["since"]), rows)


def _common(ids: IdSet, others: IdSet) -> bool:
    return bool(others.holds(ids.rows).any())


# Owners: which process something belongs to, and whether that process is still there

PROC = Path("/proc")
STATE, START = 0, 19
"""Fields of ``/proc/PID/stat`` behind the name: state, and time of start in ticks since boot."""
ENDED = {"Z", "X"}


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that no other process in the world has the same name.

    Attributes
    ----------
    host
        Name of the machine, its boot and its PID namespace: containers share names, and reboots reuse PIDs.
    pid
        Process number on that host.
    start
        When the process began, in ticks since the host's boot; no clock that can be set. -1 where it is not known.
    """

    host: str
    pid: int
    start: int


def this_process() -> Owner:
    """Return the owner of what this process does."""
    return Owner(_host(), os.getpid(), _start(os.getpid()) or -1)


def is_gone(owner: Owner) -> bool | None:
    """Whether a process has ended; None where this process cannot know: on another host, or without ``/proc``."""
    if owner.host != _host():
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        pass
    start = _start(owner.pid)
    return None if start is None or owner.start < 0 else start != owner.start


@cache
def _host() -> str:
    parts = [socket.gethostname()]
    try:
        parts += [(PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()]
        parts += [str((PROC / "self/ns/pid").readlink())]
    except OSError:  # not Linux: the name has to do
        pass
    return " ".join(parts)


def _start(pid: int) -> int | None:
    """Ticks from boot to the start of a process; 0 for a zombie, None where nothing can be read."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return 0 if fields[STATE] in ENDED else int(fields[START])


# Exclusive use of a store, which gc and compaction insist on

POLL = 0.5
"""Seconds between two looks at a lease whose owner cannot be asked."""


def require_exclusive(leases: Leases) -> None:
    """Refuse while another run writes to the store.

    A lease of another host, of before a reboot or of an ended container has an owner who cannot be asked. It is
    watched until it is renewed, or until the expiry is over and it counts as left behind.

    Raises
    ------
    StoreError
        If another run does: names host, process and the file of its lease. Or if the leases cannot be read.
    """
    leases.require_readable()
    told: set[str] = set()
    while others := leases.others():
        certain = [record for record in others if leases.is_certain(record)]
        if certain:
            raise _written_to(leases, certain)
        if fresh := [record for record in others if record.token not in told]:
            told.update(record.token for record in fresh)
            log.warning(
                "%s: %s cannot be asked from here; its lease is watched for %.0f s, and left behind if it is still.",
                leases.file_of(fresh[0]),
                _who(fresh[0]) + (f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""),
                leases.expiry,
            )
        time.sleep(POLL)


def _written_to(leases: Leases, records: Sequence[LeaseRecord]) -> StoreError:
    who = "; ".join(sorted({f"{_who(record)}, since {record.since}" for record in records}))
    return StoreError(
        f"This cache is being written to: {who}.",
        "Wait until that is done, and run the same command again. Should nothing run there, delete"
        f" {leases.file_of(records[0])}.",
    )


def _who(record: LeaseRecord) -> str:
    host = record.owner.host.partition(" ")[0]
    return (
        "an owner whose lease may not be read" if host == UNKNOWN else f"process {record.owner.pid} on {host}"
    )
