"""Out of memory is met by smaller portions, with the same rows in the same places."""

import logging

import numpy as np
import pytest
from fakes import GridBackbone, spec

from featstore.errors import OutOfMemoryError
from featstore.extraction.networks import BackoffBackbone


class Cramped(GridBackbone):
    """A device that holds `room` images, and counts its calls."""

    def __init__(self, identity, batch_size, room):
        super().__init__(identity)
        self.batch_size, self.room, self.refused = batch_size, room, 0

    def embed(self, images):
        if self.batch_size > self.room:
            self.refused += 1
            raise OutOfMemoryError("no room", "take less")
        return super().embed(images)

    def with_batch_size(self, batch_size):
        return Cramped(self.spec, batch_size, self.room)


@pytest.mark.parametrize("room", [16, 15, 8, 5, 1])
def test_the_rows_are_those_of_a_roomy_device(room, caplog):
    images = np.random.default_rng(0).uniform(0, 255, (16, 16, 16, 3)).astype(np.float32)
    roomy = GridBackbone(spec())
    roomy.batch_size = 16
    backbone = BackoffBackbone(Cramped(spec(), 16, room))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(backbone.embed(images), roomy.embed(images))
    assert ("do not fit" in caplog.text) == (room < 16)
    assert backbone.batch_size == 16
    assert backbone.effective_batch_size == max(size for size in (16, 8, 4, 2, 1) if size <= room)


def test_it_stays_with_what_fits_instead_of_failing_again_every_time():
    cramped = Cramped(spec(), 16, 4)
    backbone = BackoffBackbone(cramped)
    images = np.zeros((16, 16, 16, 3), np.float32)
    for _ in range(3):
        backbone.embed(images)
    assert cramped.refused == 1


def test_where_not_one_image_fits_the_error_is_given_on():
    with pytest.raises(OutOfMemoryError):
        BackoffBackbone(Cramped(spec(), 16, 0)).embed(np.zeros((16, 16, 16, 3), np.float32))
