"""Training loop of a fine-tuning: the head first, then epoch by epoch until validation gets no better.

The batches have the same pixels that an extraction would make (law 1).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from featstore import processes
from featstore.errors import BadImageError
from featstore.extraction.pipeline import Batch, batches, prefetch
from featstore.extraction.plan import ImageBlock, Step
from featstore.images.reading import read_pixels
from featstore.processes import threads
from featstore.results.extraction import LossAndAccuracy
from featstore.store.notes import BadImage
from featstore.types import IDENTITY, Decoding, ImageRecord, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from featstore.backbones.trainable import LinearHead, TrainableBackbone

    Rows = NDArray[np.intp]
    Pixels = NDArray[np.float32]
    from featstore.types import Features

# Training

MIN_DELTA = 1e-7
"""Probability below which the loss grows no more."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Outcome of a training.

    Attributes
    ----------
    before
        Validation of the frozen network under a linear head.
    after
        Validation of the weights that are kept.
    best_epoch
        When they were reached; 0 if no epoch was better than the frozen network.
    history
        By epoch: ``loss`` and ``accuracy`` in training, ``val_loss`` and ``val_accuracy``.
    """

    before: LossAndAccuracy
    after: LossAndAccuracy
    best_epoch: int
    history: Mapping[str, tuple[float, ...]]

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.history["loss"])


def train(
    network: TrainableBackbone,
    training_batches: TrainingBatches,
    validation: TrainingBatches,
    recipe: str,
    *,
    fit_head: Callable[[Features, Rows], LinearHead],
    epochs: int,
    patience: int,
    seed: int,
    progress: Callable[[int], object],
) -> TrainingResult:
    """Train a network, and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        The network, still without a head.
    training_batches, validation
        Training images, and images by which the best epoch is chosen, seen as they are.
    recipe
        Augmentation, canonical text. In epoch e each image is shown in the view (recipe, seed e).
    fit_head
        Makes a head of the frozen features ``(n, dimension)`` of the training images, and their classes ``(n,)``.
    epochs, patience
        At most so many epochs, and so many without a better validation loss.
    seed
        Of the order of the images.
    progress
        Called with the number of images after each batch.
    """
    features = _frozen_features(network, training_batches)
    network.attach_head(fit_head(features, training_batches.y.astype(np.intp)))
    before = best = evaluate(network, validation)
    best_epoch = 0
    network.snapshot()
    rng = np.random.default_rng(seed)
    rows: list[tuple[LossAndAccuracy, LossAndAccuracy]] = []
    for epoch in range(1, epochs + 1):
        taught = _train_epoch(
            network, training_batches, View(recipe, epoch), rng.permutation(len(training_batches)), progress
        )
        now = evaluate(network, validation)
        rows.append((taught, now))
        if now.loss < best.loss:
            best, best_epoch = now, epoch
            network.snapshot()
        if epoch - best_epoch >= patience:
            break
    network.restore()
    history = {
        "loss": tuple(taught.loss for taught, _ in rows),
        "accuracy": tuple(taught.accuracy for taught, _ in rows),
        "val_loss": tuple(now.loss for _, now in rows),
        "val_accuracy": tuple(now.accuracy for _, now in rows),
    }
    return TrainingResult(before, best, best_epoch, history)


def _frozen_features(network: TrainableBackbone, training_batches: TrainingBatches) -> Features:
    """Features ``(n, dimension)`` of the images as they are, before anything is learned."""
    features = np.empty((len(training_batches), network.dimension), np.float32)
    for rows, pixels in training_batches.stream(IDENTITY):
        features[rows] = network.features(pixels)[: len(rows)]
    return features


def evaluate(network: TrainableBackbone, training_batches: TrainingBatches) -> LossAndAccuracy:
    """Loss and accuracy on the identity view."""
    proba: NDArray[np.float64] = np.concatenate(
        [network.predict_proba(pixels)[: len(rows)] for rows, pixels in training_batches.stream(IDENTITY)]
    )
    chances = proba[np.arange(len(training_batches)), training_batches.y].clip(MIN_DELTA)
    right = proba.argmax(axis=1) == training_batches.y
    return LossAndAccuracy(
        loss=float(np.average(-np.log(chances), weights=training_batches.factors)),
        accuracy=float(right.mean()),
    )


def _train_epoch(
    network: TrainableBackbone,
    training_batches: TrainingBatches,
    view: View,
    order: NDArray[np.intp],
    progress: Callable[[int], object],
) -> LossAndAccuracy:
    total, right = 0.0, 0
    for rows, pixels in training_batches.stream(view, order):
        loss, hits = network.train_on_batch(pixels, *training_batches.padded(rows))
        total, right = total + loss, right + hits
        progress(len(rows))
    return LossAndAccuracy(
        loss=total / float(training_batches.factors.sum()), accuracy=right / len(training_batches)
    )


# Labelled images in batches

BATCHES = 8
"""Decoded at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBatches:
    """Images with what a network should say of them.

    Attributes
    ----------
    records
        The images.
    y
        ``(n,)`` int32 class numbers.
    factors
        ``(n,)`` float32 factors on the loss of each image.
    decoding
        How their pixels are made.
    side, batch_size
        Of the network.
    """

    records: tuple[ImageRecord, ...]
    y: NDArray[np.int32]
    factors: NDArray[np.float32]
    decoding: Decoding
    side: int
    batch_size: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def stream(self, view: View, order: Rows | None = None) -> Iterator[tuple[Rows, Pixels]]:
        """Yield row numbers, and pixels ``(batch_size, side, side, 3)`` float32 of which the last may be padding.

        Parameters
        ----------
        view
            How every image is shown.
        order
            Row numbers in the order wanted; None for all as they are.

        Raises
        ------
        BadImageError
            If a file has changed or vanished since it was looked at.
        """
        rows = np.arange(len(self)) if order is None else order
        by_id = {record.id: record for record in self.records}
        numbers = {record.id: row for row, record in enumerate(self.records)}
        wanted = self._blocks(view, [self.records[row].id for row in rows])
        source = prefetch(batches(wanted, by_id, self.decoding, self.batch_size, threads()))
        with closing(source):
            for item in source:
                processes.raise_if_requested()
                if not isinstance(item, Batch):
                    raise BadImageError(item.reason, f"{by_id[item.id].path}: {item.detail}")
                yield np.array([numbers[i] for i in item.ids]), item.pixels

    def padded(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Classes and factors ``(batch_size,)`` of a batch; padding counts nothing."""
        y = np.zeros(self.batch_size, np.int32)
        factors = np.zeros(self.batch_size, np.float32)
        y[: len(rows)], factors[: len(rows)] = self.y[rows], self.factors[rows]
        return y, factors

    def _blocks(self, view: View, ids: list[str]) -> Iterator[ImageBlock]:
        size = BATCHES * self.batch_size
        for start in range(0, len(ids), size):
            part = tuple(ids[start : start + size])
            yield ImageBlock(part, (Step(view, self.side, part, ()),))


def unreadable(records: Iterable[ImageRecord], decoding: Decoding) -> dict[str, BadImage]:
    """Images that do not decode, by id: they will have no features, hence no place in a split."""
    with ThreadPoolExecutor(threads(), thread_name_prefix="pixels") as pool:
        found = pool.map(partial(_decoding_failure, decoding=decoding), records)
        return {bad.id: bad for bad in found if bad is not None}


def _decoding_failure(record: ImageRecord, decoding: Decoding) -> BadImage | None:
    try:
        read_pixels(record, decoding)
    except BadImageError as error:
        return BadImage(record.id, error.reason, error.detail)
    return None
