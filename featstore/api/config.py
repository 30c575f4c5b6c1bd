"""`featstore.toml`: settings of a data set, beside it, for every command; read without trust, and written.

The command line reads it by itself, and flags win. From Python it is read on request: `read_config` gives keyword
arguments. What could harm is no setting: where things are written, what is replaced, code, links that lead elsewhere.
"""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from featstore.arguments import public
from featstore.errors import StoreError, UsageError, did_you_mean, nearest
from featstore.serialization import UnfitFileError, digest_bytes, read_regular, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featstore.results.extraction import Check

NAME = "featstore.toml"
NO_CONFIG = "none"
DATA = "data"
"""Key that names the one table which the settings of its columns are about."""
MAX_BYTES, MAX_LINE = 1 << 16, 1 << 11
MAX_SEEDS = 10_000
COMMENTS_FROM = 40
"""Column behind which a line of a written file says what it is about."""
MOST_SHOWN = 60
"""Characters of what a file says that an error repeats."""
WITHOUT = f"Correct the file, or leave it aside: --config {NO_CONFIG}"


class ConfigOptions(TypedDict, total=False):
    """What `featstore.toml` may say, as keyword arguments; there ``_`` is ``-``, and `value_range` is ``range``.

    Attributes
    ----------
    columns, root, suffix, group_pattern, site_tag, slices, covariates, labels, labels_by
        How the data set is read: see `featstore.images.scan.ScanOptions`.
    value_range, window
        Black and white of deep images: two numbers, or the same by name, such as ``lung``.
    backbones, weights, preprocess, precision, engine, recipe, seeds
        Networks and augmented views, as for `featstore.extract`.
    positive, calibrate, sensitivity, confidence, accept
        As for `featstore.compare`, and for all that score.
    strategies, subsets, unit, pool, primary, margin, folds, repeats, fold_seed, harmonise, training_seeds,
    views, test_views
        As for `featstore.compare`.
    test_size, split_seed
        As for `featstore.fuse`.
    ratios
        As for `featstore.split`.
    """

    columns: Mapping[str, str]
    root: str | Path
    suffix: str
    group_pattern: str
    site_tag: str
    slices: str
    covariates: Sequence[str]
    labels: str | Path
    labels_by: str
    value_range: tuple[float, ...]
    window: str
    backbones: Sequence[str]
    weights: Mapping[str, str]
    preprocess: str
    precision: str
    engine: str
    recipe: str
    seeds: Sequence[int]
    positive: str
    unit: str
    pool: str
    primary: str
    margin: float
    strategies: Sequence[str]
    subsets: str
    folds: int | str
    repeats: int
    fold_seed: int
    harmonise: str
    training_seeds: int
    views: Sequence[str]
    test_views: str
    calibrate: str
    sensitivity: float
    confidence: float
    accept: Sequence[str]
    test_size: float
    split_seed: int
    ratios: Sequence[float]


# Values, by kind: from TOML to the argument of a function


class _UnfitError(ValueError):
    """A value that is none of its kind."""


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str) or not value:
        raise _UnfitError
    return value


def _number(value: Any) -> float:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise _UnfitError
    return value


def _count(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise _UnfitError
    return value


def _names(value: Any) -> list[str]:  # noqa: ANN401
    if isinstance(value, str):
        value = [part.strip() for part in re.split(r",(?![^\[\]]*\])", value) if part.strip()]
    if not isinstance(value, list | tuple) or not value:
        raise _UnfitError
    return [_text(part) for part in value]


def _strategies(value: Any) -> str | list[str]:  # noqa: ANN401
    return "all" if value == "all" else _names(value)


def _seeds(value: Any) -> tuple[int, ...]:  # noqa: ANN401
    """``[1, 2]``, ``"1-4,7"`` or ``"none"``."""
    if isinstance(value, list | tuple | range):
        return tuple(_count(part) for part in value)
    found: list[int] = []
    for part in [] if value == "none" else _text(value).split(","):
        ends = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if ends is None:
            raise _UnfitError
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < first + MAX_SEEDS - len(found):
            raise _UnfitError
        found += range(first, last + 1)
    return tuple(found)


def _table(value: Any) -> dict[str, str]:  # noqa: ANN401
    if not isinstance(value, dict) or not value:
        raise _UnfitError
    return {_text(name): _text(part) for name, part in value.items()}


def _range(value: Any) -> tuple[float, ...]:  # noqa: ANN401
    if isinstance(value, str):
        try:
            value = [float(part) for part in value.split(",")]
        except ValueError:
            raise _UnfitError from None
    match value:
        case [low, high] if _number(low) < _number(high):
            return float(low), float(high)
    raise _UnfitError


def _folds(value: Any) -> int | str:  # noqa: ANN401
    return str(value) if value in ("split", "site", "group") else _count(value)


def _ratios(value: Any) -> list[float]:  # noqa: ANN401
    if isinstance(value, str):
        try:
            value = [float(part) for part in value.split("/")]
        except ValueError:
            raise _UnfitError from None
    if not isinstance(value, list | tuple):
        raise _UnfitError
    return [_number(part) for part in value]


@dataclass(frozen=True, slots=True)
class _Setting:
    """A line of the file: how its value is read, what it could look like, and what it says."""

    read: Callable[[Any], Any]
    example: str
    what: str


SECTIONS: Mapping[str, Mapping[str, _Setting]] = {
    "How the images are read": {
        "columns": _Setting(
            _table, '{ group = "patient_id" }', "columns of the table: path, label, group, split, site"
        ),
        "root": _Setting(_text, '"images"', "folder where the paths of the table begin, from this file"),
        "suffix": _Setting(_text, '".png"', "of paths that have none"),
        "group-pattern": _Setting(_text, r"'(p\d+)'", "what in a relative path names the patient"),
        "site-tag": _Setting(_text, '"Manufacturer"', "tag of DICOM files that names the site"),
        "slices": _Setting(_text, '"axial:every=4"', "slices of volumes"),
        "covariates": _Setting(
            _names, '["age", "sex"]', "columns of the table that stand beside the networks"
        ),
        "labels": _Setting(_text, '"labels.csv"', "table of the classes of a folder, from this file"),
        "labels-by": _Setting(_text, '"patient"', "what a row of labels is: patient, study, series, file"),
        "window": _Setting(_text, '"lung"', "of CT: lung, mediastinal, bone, brain, file"),
        "range": _Setting(_range, "[0, 4095]", "in place of a window: black and white of deep images"),
    },
    "Networks and augmented views": {
        "backbones": _Setting(_names, '["Xception", "MobileNetV2"]', "networks"),
        "weights": _Setting(_table, '{ Xception = "xception.h5" }', "imagenet, random:SEED, or a file"),
        "preprocess": _Setting(_text, '"official"', "or rescale (1/255)"),
        "precision": _Setting(_text, '"float32"', "or tf32, bfloat16, float16"),
        "engine": _Setting(_text, '"auto"', "or tensorflow, jax"),
        "recipe": _Setting(_text, '"mild"', "augmentation"),
        "seeds": _Setting(_seeds, '"1-4"', "augmented views; none for none"),
    },
    "The question and its scores": {
        "positive": _Setting(_text, '"covid"', "class that sensitivity is about"),
        "unit": _Setting(_text, '"group"', "what is scored: image, or group for whole patients"),
        "pool": _Setting(_text, '"mean-logit"', "how a patient's images become one answer"),
        "primary": _Setting(_text, '"concat_logreg"', "fusion of the primary question"),
        "margin": _Setting(_number, "0.01", "difference in AUC that is too small to matter"),
        "strategies": _Setting(_strategies, '"all"', "fusions to compare"),
        "subsets": _Setting(_text, '"singles"', "networks that are fused"),
        "folds": _Setting(_folds, "5", 'over whole patients; "site", "group", "split"'),
        "repeats": _Setting(_count, "3", "times to draw the folds"),
        "fold-seed": _Setting(_count, "0", "seed of folds and resamples"),
        "harmonise": _Setting(
            _text, '"per-site"', 'with folds = "site": each site\'s own mean and deviation'
        ),
        "training-seeds": _Setting(_count, "1", "seeds to train with"),
        "views": _Setting(_names, '["expand"]', "training on views"),
        "test-views": _Setting(_text, '"identity"', "testing on views"),
        "calibrate": _Setting(_text, '"temperature"', "or platt, isotonic, vector"),
        "sensitivity": _Setting(_number, "0.95", "share of the positive class to find"),
        "confidence": _Setting(_number, "0.95", "how sure that must be reached on other patients"),
        "accept": _Setting(_names, '["FS101"]', "findings that are known"),
    },
    "Training, validation and test": {
        "test-size": _Setting(_number, "0.25", "share that fuse holds out where the data has no splits"),
        "split-seed": _Setting(_count, "0", "seed of that hold-out"),
        "ratios": _Setting(_ratios, "[60, 20, 20]", "of featstore split"),
    },
}
"""What may stand in the file, in the order in which it is written."""
SETTINGS = {name: setting for section in SECTIONS.values() for name, setting in section.items()}
OF_TABLE = frozenset({"columns", "root", "suffix", "group_pattern", "covariates"})
"""Settings that are about one table, where the file names it: `featstore split` writes others beside it."""
OF_LABELS = frozenset({"columns", "labels", "labels_by"})
"""Settings that are about a table of labels, where DATA is the folder of the images."""
NOT_FOR: Mapping[str, frozenset[str]] = {
    "split": frozenset({"folds"}),
    "finetune": frozenset({"recipe"}),
    "paper": frozenset({"backbones", "views"}),
    "predict": frozenset({"labels", "labels_by"}),
    "explain": frozenset({"labels", "labels_by"}),
}
"""Arguments that have a setting's name and another meaning."""


# Reading


@dataclass(frozen=True, slots=True)
class Config:
    """A file of settings, as it was read.

    Attributes
    ----------
    path
        Where it lies.
    sha256
        Of its bytes.
    values
        By the names of arguments; `value_range` as two numbers, paths from the folder of the file.
    """

    path: Path
    sha256: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def record(self, used: Sequence[str]) -> dict[str, Any]:
        """Name and digest of the file, and what was taken from it: for ``run.json``, which names no folder."""
        return {"file": self.path.name, "sha256": self.sha256, "used": sorted(used)}


def config_of(data: str | Path, path: str | Path | None = None) -> Config | None:
    """Read the settings of a data set.

    Parameters
    ----------
    data
        Folder or file; its settings lie in it, or beside it.
    path
        File to read instead, wherever it lies; ``none`` for none.

    Returns
    -------
    Config or None
        None where there is no file.

    Raises
    ------
    UsageError
        If there is one, and it cannot be read or says what cannot be meant.
    """
    if path is not None and str(path) == NO_CONFIG:
        return None
    found = Path(path) if path is not None else place(data)
    if path is None and not os.path.lexists(found):
        return None
    raw = _bytes(found, named=path is not None)
    text = _decode(found, raw)
    values = _values(found, text, named=path is not None)
    table = values.pop(DATA, None)
    if table is not None and table != Path(data).name:
        values = {name: value for name, value in values.items() if name not in OF_TABLE}
    if "labels" in values and not Path(data).is_dir():
        values = {name: value for name, value in values.items() if name not in OF_LABELS}
    return Config(found, digest_bytes(raw), values)


def place(data: str | Path) -> Path:
    """Where the settings of a data set lie: in a folder, or beside a file."""
    data = Path(data)
    return (data if data.is_dir() else data.parent) / NAME


def _bytes(path: Path, *, named: bool) -> bytes:
    """Bytes of the file; what lies beside data of a stranger's leads nowhere else."""
    try:
        return read_regular(path, MAX_BYTES, follow_links=named)
    except UnfitFileError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.",
            f"Put a plain file of at most {MAX_BYTES:,} bytes there, name one with --config FILE, or leave it aside:"
            f" --config {NO_CONFIG}",
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.",
            f"Check this path, or go without settings: --config {NO_CONFIG}",
        ) from error


def _decode(path: Path, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: it is no text in UTF-8.",
            f"Save the file as UTF-8, or leave it aside: --config {NO_CONFIG}",
        ) from error
    for number, line_ in enumerate(text.split("\n"), 1):
        if len(line_) > MAX_LINE:
            raise UsageError(f"{path}, line {number}: it has more than {MAX_LINE:,} characters.", WITHOUT)
    return text


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        where = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", what)
        line = "" if where is None else f", line {where[1] or text.count(chr(10)) + 1}"
        what = what if where is None else what[: where.start()]
        raise UsageError(f"{path}{line}: it is no TOML: {what}.", WITHOUT) from error


def _values(path: Path, text: str, *, named: bool) -> dict[str, Any]:
    """Settings by the names of arguments.

    Raises
    ------
    UsageError
        If a key is none, stands twice, or its value is not of its kind.
    """
    found: dict[str, Any] = {}
    for key, value in _parse(path, text).items():
        name = key.replace("_", "-")
        where = f"{path}{_line(text, key)}"
        if name == DATA and isinstance(value, str):
            found[DATA] = value
            continue
        setting = SETTINGS.get(name)
        if setting is None:
            raise _unknown(where, key, value)
        try:
            read = setting.read(value)
        except _UnfitError:
            raise _unfit(where, name, value, setting) from None
        argument = _argument(name)
        if argument in found:
            raise UsageError(f"{where}: {name} stands twice in it.", "Leave one of them out.")
        found[argument] = read
    if "value_range" in found and "window" in found:
        raise UsageError(f"{path}: range and window say the same.", "Leave one of them out.")
    return _with_places(path, text, found, named=named)


def _with_places(path: Path, text: str, found: dict[str, Any], *, named: bool) -> dict[str, Any]:
    """Paths from the folder of the file; one that was only met beside the data leads no table out of that folder."""
    base = path.parent
    for name, what in {"root": "FOLDER", "labels": "TABLE"}.items():
        if name not in found:
            continue
        place = base / found[name]
        if not named and not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(base)):
            raise UsageError(
                f"{path}{_line(text, name)}: {name} leads out of the folder of the data.",
                f"Give it as --{name} {what}; or name the file of settings yourself: --config FILE",
            )
        found[name] = place
    if "weights" in found:
        found["weights"] = {
            name: choice if choice == "imagenet" or choice.startswith("random:") else str(base / choice)
            for name, choice in found["weights"].items()
        }
    return found


def _argument(name: str) -> str:
    return "value_range" if name == "range" else name.replace("-", "_")


def _line(text: str, key: str) -> str:
    """Where a key stands, as far as the beginnings of lines tell."""
    begins = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    lines = enumerate(text.split("\n"), 1)
    return next((f", line {number}" for number, line in lines if begins.match(line)), "")


def _unknown(where: str, key: str, value: Any) -> UsageError:  # noqa: ANN401
    shown = f"[{_short(key)}]" if isinstance(value, dict) else _short(key)
    close = nearest(key, SETTINGS)
    remedy = (
        f"Did you mean {' or '.join(close)}?"
        if close
        else "Leave it out; `featstore check DATA --write-config --config all.toml` writes all that there are."
    )
    return UsageError(f"{where}: {shown} is no setting.", remedy)


def _unfit(where: str, name: str, value: Any, setting: _Setting) -> UsageError:  # noqa: ANN401
    if isinstance(value, dict):
        strays = [key for key in value if key.replace("_", "-") in SETTINGS]
        if strays:
            return UsageError(
                f"{where}: {strays[0]} stands under [{name}], and so is a part of it.",
                f"Move it above [{name}].",
            )
    return UsageError(
        f"{where}: {name} cannot be {_short(repr(value))}.", f"Write for instance: {name} = {setting.example}"
    )


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


@public
def read_config(
    data: str | Path, *, function: str | None = None, path: str | Path | None = None
) -> dict[str, Any]:
    """Read the settings of a data set (``featstore.toml``) as keyword arguments.

    The command line reads them by itself; a function of `featstore` never does, so that a script says what it uses.

    Parameters
    ----------
    data
        The data set: its settings lie in the folder, or beside the file.
    function
        Name of a function of `featstore`, such as ``compare``: only what it takes is returned. None for all.
    path
        File to read instead.

    Returns
    -------
    dict
        Keyword arguments; empty where there is no file.

    Raises
    ------
    UsageError
        If the file cannot be read, has a key that is no setting, or a value that is not of its kind.
    UnknownNameError
        If there is no such function.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.write_config(data, positive="covid", folds=3, seeds=[1, 2], overwrite=True)
    >>> featstore.read_config(data, function="compare")
    {'seeds': (1, 2), 'positive': 'covid', 'folds': 3}
    >>> featstore.read_config(data, function="check")
    {}
    """
    known = None if function is None else _parameters(function)
    config = config_of(data, path)
    if config is None:
        return {}
    values = dict(config.values)
    if "window" in values:
        from featstore.images.recipe import parse_window

        values["value_range"] = parse_window(values.pop("window"))
    return {name: value for name, value in values.items() if known is None or name in known}


def _parameters(function: str) -> set[str]:
    import featstore
    from featstore.errors import UnknownNameError

    names = [name for name in featstore.__all__ if name.islower()]
    if function not in names:
        raise UnknownNameError(f"featstore has no function {function!r}.", did_you_mean(function, names))
    return {*inspect.signature(getattr(featstore, function)).parameters} - NOT_FOR.get(function, frozenset())


# Writing


@public
def write_config(
    data: str | Path,
    *,
    path: str | Path | None = None,
    found: Check | None = None,
    overwrite: bool = False,
    **settings: Unpack[ConfigOptions],
) -> Path:
    """Write the settings of a data set, with a line of comment for each that there is.

    Parameters
    ----------
    data
        The data set: the file comes into the folder, or beside the file.
    path
        File to write instead.
    found
        What `featstore.check` has found: classes and patients become comments, and of two classes the positive one
        is written, where their names tell it.
    overwrite
        Replace the file if it is there. What it said is kept, unless `settings` say otherwise.
    **settings
        What to write: see `ConfigOptions`. All others stand there as comments.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        If the file is there and `overwrite` is off, or a value is not of its kind.
    StoreError
        If it cannot be written.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> path = featstore.write_config(data, found=featstore.check(data), overwrite=True)
    >>> [line for line in path.read_text().splitlines() if line.startswith("positive")]
    ['positive = "covid"                        # class that sensitivity is about']
    """
    target = refuse_overwriting(data, path, overwrite=overwrite)
    earlier = _written(target) if os.path.lexists(target) else {}
    table = {} if Path(data).is_dir() else {DATA: Path(data).name}
    given = {name: value for name, value in settings.items() if value is not None}
    values = {**earlier, **_plain(given, target.parent)}
    if {"window", "value_range"} <= given.keys():
        raise UsageError("range and window say the same.", "Leave one of them out.")
    for one, other in (("window", "value_range"), ("value_range", "window")):
        if one in given:
            values.pop(_key(other), None)
    text = _document({**values, **table}, found)
    _values(target, text, named=path is not None)  # what is written can be read
    try:
        write_private(target, text.encode())
    except OSError as error:
        raise StoreError(
            f"Cannot write {target}: {error.strerror or error}.",
            "Choose a folder that you may write to: --config FILE",
        ) from error
    return target


def refuse_overwriting(data: str | Path, path: str | Path | None, *, overwrite: bool) -> Path:
    """File that settings are written to, if they may be.

    Raises
    ------
    UsageError
        If it is there and `overwrite` is off, or is something else than a file.
    """
    if path is not None and str(path) == NO_CONFIG:
        raise UsageError(
            "--config none names no file to write to.", "Name one: --config FILE, or leave it out."
        )
    target = place(data) if path is None else Path(path)
    if not os.path.lexists(target):
        return target
    if not overwrite:
        raise UsageError(
            f"{target} is there already.",
            "Add --overwrite: what it says is kept where no flag says otherwise; or name another with --config.",
        )
    if target.is_symlink() or not target.is_file():
        raise UsageError(f"{target} is no plain file.", "Name another file with --config FILE.")
    return target


def _written(path: Path) -> dict[str, Any]:
    """What stands in a file, as it stands there."""
    text = _decode(path, _bytes(path, named=False))
    _values(path, text, named=True)
    return {key.replace("_", "-"): value for key, value in _parse(path, text).items()}


def _key(argument: str) -> str:
    return "range" if argument == "value_range" else argument.replace("_", "-")


def _plain(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Arguments as TOML may hold them, by the names of the file.

    Raises
    ------
    UsageError
        If a value is not of its kind.
    """
    values: dict[str, Any] = {}
    for argument, value in given.items():
        key = _key(argument)
        setting = SETTINGS[key]
        plain = str(value) if isinstance(value, Path) else value
        try:
            read = setting.read(plain)
        except _UnfitError:
            raise _unfit("settings", key, value, setting) from None
        values[key] = read
    for name in ("root", "labels"):
        if name in values:
            values[name] = _from(folder, values[name])
    if "weights" in values:
        values["weights"] = {
            name: choice if choice == "imagenet" or choice.startswith("random:") else _from(folder, choice)
            for name, choice in values["weights"].items()
        }
    return values


def _from(folder: Path, path: str) -> str:
    """A path as one from the folder of the file, or an absolute one as it is where it lies elsewhere."""
    if Path(path).is_absolute() and not Path(path).is_relative_to(folder.absolute()):
        return path
    return os.path.relpath(path, folder)


def _document(values: Mapping[str, Any], found: Check | None) -> str:
    """Text of the file: what is set, and all else as comments."""
    values = dict(values)
    lines = [
        f"# {NAME}: settings of this data set, for every featstore command.",
        "# Their names are those of the flags. A flag wins; --config none goes without this file.",
        "# What begins with # is an example, and not set.",
    ]
    if found is not None:
        classes = ", ".join(f"{_comment(name)} {count}" for name, count in found.classes.items())
        lines += ["#", f"# Found: {found.images} images of {found.groups} patients (groups); {classes}."]
        values.setdefault("positive", _positive(found))
    if DATA in values:
        lines += ["", f"{DATA} = {_toml(values[DATA])}  # the table that columns, root, suffix are about"]
    for title, section in SECTIONS.items():
        lines += ["", f"# {title}", ""]
        for name, setting in section.items():
            value = values.get(name)
            line = f"# {name} = {setting.example}" if value is None else f"{name} = {_toml(value)}"
            lines.append(f"{line:<{COMMENTS_FROM}}  # {setting.what}")
    return "\n".join(lines) + "\n"


def _positive(found: Check) -> str | None:
    """Class that sensitivity is about, where the names of the classes tell it."""
    from featstore.evaluation.metrics import positive_class

    classes = list(found.classes)
    preferred = positive_class(classes)
    return classes[preferred.index] if preferred.origin == "names" and preferred.index is not None else None


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _toml(value: Any) -> str:  # noqa: ANN401
    """A value as TOML writes it, on one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _quoted(value)
        case dict():
            return "{ " + ", ".join(f"{_quoted_key(n)} = {_toml(part)}" for n, part in value.items()) + " }"
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _quoted_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _quoted(name)


def _quoted(text: str) -> str:
    """A text as TOML writes it: as it is where that can be, else with escapes."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{text!r} is no Unicode, and {NAME} cannot hold it.", "Rename that file or folder.")
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def _escape(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
