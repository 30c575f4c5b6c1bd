"""Networks of any library, loaded by their rows; Keras is one loader, and imported for its own networks alone."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.backbones import catalog, engines, keras_backbone
from featstore.backbones.precision import FLOAT32, cpu_name, require_precision
from featstore.backbones.weights import IMAGENET, Weights, resolve_weights
from featstore.errors import (
    BackboneError,
    FeatstoreError,
    OutOfMemoryError,
    UsageError,
)
from featstore.types import PLUG_IN, Backbone, BackboneSpec, Computation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.backbones.jax_backbone import JaxBackbone
    from featstore.types import Features


def spec(
    row: Row,
    weights: Weights,
    preprocess: str = keras_backbone.OFFICIAL,
    precision: str = FLOAT32,
) -> BackboneSpec:
    """Identity of a backbone, computed without loading it.

    Raises
    ------
    UsageError
        If there is no such preprocessing or precision, or the network has not got it.
    WeightsError
        If the weights are still to be downloaded and hence have no digest.
    """
    if row.loader:
        require_own_options(row, preprocess, precision)
    return keras_backbone.spec(row, weights, preprocess, precision)


def require_own_options(row: Row, preprocess: str, precision: str) -> None:
    """Refuse for a network that is not Keras' what featstore can do to those of Keras alone.

    Raises
    ------
    UsageError
        If it was asked for.
    """
    keras_backbone.require_preprocess(preprocess)
    require_precision(precision)
    if preprocess != keras_backbone.OFFICIAL:
        raise UsageError(
            f"{row.name} prepares its pixels itself: there is no {preprocess} for it.",
            "Leave out the network, or prepare none otherwise: `featstore extract DATA --preprocess official`.",
        )
    if precision not in row.precisions:
        raise UsageError(
            f"{row.name} does not compute in {precision}.",
            f"Leave out the network, or say `featstore extract DATA --precision {row.precisions[0]}`.",
        )


def load_backbone(
    name: str,
    weights: str = IMAGENET,
    preprocess: str = keras_backbone.OFFICIAL,
    batch_size: int = 16,
    precision: str = FLOAT32,
    engine: str = engines.TENSORFLOW,
) -> ForeignBackbone | JaxBackbone | keras_backbone.KerasBackbone:
    """Load a network of the catalogue by its loader, or one of Keras on an engine.

    The other arguments are those of `keras_backbone.load_backbone`.

    Raises
    ------
    UnknownNameError, UsageError
        If an argument cannot be meant, or the network has not got that preprocessing or precision.
    WeightsError
        If weights are absent, unreachable, or not those of the network.
    BackboneError
        If the loader fails, or what it returns is not what its row says.
    """
    row = catalog.row(name)
    if not row.loader:
        return engines.load_backbone(engine, name, weights, preprocess, batch_size, precision)
    found = resolve_weights(row, weights)
    return ForeignBackbone.load(row, spec(row, found, preprocess, precision), found.path, batch_size)


@dataclass(frozen=True, slots=True)
class ForeignBackbone:
    """A network that a loader of somebody else returned, and whose every answer is looked at."""

    spec: BackboneSpec
    batch_size: int
    _row: Row = field(repr=False)
    _weights: Path | None = field(repr=False)
    _network: Backbone = field(repr=False, compare=False)

    @classmethod
    def load(cls, row: Row, spec: BackboneSpec, weights: Path | None, batch_size: int) -> ForeignBackbone:
        """Call the loader of a row.

        Raises
        ------
        BackboneError
            If it fails, or returns no backbone of that spec and batch size.
        """
        remedy = "`featstore.testing.check_backbone` says what a loader has to return."
        what = f"The loader {row.loader} of {row.name}"
        try:
            network = pkgutil.resolve_name(row.loader)(spec, weights, batch_size)
        except FeatstoreError:
            raise
        except Exception as error:
            raise BackboneError(f"{what} fails: {_one_line(error)}", remedy) from error
        for name, wanted in (("spec", spec), ("batch_size", batch_size)):
            if getattr(network, name, None) != wanted:
                raise BackboneError(
                    f"{what} returns a network whose {name} is not the one asked for.", remedy
                )
        return cls(spec, batch_size, row, weights, network)

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time."""
        return self._network.effective_batch_size

    @property
    def computation(self) -> Computation:
        """How its vectors come about, as far as featstore can tell."""
        libraries = getattr(self._network, "libraries", self._row.version)
        return Computation(self.effective_batch_size, PLUG_IN, cpu_name(), libraries)

    def with_batch_size(self, batch_size: int) -> ForeignBackbone:
        """Load the same network for another batch."""
        return self.load(self._row, self.spec, self._weights, batch_size)

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map images to features; see `featstore.types.Backbone`.

        Raises
        ------
        UsageError
            If shape or dtype of the images differ from what the spec says.
        BackboneError
            If the network fails, or gives something else than ``(batch_size, dimension)`` float32.
        NonFiniteFeaturesError
            If a feature is NaN or infinite.
        OutOfMemoryError
            If there is no room for a batch of this size.
        """
        keras_backbone.require_images(self.spec, self.batch_size, images)
        remedy = "Check its weights, and what it does with pixels of 0..255."
        return keras_backbone.require_finite_features(self.spec, self._checked(self._run(images)), remedy)

    def _run(self, images: NDArray[np.float32]) -> Any:  # noqa: ANN401
        try:
            return self._network.embed(images)
        except FeatstoreError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"{self.spec.name} has no room for {self.batch_size} images.",
                "Use a machine with more memory.",
            ) from error
        except Exception as error:
            raise BackboneError(
                f"{self.spec.name} fails: {_one_line(error)}", f"Mend the network behind {self._row.loader}."
            ) from error

    def _checked(self, features: Any) -> Features:  # noqa: ANN401
        expected = self.batch_size, self.spec.dimension
        kind, shape = getattr(features, "dtype", type(features).__name__), getattr(features, "shape", ())
        if kind != np.float32 or shape != expected:
            raise BackboneError(
                f"{self.spec.name} gives {kind} of shape {tuple(shape)}, and its row says float32 {expected}.",
                "Correct the row, or what the network returns.",
            )
        return np.asarray(features)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
