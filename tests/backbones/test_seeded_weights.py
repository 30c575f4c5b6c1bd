"""Seeded weights are the same numbers with and without TensorFlow."""

import numpy as np
import pytest

from featstore.backbones import jax_backbone


@pytest.mark.parametrize("seed", [1, 123_456_789, 999_999_999])
@pytest.mark.parametrize("shape", [(7,), (3, 3, 5, 8), (1001, 37)])
def test_the_numbers_are_those_of_tensorflow(seed, shape):
    import tensorflow as tf

    drawn = tf.random.stateless_uniform(shape, minval=-0.3, maxval=0.3, seed=[seed, 0]).numpy()
    assert (jax_backbone.uniform(shape, -0.3, 0.3, seed) == drawn).all()
    for ours, theirs in (
        (jax_backbone.normal, tf.random.stateless_normal),
        (jax_backbone.truncated_normal, tf.random.stateless_truncated_normal),
    ):
        drawn = theirs(shape, mean=0.1, stddev=0.5, seed=[seed, 0]).numpy()
        assert np.abs(ours(shape, 0.1, 0.5, seed) - drawn).max() < 2e-6
