"""Plain HDF5 for other people's scripts: arrays by name, readable by anything that reads HDF5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def encode(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, str]) -> bytes:
    """Serialise arrays to the bytes of an HDF5 file without filters; equal content gives equal bytes.

    Parameters
    ----------
    arrays
        Numbers, or fixed-length bytes (``S``), by data set name.
    attributes
        Text, attached to the root.
    """
    with h5py.File.in_memory() as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False).flush()
        for name, text in attributes.items():
            file.attrs[name] = text
        file.flush()
        return bytes(file.id.get_file_image())
