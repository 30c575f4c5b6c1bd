"""When a batch does not fit into a device's memory: halve it and go on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featstore.errors import OutOfMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Backbone, BackboneSpec, Features

log = logging.getLogger(__name__)


class Resizable(Protocol):
    """A backbone that can be compiled anew for a smaller batch."""

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        ...

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        ...

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map images to features; raises `OutOfMemoryError` where they do not fit."""
        ...

    def with_batch_size(self, batch_size: int) -> Backbone:
        """Return the same network compiled for another batch."""
        ...


class HalvingBackbone:
    """A backbone that keeps its batch size to the outside, and works in smaller portions once memory ran out.

    A smaller portion can move the last bits of a row (law 2), so it is said in the log.

    Parameters
    ----------
    backbone
        The network; portions are whole halves of its batch.
    """

    def __init__(self, backbone: Resizable) -> None:
        self.spec = backbone.spec
        self.batch_size = backbone.batch_size
        self._inner: Resizable = backbone

    @property
    def portion(self) -> int:
        """Images computed at a time: `batch_size`, or less where memory ran out."""
        return self._inner.batch_size

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map ``(batch_size, side, side, 3)`` to ``(batch_size, dimension)`` in as many portions as needed.

        Raises
        ------
        OutOfMemoryError
            If not even one image fits.
        """
        while True:
            portion = self._inner.batch_size
            try:
                parts = [
                    self._inner.embed(images[at : at + portion]) for at in range(0, len(images), portion)
                ]
            except OutOfMemoryError:
                if portion == 1:
                    raise
                self._halve(portion)
            else:
                return np.concatenate(parts)

    def _halve(self, portion: int) -> None:
        smaller = portion // 2
        log.warning(
            "%s: %d images do not fit into memory, going on with %d at a time (last bits of features may differ)",
            self.spec.name,
            portion,
            smaller,
        )
        self._inner = self._inner.with_batch_size(smaller)  # type: ignore[assignment]
