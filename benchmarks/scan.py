"""Scanning 1,000 and 10,000 files, PNG and DICOM: time per file must not grow; and when the first bar shows.

Each scan runs in a fresh process after one of a few files, so that what is imported does not count.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
MOST = 1.3
"""Largest ratio of the time per file to that of the fewest files."""
CHILD = """
import sys, time
from featstore import scan
scan(sys.argv[2])  # what is imported and warmed up does not count
start = time.process_time()
print(len(scan(sys.argv[1]).records), time.process_time() - start)
"""
BAR = """
import sys
from featstore import scan
from featstore.processes import progress_bars
scan(sys.argv[2])
print("begin", file=sys.stderr, flush=True)
with progress_bars(wanted=True):
    scan(sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--kinds", nargs="+", choices=("png", "dicom"), default=["png", "dicom"])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    grew = []
    for kind in arguments.kinds:
        first = 0.0
        for count in arguments.files:
            folder = Path(tempfile.mkdtemp(dir=arguments.folder))
            try:
                fill(folder / "few", kind, 64)
                fill(folder / "all", kind, count)
                seconds, bar = run(folder), first_bar(folder)
            finally:
                shutil.rmtree(folder)
            first = first or seconds / count
            ratio = seconds / count / first
            grew += [f"{kind} {count}"] if ratio > MOST else []
            shown = "none, it was done" if bar is None else f"after {bar:.2f} s"
            print(
                f"{kind:6} {count:7,} files: {1e6 * seconds / count:6.0f} us of CPU per file, ratio {ratio:4.2f};"
                f" first bar {shown}",
                flush=True,
            )
    if grew:
        sys.exit(f"Too slow: {', '.join(grew)}")


def fill(root: Path, kind: str, count: int) -> None:
    """`count` different pictures in two classes."""
    data = template(kind)
    for number in range(count):
        path = root / "ab"[number % 2] / f"p{number // 40}" / f"{number:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".png" if kind == "png" else ".dcm").write_bytes(data + number.to_bytes(4, "little"))


def template(kind: str) -> bytes:
    """One small picture; bytes behind its end make it another file."""
    import io

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    if kind == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PatientID, dataset.SeriesInstanceUID = "P", generate_uid()
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 1], [1, 0, 0, 0, 1, 0]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def run(folder: Path) -> float:
    """Seconds of CPU of a scan in a process of its own."""
    command = [sys.executable, "-c", CHILD, folder / "all", folder / "few"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[1])


def first_bar(folder: Path) -> float | None:
    """Seconds from the start of the scan to its first bar; None where it was done before."""
    command = [sys.executable, "-c", BAR, folder / "all", folder / "few"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:  # noqa: S603
        assert process.stderr is not None
        process.stderr.readline()
        began = time.perf_counter()
        found = process.stderr.read(1)
        seconds = time.perf_counter() - began
        process.kill()
    return seconds if found else None


if __name__ == "__main__":
    main()
