"""The contract that `featstore.testing` ships holds for every format of featstore, and tells a bad one why."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from featstore.images.formats.bmp import Bmp
from featstore.images.formats.container import formats
from featstore.testing import check_format

MODES = {"GIF": ("L", "P"), "JPEG": ("L", "RGB"), "WEBP": ("RGB", "RGBA")}
PILLOW = {"PNM": "PPM"}


def saved(name, mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, PILLOW.get(name, name))
    return file.getvalue()


@pytest.mark.parametrize("name", sorted(formats()))
def test_every_format_keeps_the_contract(name):
    check_format(formats()[name], [saved(name, mode) for mode in MODES.get(name, ("L", "RGB"))])


class Upside(Bmp):
    """Turns the picture over at every second call."""

    calls = 0

    def decode(self, data, frame, value_range, index=None):
        """Pixels."""
        pixels, notes = super().decode(data, frame, value_range, index)
        Upside.calls += 1
        return pixels[:: -1 if Upside.calls % 2 else 1], notes


class Fragile(Bmp):
    """Returns numbers that are no pixels."""

    def decode(self, data, frame, value_range, index=None):
        """Floats."""
        pixels, notes = super().decode(data, frame, value_range, index)
        return pixels.astype(np.float32), notes


class Greedy(Bmp):
    """Takes any file."""

    def sniff(self, head):  # noqa: ARG002
        """Whether it is one of ours."""
        return True


@pytest.mark.parametrize(
    ("broken", "told"), [(Upside, "other pixels"), (Fragile, "float32, not uint8"), (Greedy, "takes zeros")]
)
def test_a_format_that_breaks_it_is_told_how(broken, told):
    with pytest.raises(AssertionError, match=re.escape(told)):
        check_format(broken(), [saved("BMP", "RGB")])
