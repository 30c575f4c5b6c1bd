"""Weights: which file, seed or download a choice such as ``Xception=path.h5`` means, without TensorFlow."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.errors import RefusedFileError, UsageError, WeightsError, nearest
from featstore.fingerprint import digest_file
from featstore.isolation.caller import LostError, call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import keras

    from featstore.backbones.catalog import Row

IMAGENET = "imagenet"
EVERY_BACKBONE = "*"

_RANDOM = re.compile(r"random:(\d{1,9})")
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_LITE = "featstore.backbones.efficientnet_lite:"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SAVE_WEIGHTS = "Save the weights alone, model.save_weights('x.weights.h5'), and name that file."
_REFUSED = {
    ".keras": "holds a whole model, whose configuration can run code",
    ".pkl": "is a pickle, which runs code when it is loaded",
    ".pickle": "is a pickle, which runs code when it is loaded",
    ".joblib": "is a pickle, which runs code when it is loaded",
    ".pt": "is a pickle, which runs code when it is loaded",
    ".pth": "is a pickle, and only EfficientNet-Lite has a reader that runs none of it",
}


@dataclass(frozen=True, slots=True)
class Weights:
    """A choice of weights, made definite.

    Attributes
    ----------
    source
        ``imagenet``, ``random`` or ``file``.
    path
        The file, or None for random weights and for a download still to come.
    seed
        Seed of random weights, else None.
    digest
        What the feature key records: ``sha256:<64 hex>`` of the file or ``random:SEED keras X.Y.Z``; None for
        a download still to come.
    """

    source: str
    path: Path | None
    seed: int | None
    digest: str | None


_CHOICES = "A choice is imagenet, random:SEED or the path of a weights file: --weights Xception=weights.h5."


def resolve_weights(row: Row, choice: str = IMAGENET) -> Weights:
    """Turn a choice into weights; reads (and hashes) files, never the network.

    Parameters
    ----------
    row
        Row of the catalogue.
    choice
        ``imagenet``: the file in Keras' cache or in the EfficientNet-Lite package; `path` and `digest` are
        None if Keras still has to download it. ``random:SEED``: for tests. Anything else: path of a local
        ``.h5`` or ``.weights.h5`` file, for EfficientNet-Lite also ``.pth``.

    Raises
    ------
    UsageError
        If ``random:`` is not followed by a seed.
    WeightsError
        If a file is absent, or of a kind that could run code or cannot be read.
    """
    if choice == IMAGENET:
        path = weights_file(row)
        return Weights(IMAGENET, path, None, _digest(path) if path else None)
    seeded = _RANDOM.fullmatch(choice)
    if seeded:
        seed = int(seeded[1])
        return Weights("random", None, seed, f"random:{seed} keras {version('keras')}")
    if choice.startswith("random:"):
        raise UsageError(f"{choice!r} has no seed of 1 to 9 digits.", "Write random:SEED, such as random:1.")
    if not _looks_like_a_path(choice) and (close := nearest(choice, [IMAGENET, "random"])):
        raise UsageError(f"There are no weights {choice!r}.", f"Did you mean {close[0]}? {_CHOICES}")
    path = Path(choice).expanduser()
    _require_loadable(row, path)
    return Weights("file", path, None, _digest(path))


def parse_weights_options(options: Iterable[str]) -> dict[str, str]:
    """Read the values of a repeatable ``--weights`` option.

    Parameters
    ----------
    options
        ``NAME=CHOICE``, or a bare ``CHOICE`` for every backbone without one of its own. A bare choice is
        ``imagenet``, ``random:SEED``, or a path with a slash or a suffix.

    Returns
    -------
    dict
        Backbone name -> choice; the bare choice stands under `EVERY_BACKBONE`. See `choice_for`.

    Raises
    ------
    UsageError
        If an option has neither shape, or speaks of the same backbone twice.
    UnknownNameError
        If NAME is not in the catalogue.
    """
    choices: dict[str, str] = {}
    for option in options:
        name, choice = _parse_option(option)
        if name in choices:
            whom = "every backbone" if name == EVERY_BACKBONE else name
            raise UsageError(f"--weights is given twice for {whom}.", "Keep one of the two.")
        choices[name] = choice
    return choices


def choice_for(name: str, choices: Mapping[str, str]) -> str:
    """Choice for the backbone `name`: its own, else the one for every backbone, else ``imagenet``.

    Raises
    ------
    UnknownNameError
        If one of the choices is for a backbone that does not exist: it would have no effect.
    """
    for other in choices.keys() - {name, EVERY_BACKBONE}:
        catalog.row(other)  # which is a look into the table, and refuses what is not there
    return choices.get(name, choices.get(EVERY_BACKBONE, IMAGENET))


def load_weights(row: Row, network: keras.Model, path: Path) -> None:
    """Fill a network of `row` from an HDF5 file; no code is run, nothing is left at its random start.

    Raises
    ------
    WeightsError
        If the file does not fit the network, reaches outside itself, is not whole, or ends the process that looks at
        it first.
    """
    try:
        require_sound(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            network.load_weights(str(path))
    except Exception as error:  # h5py and Keras raise what they like about a foreign file
        raise _misfit(row, path, error) from error
    # Keras only warns of some layers that it leaves unfilled.
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            raise _misfit(row, path, warning.message)


def require_sound(path: Path) -> None:
    """Have an HDF5 file read by another process before Keras reads it here, as any file may be a stranger's.

    Raises
    ------
    RefusedFileError
        If it reaches outside itself, is not whole, or ends that process.
    """
    try:
        call("featstore.store.guard:weights_are_sound", path)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", _SAVE_WEIGHTS) from error


def one_line(foreign: object) -> str:
    """Message of a foreign error or warning, on one line of bounded length."""
    return " ".join(str(foreign).split())[:300] or type(foreign).__name__


def keras_models_folder() -> Path:
    """Folder in which Keras keeps downloaded weights, found by Keras' own rules but without importing it."""
    user = Path.home()
    fallback = Path("/tmp")  # noqa: S108 - Keras' choice, mirrored
    home = os.environ.get("KERAS_HOME")
    folder = Path(home).expanduser() if home else (user if os.access(user, os.W_OK) else fallback) / ".keras"
    if folder.exists() and not os.access(folder, os.W_OK):
        folder = fallback / ".keras"
    return folder / "models"


def _misfit(row: Row, path: Path, why: object) -> WeightsError:
    return WeightsError(
        f"{row.name}: {path} does not fit the network: {one_line(why)}",
        f"Give weights of {row.name} without its top: --weights {row.name}=PATH.",
    )


def _parse_option(option: str) -> tuple[str, str]:
    named = _NAMED.fullmatch(option)
    name, choice = (named[1], named[2]) if named else (EVERY_BACKBONE, option)
    if not (choice == IMAGENET or _RANDOM.fullmatch(choice) or _looks_like_a_path(choice)):
        raise UsageError(
            f"--weights {option!r} is neither NAME=CHOICE nor CHOICE.", f"{_meant_weights(choice)}{_CHOICES}"
        )
    if name != EVERY_BACKBONE:
        catalog.row(name)  # refuses a name that does not exist
    return name, choice


def _meant_weights(choice: str) -> str:
    close = nearest(choice, [IMAGENET, "random"])
    return f"Did you mean {close[0]}? " if close else ""


def _looks_like_a_path(choice: str) -> bool:
    return not choice.startswith(("random:", "=")) and bool(Path(choice).suffix or {"/", os.sep} & {*choice})


def packaged(row: Row) -> bool:
    """Whether the ImageNet weights of a network come as a package of their own."""
    return row.builder.startswith(_LITE)


def weights_file(row: Row) -> Path | None:
    """File of the ImageNet weights of a network; None while Keras still has to download it.

    Raises
    ------
    WeightsError
        If none are published, or their package is not installed.
    """
    if packaged(row):
        return _packaged_file(row)
    if not row.weights_file:
        raise WeightsError(
            f"{row.name} has no published ImageNet weights.", f"Give it a file: --weights {row.name}=PATH.h5."
        )
    path = keras_models_folder() / row.weights_file
    return path if path.is_file() else None


def _packaged_file(row: Row) -> Path:
    from featstore.backbones.efficientnet_lite import weights_path

    path: Path = weights_path(int(row.name.removeprefix("EfficientNetLite")))
    if not path.is_file():
        raise WeightsError(f"{row.name}: {path} is missing.", "Reinstall featstore with its dependencies.")
    return path


def _require_loadable(row: Row, path: Path) -> None:
    legible = path.name.endswith(".h5") or (path.suffix == ".pth" and row.builder.startswith(_LITE))
    if not legible:
        why = _REFUSED.get(path.suffix.lower(), "is not a kind of weights file that featstore reads")
        raise WeightsError(f"{row.name}: {path} {why}.", _SAVE_WEIGHTS)
    if not path.is_file():
        raise WeightsError(f"{row.name}: there is no weights file {path}.", "Check the path after --weights.")
    if path.suffix == ".h5" and not _is_hdf5(path):
        raise WeightsError(
            f"{row.name}: {path} is not an HDF5 file, whatever its name says.",
            "Fetch it again: downloads that failed and Git-LFS pointers look like this.",
        )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def _digest(path: Path) -> str:
    return f"sha256:{digest_file(path)}"
