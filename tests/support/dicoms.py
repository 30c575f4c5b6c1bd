"""DICOM files made for tests: any header over any pixels, one frame or several."""

from __future__ import annotations

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def slice_values(seed=0, shape=(40, 48), low=-1200, high=1600):
    """A slice in Hounsfield units, int16."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def dicom(
    stored, *, syntax=ExplicitVRLittleEndian, fragments=None, frames=None, photometric="MONOCHROME2", **header
):
    """Bytes of a file; `stored` is what the header describes, `fragments` are its compressed frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(
        entropy_srcs=["test"]
    )
    dataset.file_meta.TransferSyntaxUID = syntax
    shape = stored.shape[1:] if frames else stored.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = shape[2] if len(shape) > 2 else 1
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    data = stored.tobytes() if fragments is None else encapsulate(fragments)
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if fragments is not None or dataset.BitsAllocated == 8 else "OW"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def item(**elements):
    """A dataset as it stands in a sequence."""
    found = Dataset()
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found
