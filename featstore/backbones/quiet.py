"""TensorFlow's greeting: a dozen lines on stderr that no setting of TensorFlow 2.21 turns off."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)
STDERR = 2


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Send what native code writes to stderr to the debug log, or back to stderr if the block fails.

    Does nothing once TensorFlow is loaded, so that later messages are seen.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as talk:
        os.dup2(talk.fileno(), STDERR)
        try:
            yield
        except BaseException:
            os.dup2(kept, STDERR)
            talk.seek(0)
            os.write(STDERR, talk.read())
            raise
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
        talk.seek(0)
        log.debug("%s", talk.read().decode(errors="replace"))
