"""PBM, PGM, PPM and PFM: the portable pixmaps."""

from __future__ import annotations

import io
import re
from typing import Any, ClassVar

from featstore.images.formats.container import PillowFormat


class Pnm(PillowFormat):
    """Portable pixmaps, plain and raw; those of 16 bits and PFM need a range."""

    name: ClassVar[str] = "PPM"
    suffixes: ClassVar[tuple[str, ...]] = (".pbm", ".pgm", ".pnm", ".ppm")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"P[1-6f][\s#]")
    code: ClassVar[int] = 5

    def needs_range(self, data: bytes, frame: int, index: Any = None) -> bool:  # noqa: ANN401, ARG002
        """Whether the header says 16 bits or floats."""
        from featstore.images.formats import pillow

        return pillow.needs_range(io.BytesIO(data), self.name)
