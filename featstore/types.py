"""Types that several packages share: keys, views, records, blocks, and the protocols of networks and executors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Features = NDArray[np.float32]

T = TypeVar("T")
R = TypeVar("R")

IMAGE, GROUP = UNITS = ("image", "group")
"""What is scored, and what a strategy answers for: images, or whole groups, which are patients."""
IDENTITY_RECIPE = "identity"
BACKBONE_REVISION = 3
DECODING_REVISION = 1
IMPORTED_PREFIX = "foreign:"
LONGEST_NAME, LARGEST_SEED = 200, 10**200
"""Folders bear the name of a backbone and the seed of a view, and a disk takes 255 bytes for a name."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One row of a manifest.

    Attributes
    ----------
    id
        Image id: 64 hex digits, the SHA-256 of the file's bytes (of digest and page for a multi-page file).
    path
        Where the file is now; never stored in the cache.
    label
        Name of the class.
    group
        Patient or other unit that must stay on one side of a split; the image id where none is known.
    split
        ``train``, ``val``, ``test``, or None.
    site
        Scanner or hospital, or None.
    frame
        Page of a multi-page file, else 0.
    covariates
        Cells of the columns that were named as covariates, in that order.
    """

    id: str
    path: Path
    label: str
    group: str
    split: str | None = None
    site: str | None = None
    frame: int = 0
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class View:
    """One way of looking at every image: an augmentation recipe (canonical text) and its seed."""

    recipe: str = IDENTITY_RECIPE
    seed: int = 0

    @property
    def is_identity(self) -> bool:
        """Whether the view leaves pixels alone."""
        return self.recipe == IDENTITY_RECIPE


IDENTITY = View()


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Identity of a frozen network up to its global average pooling: everything that can change a number.

    Attributes
    ----------
    name
        Catalogue name, spelt as in keras.applications.
    weights
        Digest of the weights: ``sha256:…`` of the file, or ``random:SEED keras X.Y.Z``. For imported vectors, which
        no network here computes, ``foreign:…`` with the SHA-256 of the file that they came in.
    input_size
        Side of the square input, pixels.
    preprocess
        ``official`` (the network's own) or ``rescale`` (1/255, the paper's).
    dimension
        Length of the pooled vector.
    precision
        Arithmetic: ``float32``, ``bfloat16`` or ``float16``.
    pooling
        ``avg``: global average pooling.
    revision
        Raised when featstore changes what this spec computes. 2: batch norms are folded, which moves last bits;
        3: bfloat16 spares narrow depthwise networks.
    """

    name: str
    weights: str
    input_size: int
    preprocess: str
    dimension: int
    precision: str = "float32"
    pooling: str = "avg"
    revision: int = BACKBONE_REVISION

    @classmethod
    def from_json(cls, value: Any) -> BackboneSpec:  # noqa: ANN401
        """Build the spec that `dataclasses.asdict` described; ValueError as for `FeatureKey.from_json`."""
        spec = cls(**_checked(cls, value))
        safe = all(c.isalnum() or c in "._+-" for c in spec.name) and not spec.name.startswith(".")
        if not safe or len(spec.name.encode()) > LONGEST_NAME:
            raise ValueError(f"{spec.name!r} cannot name a backbone, whose folder bears its name")
        return spec

    @property
    def is_imported(self) -> bool:
        """Whether the vectors were imported; featstore has no network that would compute them."""
        return self.weights.startswith(IMPORTED_PREFIX)

    @property
    def has_loader(self) -> bool:
        """Whether a loader of somebody else computes them, and not Keras: see `featstore.backbones.loading`."""
        return self.weights.startswith(VERSIONED_PREFIX)

    @property
    def is_current(self) -> bool:
        """Whether this featstore would compute the same, or need not."""
        return self.is_imported or self.revision == BACKBONE_REVISION


@dataclass(frozen=True, slots=True)
class Decoding:
    """How bytes become pixels of the input size.

    Attributes
    ----------
    decoder
        Library and version, since JPEG decoders differ by several grey levels.
    interpolation
        Resize filter.
    value_range
        Declared ``(low, high)`` that maps to 0..255 for 16-bit and float images, or None. Six numbers are three
        such windows, one for each channel.
    revision
        Raised when featstore changes decoding, resizing or view geometry.
    """

    decoder: str
    interpolation: str = "bilinear"
    value_range: tuple[float, ...] | None = None
    revision: int = DECODING_REVISION


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """backbone x view x decoding: the full address of a feature vector but for the image."""

    backbone: BackboneSpec
    view: View
    decoding: Decoding

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict, ready for canonical JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> FeatureKey:  # noqa: ANN401
        """Build the key that `to_json` described.

        Raises
        ------
        ValueError
            If `value` has other fields than a key, or a field of another type.
        """
        if not isinstance(value, dict) or set(value) != {"backbone", "view", "decoding"}:
            raise ValueError("it is no feature key")
        view = View(**_checked(View, value["view"]))
        if not 0 <= view.seed < LARGEST_SEED:
            raise ValueError("its seed cannot name a folder")
        return cls(
            BackboneSpec.from_json(value["backbone"]), view, Decoding(**_checked(Decoding, value["decoding"]))
        )


def _checked(kind: type[Any], value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Fields of a noun, of exactly the types that it declares: what a stranger wrote must not surprise later."""
    declared = {field.name: str(field.type) for field in fields(kind)}
    if not isinstance(value, dict) or set(value) != set(declared):
        raise ValueError(f"it is no {kind.__name__}")
    found = {name: _range(part) if declared[name] not in _PLAIN else part for name, part in value.items()}
    for name, part in found.items():
        if type(part) is not _PLAIN.get(declared[name], type(part)):
            raise ValueError(f"{name} of a {kind.__name__} is {type(part).__name__}")
    return found


_PLAIN = {"str": str, "int": int}


def _range(value: Any) -> tuple[float, ...] | None:  # noqa: ANN401
    if value is None:
        return None
    is_list = isinstance(value, list | tuple) and len(value) in {2, 6}
    if is_list and all(isinstance(end, int | float) for end in value):
        return tuple(value)
    raise ValueError("a value range is two numbers, six of three windows, or none")


COVARIATES = "covariates"
"""Name of the block that is of no network: columns of the table, such as age and sex."""


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Columns ``start`` to ``stop`` (excluded) of the matrix: the vector of one backbone.

    Attributes
    ----------
    name
        Name of the backbone.
    start, stop
        Column numbers; ``stop`` is one past the last.
    """

    name: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start


def make_blocks(widths: Mapping[str, int]) -> tuple[Block, ...]:
    """Blocks side by side, in the order of `widths` (name to number of columns).

    Examples
    --------
    >>> from featstore.types import make_blocks
    >>> make_blocks({"Xception": 2048, "MobileNetV2": 1280})[1]
    Block(name='MobileNetV2', start=2048, stop=3328)
    """
    edges = accumulate(widths.values(), initial=0)
    return tuple(Block(name, *edge) for name, edge in zip(widths, pairwise(edges), strict=True))


@dataclass(frozen=True, slots=True)
class Computation:
    """How vectors came about: what may move their last bits, and is in no key (law 2). None where nobody recorded it.

    Attributes
    ----------
    batch_size
        Images that went through the network together.
    engine
        What computed: ``tensorflow``, ``jax``, or ``plug-in`` for a network with a loader of its own.
    device
        Name of the processor or of the card.
    libraries
        Names and versions of the libraries that computed.
    """

    batch_size: int | None = None
    engine: str | None = None
    device: str | None = None
    libraries: str | None = None

    def __str__(self) -> str:
        """Engine, device and libraries, as far as they were recorded."""
        by = f"{self.engine or 'unknown engine'} on {self.device or 'unknown device'}"
        return f"{by} ({self.libraries})" if self.libraries else by

    def agreed(self, other: Computation) -> Computation:
        """What is the same in both; None for the rest."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Computation(*(mine if mine == theirs else None for mine, theirs in pairs))


class Backbone(Protocol):
    """A loaded frozen network.

    `batch_size` is the engine's constant: `embed` is always called with exactly that many images, since only
    the batch *size* can move the last bits of a row.
    """

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        ...

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        ...

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time: `batch_size`, or less where memory ran out."""
        ...

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map ``(batch_size, side, side, 3)`` RGB values in 0..255 to ``(batch_size, dimension)`` float32."""
        ...


class Executor(Protocol):
    """Where work items are done; see `featstore.executors`."""

    @property
    def workers(self) -> int:
        """How many items are done at a time."""
        ...

    @property
    def in_process(self) -> bool:
        """Whether all is done in this process; if not, callables, items and results are pickled."""
        ...

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield ``work(item)`` of every item, in the order in which they are finished.

        Raises
        ------
        WorkerLostError
            At the end, if workers died with their items; every other item has been done by then. Also where other
            workers have done those items again, so that none is missing: no answer tells what the dead had done.
        Exception
            What `work` raised, as it is. Items that are not done by then may not be.
        """
        ...


VERSIONED_PREFIX = "version:"
"""How the weights of a network that is not Keras' begin in its key."""

PLUG_IN = "plug-in"
"""Engine of such networks."""
