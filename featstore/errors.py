"""Errors that featstore raises on purpose, each with one line of cause and one of remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MOST_NAMES = 12
"""So many names are listed in a remedy; more are left to the command that lists them."""
SIMILARITY_CUTOFF = 0.6
"""Of two names, from 0 to 1, from which one may be meant for the other."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names that a misspelt one can mean, the nearest first; capitals, ``_``, ``-`` and spaces do not count."""
    plain: dict[str, str] = {}
    for one in known:
        plain.setdefault(_plain(one), one)
    return [
        plain[one] for one in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=SIMILARITY_CUTOFF)
    ]


def did_you_mean(name: str, known: Iterable[str], listing: str | None = None) -> str:
    """Remedy for a name that does not exist.

    Parameters
    ----------
    name
        What was written.
    known
        All names.
    listing
        Command that lists them, such as ``featstore strategies``; without one they stand in the remedy.
    """
    names = list(known)
    close = nearest(name, names)
    question = f"Did you mean {' or '.join(close)}? " if close else ""
    if listing is not None:
        return f"{question}`{listing}` lists all."
    if not names:
        return "There are none to choose from."
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{question}Choose one of: {', '.join(names[:MOST_NAMES])}{more}."


def _plain(name: str) -> str:
    return name.casefold().translate(str.maketrans("", "", "_- "))


class FeatstoreError(Exception):
    """Base of all errors that featstore raises on purpose.

    Parameters
    ----------
    cause
        One line: what is wrong, and where.
    remedy
        One line: what to do about it, if possible the command that mends it.

    Examples
    --------
    >>> import featstore
    >>> try:
    ...     featstore.scan("nowhere")
    ... except featstore.FeatstoreError as error:
    ...     print(error)
    The data set 'nowhere' does not exist.
    Give a folder with one folder per class, or a CSV file with the columns path,label.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        """Cause and remedy, a line each."""
        return f"{self.cause}\n{self.remedy}"


class UsageError(FeatstoreError, ValueError):
    """An argument that cannot be meant."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that does not parse, or asks for an impossible transform."""


class ManifestError(UsageError):
    """A data set that cannot be read as one: wrong layout, missing column, path outside the root."""


class AuditError(FeatstoreError, ValueError):
    """A data set that would give a false answer: conflicting labels, leaks, too few groups."""

    exit_code = 5


class BadImageError(FeatstoreError, ValueError):
    """An image that cannot become pixels. It goes to the quarantine table; the run goes on.

    Parameters
    ----------
    reason
        Short code such as ``truncated``; one of `featstore.images.reading.REASONS`.
    detail
        What exactly was met.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}", "Replace the file, or leave it in quarantine.")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[BadImageError], tuple[str, str]]:
        """Survive the trip between processes."""
        return type(self), (self.reason, self.detail)


class UnknownNameError(UsageError, LookupError):
    """A backbone, strategy or preset that does not exist."""


class WeightsError(FeatstoreError, OSError):
    """Weights that are absent, unreachable, or not those of the network."""


class AbsentWeightsError(WeightsError):
    """Weights that are not on this machine, and are not or cannot be fetched.

    Attributes
    ----------
    names
        The networks whose weights they are.
    """

    def __init__(self, cause: str, remedy: str, names: Sequence[str] = ()) -> None:
        super().__init__(cause, remedy)
        self.names = tuple(names)


class BackboneError(FeatstoreError, RuntimeError):
    """A network that does not do what its catalogue row says."""


class NonFiniteFeaturesError(FeatstoreError, ArithmeticError):
    """NaN or infinity came out of a backbone; the shard is refused."""

    rows: tuple[int, ...] = ()
    """Which rows of the batch, where that is known."""

    @classmethod
    def of_rows(cls, name: str, rows: Iterable[int], images: int, remedy: str) -> NonFiniteFeaturesError:
        """Say of how many images of a batch a network gave no numbers: rows from `images` on are padding."""
        real = tuple(row for row in rows if row < images)
        error = cls(f"{name} gave NaN or infinity for {len(real)} of {images} images.", remedy)
        error.rows = real
        return error


class OutOfMemoryError(FeatstoreError, RuntimeError):
    """A batch that does not fit into the memory of the device; half of it may."""


class StoreError(FeatstoreError, OSError):
    """The cache folder or the disk under it failed."""

    exit_code = 4


class RefusedFileError(FeatstoreError, OSError):
    """A file from elsewhere that reaches outside itself, announces more than it holds, or could run code."""


class ShardCorruptError(StoreError):
    """A shard whose bytes, structure or key are not what its name promises."""


class MissingFeaturesError(FeatstoreError, LookupError):
    """Features that were asked for and are not in the store."""


class WorkerLostError(FeatstoreError, RuntimeError):
    """A worker process ended without an answer: killed, out of memory, or its machine is gone."""

    REMEDY: ClassVar[str] = (
        "Run the same command again, with fewer --workers if memory is short: what was finished is kept."
    )

    @classmethod
    def after(cls, items: int) -> WorkerLostError:
        """So many work items were lost with their workers; 0 where others have done them all again."""
        return cls(f"Workers ended without an answer, and {items} work items with them.", cls.REMEDY)


class InterruptionError(FeatstoreError):
    """The user stopped the program."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Interrupted.", "What was finished is kept; the same command goes on from there.")

    def __reduce__(self) -> tuple[type[InterruptionError], tuple[()]]:
        """Survive the trip between processes."""
        return type(self), ()


class RunError(FeatstoreError, OSError):
    """A run folder that cannot be written or read back."""
