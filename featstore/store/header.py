"""The first bytes of a shard: enough to see, without reading it, that a file was cut short or is something else."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from featstore.errors import ShardCorruptError
from featstore.files import UnfitFileError, open_regular
from featstore.store.shard import REMEDY

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = b"\x89HDF\r\n\x1a\n"
END_OF_FILE = {0: (40, 48), 1: (44, 52), 2: (28, 36), 3: (28, 36)}
"""Where the superblock of each version keeps the length of the file (HDF5 File Format Specification, II.A)."""
LONGEST = 52
DIGEST = re.compile(r"[0-9a-f]{64}")


def check(path: Path) -> int:
    """Return 0 if name, header and size of a shard file belong together.

    Raises
    ------
    ShardCorruptError
        If they do not.
    """
    if not DIGEST.fullmatch(path.stem):
        raise ShardCorruptError("its name is no SHA-256", REMEDY)
    try:
        with open_regular(path, follow_links=False) as file:
            start, size = file.read(LONGEST), os.fstat(file.fileno()).st_size
    except UnfitFileError as error:
        raise ShardCorruptError(str(error.strerror), REMEDY) from error
    if not start.startswith(SIGNATURE) or len(start) < LONGEST or start[8] not in END_OF_FILE:
        raise ShardCorruptError("it does not begin like an HDF5 file", REMEDY)
    first, last = END_OF_FILE[start[8]]
    announced = int.from_bytes(start[first:last], "little")
    if announced != size:
        raise ShardCorruptError(f"it has {size} bytes, and its header says {announced}", REMEDY)
    return 0
