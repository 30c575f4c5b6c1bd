"""Pictures and data sets, made on the fly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COVID_CT = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "covid_ct"


def _picture(seed: int = 0, size: tuple[int, int] = (31, 24), mode: str = "RGB") -> Image.Image:
    """A gradient with noise, so that every codec has something to do and no two seeds are alike."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] * np.array([1, 2, 3]) % 190
    return Image.fromarray((slope + noise).astype(np.uint8)).convert(mode)


def _encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(seed: int = 0) -> bytes:
    return _encode(_picture(seed))


@pytest.fixture(scope="session")
def picture():
    return _picture


@pytest.fixture(scope="session")
def encode():
    return _encode


@pytest.fixture(scope="session")
def png():
    return _png


@pytest.fixture
def write(tmp_path):
    """Write ``{relative path: bytes, or a seed}`` below a fresh folder and return the folder."""

    def write_files(files: dict[str, bytes | int], root: Path = tmp_path / "data") -> Path:
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(content) if isinstance(content, int) else content)
        return root

    return write_files


@pytest.fixture(scope="session")
def covid_ct() -> Path:
    if not COVID_CT.is_dir():
        pytest.skip("the shared CT images are not on this machine")
    return COVID_CT
