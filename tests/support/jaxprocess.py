"""A process where Keras runs on JAX: in the tests' own it runs on TensorFlow, and in one process on one of them."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np


def start() -> ProcessPoolExecutor:
    """A process that lives as long as the executor and keeps its networks; `submit` takes what stands below."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def check_and_embed(name, weights, images):
    """`featstore.testing.check_backbone` on JAX, then what `embed` gives: loaded and compiled once."""
    from featstore.backbones.jax_backbone import load_backbone
    from featstore.testing import check_backbone

    backbone = load_backbone(name, weights, batch_size=len(images))
    check_backbone(backbone)
    found = backbone.embed(images), backbone.computation, backbone.spec
    _let_go()
    return found


def embed(name, weights, images, **options):
    """Vectors of a batch, and what its shards would record."""
    from featstore.backbones.jax_backbone import load_backbone

    backbone = load_backbone(name, weights, batch_size=len(images), **options)
    found = backbone.embed(images), backbone.computation, backbone.spec
    _let_go()
    return found


def in_smaller_batches(name, weights, images, size):
    """Vectors of a batch that is computed in parts."""
    from featstore.backbones.jax_backbone import load_backbone

    return load_backbone(name, weights, batch_size=size).fetch(
        load_backbone(name, weights, batch_size=size).start(images)
    )


def failure(name, weights, images=None, **options):
    """The error of loading a network, or of computing."""
    from featstore.backbones.jax_backbone import load_backbone
    from featstore.errors import FeatstoreError

    try:
        backbone = load_backbone(name, weights, **options)
        backbone.embed(np.asarray(images))
    except FeatstoreError as error:
        return type(error).__name__, error.cause, error.remedy
    return None


def warped(pixels, transform, fill, cval):
    """Pictures ``(n, height, width, channels)`` of the warp on the device, each through the same transform."""
    from featstore.images import augment

    where = augment.reads([transform] * len(pixels), *pixels.shape[1:3])
    return np.asarray(augment.device_warp(pixels, where, fill, cval))


def seen(images, rows, transforms, fill, cval, batch_size):
    """What `DeviceImages` shows of pictures after an upload."""
    from featstore.images.augment import DeviceImages

    there = DeviceImages.upload(images, batch_size)
    return str(there.pixels.dtype), there.pixels.shape, np.asarray(there.seen(rows, transforms, fill, cval))


def loaded_modules():
    """Names of what this process has imported."""
    import sys

    return {name.partition(".")[0] for name in sys.modules}


def _let_go():
    import gc

    import jax
    import keras

    keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
