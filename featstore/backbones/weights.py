"""Weights of backbones: the file, seed or download that a choice such as ``Xception=path.h5`` means.

Whether a file may be read at all, and whether it is the one that was published, is checked before. What a choice
means, and whether it is on this machine, is told without TensorFlow or Keras; nothing is downloaded unasked.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
import urllib.request
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.arguments import public
from featstore.backbones import catalog
from featstore.errors import AbsentWeightsError, RefusedFileError, UsageError, WeightsError, nearest
from featstore.isolated_reading import LostError, call_isolated
from featstore.serialization import digest_file
from featstore.tables import Rows
from featstore.types import VERSIONED_PREFIX, BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import keras

    from featstore.backbones.catalog import Row


# Choices of weights

IMAGENET = "imagenet"
EVERY_BACKBONE = "*"

_RANDOM = re.compile(r"random:(\d{1,9})")
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_LITE = "featstore.backbones.efficientnet_lite:"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
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
        ``imagenet``, ``random``, ``file``, or ``own`` for those that a network not of Keras brings.
    path
        The file, or None for random weights and for a download still to come.
    seed
        Seed of random weights, else None.
    digest
        What the feature key records: ``sha256:<64 hex>`` of the file or ``random:SEED keras X.Y.Z``; None for
        a download still to come. Of a network not of Keras: ``version:VERSION``, then its file, if it has one.
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
        If a file is absent, or of a kind that could run code or cannot be read, or one in Keras' folder is not the
        one that was published.
    """
    if row.loader:
        return _of_loader(row, choice)
    if choice == IMAGENET:
        path = weights_file(row)
        digest = _digest(path) if path else None
        if path and digest:
            require_published(row, path, digest.removeprefix("sha256:"))
        return Weights(IMAGENET, path, None, digest)
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


def _of_loader(row: Row, choice: str) -> Weights:
    """Weights of a network that is not Keras': its own, or a file that its loader can read."""
    if choice.startswith("random:"):
        raise WeightsError(
            f"{row.name} has no random weights: that is for networks of Keras.",
            f"Leave them to it: --weights {row.name}={IMAGENET} stands for what the network brings.",
        )
    path = weights_file(row) if choice == IMAGENET else Path(choice).expanduser()
    if path is not None and not path.is_file():
        raise WeightsError(
            f"{row.name}: there is no weights file {path}.",
            f"Check its row, or say --weights {row.name}=PATH.",
        )
    digest = f"{VERSIONED_PREFIX}{row.version}{'' if path is None else ' ' + _digest(path)}"
    return Weights("own" if choice == IMAGENET else "file", path, None, digest)


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

    A network that ends at a layer has the weights of the whole one.

    Raises
    ------
    UnknownNameError
        If one of the choices is for a backbone that does not exist: it would have no effect.
    """
    catalog.add_files(choices.items())
    for other in choices.keys() - {name, EVERY_BACKBONE}:
        catalog.row(other)  # which is a look into the table, and refuses what is not there
    named = choices.get(name, choices.get(catalog.base_name(name)))
    return catalog.without_settings(named or choices.get(EVERY_BACKBONE, IMAGENET))


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
        raise _mismatch_error(row, path, error) from error
    # Keras only warns of some layers that it leaves unfilled.
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            raise _mismatch_error(row, path, warning.message)


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


def _mismatch_error(row: Row, path: Path, why: object) -> WeightsError:
    return WeightsError(
        f"{row.name}: {path} does not fit the network: {one_line(why)}",
        f"Give weights of {row.name} without its top: --weights {row.name}=PATH.",
    )


def _parse_option(option: str) -> tuple[str, str]:
    named = _NAMED.fullmatch(option)
    name, choice = (named[1], named[2]) if named else (EVERY_BACKBONE, option)
    if not (choice == IMAGENET or _RANDOM.fullmatch(choice) or _looks_like_a_path(choice)):
        raise UsageError(
            f"--weights {option!r} is neither NAME=CHOICE nor CHOICE.", f"{_parse_choice(choice)}{_CHOICES}"
        )
    if name != EVERY_BACKBONE:
        catalog.add_files([(name, choice)])
        catalog.row(name)  # refuses a name that does not exist
    return name, choice


def _parse_choice(choice: str) -> str:
    close = nearest(choice, [IMAGENET, "random"])
    return f"Did you mean {close[0]}? " if close else ""


def _looks_like_a_path(choice: str) -> bool:
    return not choice.startswith(("random:", "=")) and bool(Path(choice).suffix or {"/", os.sep} & {*choice})


# Files of the ImageNet weights


def packaged(row: Row) -> bool:
    """Whether the ImageNet weights of a network come as a package of their own."""
    return row.builder.startswith(_LITE)


def weights_file(row: Row) -> Path | None:
    """File of the ImageNet weights of a network; None while Keras still has to download it.

    For a network that is not Keras': the file that it brings; None if it needs none.

    Raises
    ------
    WeightsError
        If none are published, or their package is not installed.
    """
    if row.loader:
        return Path(row.weights_file) if row.weights_file else None
    if packaged(row):
        return _packaged_file(row)
    if not row.weights_file:
        raise WeightsError(
            f"{row.name} has no published ImageNet weights.", f"Give it a file: --weights {row.name}=PATH.h5."
        )
    path = keras_models_folder() / row.weights_file
    return path if path.is_file() else None


def weights_destination(row: Row) -> Path | None:
    """Where the file of the ImageNet weights of a network is looked for; None without one, or without its package."""
    if not row.weights_file:
        return None
    if packaged(row):
        with suppress(WeightsError):
            return _packaged_file(row)
        return None
    return Path(row.weights_file) if row.loader else keras_models_folder() / row.weights_file


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
        raise WeightsError(f"{row.name}: {path} {why}.", SAVE_WEIGHTS)
    if not path.is_file():
        raise WeightsError(f"{row.name}: there is no weights file {path}.", "Check the path after --weights.")
    if path.suffix == ".h5" and not is_hdf5(path):
        raise WeightsError(
            f"{row.name}: {path} is not an HDF5 file, whatever its name says.",
            "Fetch it again: downloads that failed and Git-LFS pointers look like this.",
        )


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does; nothing else of it is read."""
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def _digest(path: Path) -> str:
    return f"sha256:{digest_file(path)}"


# Weights found by the digest that a kept model was fitted with

_SEEDED = re.compile(r"(random:\d{1,9}) keras (.+)")


def find_weights(spec: BackboneSpec, choices: Mapping[str, str], folders: Sequence[Path] = ()) -> str:
    """Choice of weights that gives the digest of a spec; reads and hashes files, loads and downloads nothing.

    Where nothing is said of the backbone, ImageNet weights and files that bear its name are looked at in Keras'
    cache and in `folders`, and random weights are drawn again.

    Parameters
    ----------
    spec
        Of the model.
    choices
        As for `featstore.extract`. ``imagenet``, said aloud, allows Keras to download its weights.
    folders
        Where else files may lie, such as runs of `featstore.finetune`.

    Raises
    ------
    WeightsError
        If the weights are not here, or those that were chosen are others.
    """
    catalog.add_files(choices.items())
    if {spec.name, catalog.base_name(spec.name), EVERY_BACKBONE} & {*choices}:
        return _matching_choice(spec, choice_for(spec.name, choices))
    if drawn := _SEEDED.fullmatch(spec.weights):
        return _random_weights(spec, drawn[1], drawn[2])
    official = _official(spec)
    if official == spec.weights:
        return IMAGENET
    for path in _files_of_backbone(spec, [keras_models_folder(), *folders]):
        with suppress(OSError):  # a file that may not be read is not the one
            if f"sha256:{digest_file(path)}" == spec.weights:
                return str(path)
    raise _missing_weights_error(spec, official)


def _matching_choice(spec: BackboneSpec, choice: str) -> str:
    found = resolve_weights(catalog.row(spec.name), choice).digest
    if found is None or found == spec.weights:
        return choice
    raise WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, and {choice} are others: {found}.",
        f"Pass the same file or seed as when the features were computed: --weights {spec.name}=CHOICE.",
    )


def _random_weights(spec: BackboneSpec, choice: str, keras: str) -> str:
    if keras == version("keras"):
        return choice
    raise WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, and Keras {version('keras')} draws other ones.",
        f"Install keras=={keras}, or make the run again: featstore extract, then featstore fuse.",
    )


def _official(spec: BackboneSpec) -> str | None:
    """Digest of the published weights, if they are on this machine."""
    try:
        return resolve_weights(catalog.row(spec.name), IMAGENET).digest
    except WeightsError:
        return None


def _files_of_backbone(spec: BackboneSpec, folders: Sequence[Path]) -> Iterator[Path]:
    """Weights files that bear the backbone's name."""
    wanted = _letters(spec.name)
    for folder in folders:
        with suppress(OSError):
            yield from [p for p in sorted(folder.glob("*.h5")) if wanted in _letters(p.name) and p.is_file()]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _missing_weights_error(spec: BackboneSpec, official: str | None) -> WeightsError:
    if official is not None:
        return WeightsError(
            f"{spec.name} is wanted with the weights {spec.weights}, and those for ImageNet are others: {official}.",
            f"Name the file with that digest: --weights {spec.name}=PATH.",
        )
    return WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, which are neither in {keras_models_folder()}"
        " nor beside the run.",
        f"Name the file with that digest: --weights {spec.name}=PATH. If they are Keras' own for ImageNet, let Keras"
        f" fetch them: --weights {spec.name}=imagenet.",
    )


# Whether ImageNet weights are on this machine, and whether the others can be fetched

INSTALLED, CACHED, ABSENT, UNPUBLISHED = "installed", "in the Keras cache", "not here", "none published"
TIMEOUT_SECONDS = 8.0
"""Seconds that the address of the weights has for any answer."""
CACHE_SECONDS = 30.0
"""Seconds for which an answer, or none, is believed."""
ADDRESS = re.compile(r"""WEIGHT\w*\s*=\s*\(?\s*f?["'](https?://[^/"']+)""")

_answers: dict[str, tuple[float, bool]] = {}


def weights_location(row: Row) -> str:
    """Where the ImageNet weights of a network are; looks for the file alone, and reads nothing of it."""
    if row.loader:
        return INSTALLED if not row.weights_file or Path(row.weights_file).is_file() else ABSENT
    try:
        here = weights_file(row) is not None
    except WeightsError:
        return ABSENT if packaged(row) else UNPUBLISHED
    return (INSTALLED if packaged(row) else CACHED) if here else ABSENT


@dataclass(frozen=True, slots=True)
class BackboneSummary:
    """A frozen network, as it is listed.

    Attributes
    ----------
    name
        As `featstore.extract` takes it.
    input_size
        Side of the square input, in pixels.
    dimension
        Length of its vector.
    gflops
        Billions of floating-point operations of one image; 0 where nobody counted.
    weights
        Where its ImageNet weights are: ``installed``, ``in the Keras cache``, ``not here`` or ``not published``.
    in_paper
        Whether the study that featstore grew from used it.
    """

    name: str = field(metadata={"title": "backbone"})
    input_size: int = field(metadata={"title": "input px"})
    dimension: int
    gflops: float = field(metadata={"title": "GFLOP/image"})
    weights: str
    in_paper: bool = field(metadata={"title": "in the paper"})


@public
def backbones() -> Rows[BackboneSummary]:
    """List the frozen networks, those of plug-ins among them; nothing is loaded or fetched.

    Examples
    --------
    >>> import featstore
    >>> [network.name for network in featstore.backbones() if network.weights == "installed"]
    ['EfficientNetLite0', 'EfficientNetLite1', 'EfficientNetLite2']
    """
    rows = map(catalog.row, catalog.names())
    return Rows(
        BackboneSummary(r.name, r.input_size, r.dimension, r.gflops, weights_location(r), r.in_paper)
        for r in rows
    )


def missing_weights(names: Iterable[str], choices: Mapping[str, str]) -> list[str]:
    """Those of the networks that want ImageNet weights which would have to be fetched.

    Parameters
    ----------
    names
        Catalogue names.
    choices
        Choice of weights by name, as for `featstore.backbones.weights.choice_for`.
    """
    wanted = [name for name in dict.fromkeys(names) if choice_for(name, choices) == IMAGENET]
    rows = [catalog.row(name) for name in wanted]
    return [row.name for row in rows if not row.loader and weights_file(row) is None]


def require_reachable(row: Row) -> None:
    """Refuse to fetch weights of a network from an address that does not answer, before anything is loaded for it.

    Raises
    ------
    AbsentWeightsError
        If it does not. Where Keras does not tell the address, the download itself has to find out.
    """
    if not can_fetch(row):
        raise unreachable_error([row.name])


def can_fetch(row: Row) -> bool:
    """Whether the server of a network's weights answers, or nobody knows which that is."""
    address = _address(row.builder.rpartition(":")[2])
    if address is None:
        return True
    asked, answer = _answers.get(address, (-CACHE_SECONDS, False))
    if time.monotonic() - asked > CACHE_SECONDS:
        answer = _answers_in_time(address)
        _answers[address] = time.monotonic(), answer
    return answer


def unreachable_error(names: Sequence[str]) -> AbsentWeightsError:
    """Error for weights that are not here and cannot be fetched."""
    return AbsentWeightsError(
        f"{_named(names)} not on this machine, and cannot be fetched: the address that Keras has for them does not"
        " answer.",
        f"Name a file for each (--weights {names[0]}=FILE.h5), or run the same command on a machine with internet and"
        f" copy what it leaves in ~/.keras/models to {keras_models_folder()}. `featstore backbones` shows which"
        " weights are here.",
        names,
    )


def not_downloaded_error(names: Sequence[str]) -> AbsentWeightsError:
    """Error for weights that are not here and must not be fetched."""
    return AbsentWeightsError(
        f"{_named(names)} not on this machine yet.",
        f"Leave out --dry-run to let Keras download them, or name a file for each: --weights {names[0]}=FILE.h5."
        " `featstore backbones` shows which weights are here.",
        names,
    )


def _named(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The ImageNet weights of {names[0]} are"
    return f"The ImageNet weights of {len(names)} networks ({', '.join(names)}) are"


@lru_cache
def _address(name: str) -> str | None:
    """Scheme and host from which Keras fetches the weights of a network, read from its source, not imported."""
    found = find_spec("keras")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "src" / "applications"
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py"))]
    own = [text for text in texts if re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE)]
    addresses = [match[1] for text in (*own, *texts) for match in ADDRESS.finditer(text)]
    return addresses[0] if addresses else None


def _answers_in_time(address: str) -> bool:
    """Whether anything answers at an address, by the proxies of the environment; a name server may hang as well."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers_at_all(address)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return bool(answers and answers[0])


def _answers_at_all(address: str) -> bool:
    request = urllib.request.Request(f"{address}/", method="HEAD")  # noqa: S310 - https, from Keras' source
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError:  # a server that has no such page is a server
        return True
    except OSError:
        return False


# Published digests: anybody may have put another file into Keras' folder.

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"""["']([0-9a-f]{32}|[0-9a-f]{64})["']""")
_NAMED_BY_TORCH = re.compile(r"-([0-9a-f]{8})\.pth")
"""PyTorch's way to name weights: the first digits of their SHA-256."""
_MD5_DIGITS = 32


def require_published(row: Row, path: Path, sha256: str) -> None:
    """Refuse a file whose digest is none of those that came with the network; say where there are none to compare.

    Parameters
    ----------
    row
        Row of the catalogue.
    path
        The file that would be taken for its ImageNet weights.
    sha256
        Digest of its bytes, 64 hex digits.

    Raises
    ------
    WeightsError
        If it is another file.
    """
    named = _NAMED_BY_TORCH.search(path.name)
    if named is not None:
        if not sha256.startswith(named[1]):
            raise _tampered_error(row, path, "Install the package that brings it anew")
        return
    known = digests(row.builder.rpartition(":")[2])
    if not known:
        _log_unknown_digest(row.name, sha256)
        return
    stat = path.stat()
    of_md5 = any(len(one) == _MD5_DIGITS for one in known)
    mine = {sha256, _md5(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)} if of_md5 else {sha256}
    if known.isdisjoint(mine):
        raise _tampered_error(row, path, "Delete it, and Keras fetches it anew")


@lru_cache
def digests(name: str) -> frozenset[str]:
    """Digests, MD5 or SHA-256, that stand in Keras' source beside a network: of its files with and without top."""
    found = find_spec("keras")
    if found is None or found.origin is None:
        return frozenset()
    folder = Path(found.origin).parent / "src" / "applications"
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py")))
    own = (text for text in texts if re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE))
    return frozenset(match[1] for text in own for match in _DIGEST.finditer(text))


@lru_cache
def _md5(path: Path, *_state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@lru_cache
def _log_unknown_digest(name: str, sha256: str) -> None:
    log.warning("Keras publishes no digest of the ImageNet weights of %s; taken on trust: %s", name, sha256)


def _tampered_error(row: Row, path: Path, remedy: str) -> WeightsError:
    return WeightsError(
        f"{row.name}: {path} is not the file that was published as its ImageNet weights.",
        f"{remedy}; or, if it is meant, name it: --weights {row.name}=PATH.",
    )


# Structure

SAVE_WEIGHTS = "Save the weights alone, model.save_weights('x.weights.h5'), and name that file."


def require_sound(path: Path) -> None:
    """Have an HDF5 file read by another process before Keras reads it here, as any file may be a stranger's.

    Raises
    ------
    RefusedFileError
        If it reaches outside itself, is not whole, or ends that process.
    """
    try:
        call_isolated("featstore.store.hdf5_guard:weights_are_sound", path)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", SAVE_WEIGHTS) from error
