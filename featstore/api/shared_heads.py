"""`share` and `answers`: heads of several hospitals, tested by each on its own patients; no image or vector leaves.

Each hospital fits a linear head on its own patients and hands it out by `share`. With the heads of all, each answers
the patients that it kept for testing, by `answers`. From these answers `featstore.fuse_from_sites` scores every head
at every hospital, and the mean of their logits, which becomes the model. Nothing is chosen by the answers, so that
the scores are those of patients whom no head has learned from.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import registry, runs, serialization
from featstore.api.fuse import primary_change
from featstore.api.predict import read_model
from featstore.arguments import public, refuse_settled
from featstore.errors import AuditError, MissingFeaturesError, RunError, UsageError
from featstore.evaluation import leakage
from featstore.evaluation.calibration import NEUTRAL
from featstore.evaluation.estimates import AnsweredUnits, held_out_primary, held_out_scores
from featstore.evaluation.metrics import PRIMARY
from featstore.findings import resolve
from featstore.fusion.linear import LinearModel, probabilities
from featstore.fusion.model_io import save_strategy
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategy import FOLDER, PatientStrategy
from featstore.image_facts import recognise
from featstore.matrix import Source  # noqa: TC001  # `public` looks its entries up
from featstore.results.fusion import HeadAnswers, HeadScore, MergedHeads, SharedHead
from featstore.splits import seen_or_same_group
from featstore.store.store import default_cache
from featstore.tables import printable
from featstore.types import IDENTITY, IMPORTED_PREFIX, FeatureKey, make_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.results.scores import Score
    from featstore.store.training_record import KnownImages

    Floats = NDArray[np.float64]

HEAD, ANSWERS = "featstore head 1", "featstore answers 1"
FEWEST, MOST_CLASSES, MOST_HEADS, MOST_PATIENTS = 2, 64, 100, 1_000_000
LONGEST_NAME = 40
LARGEST = 1e6
"""No logit of a head is larger."""
LARGEST_WEIGHT = 1e30
"""No weight, mean or scale of a head is larger."""
LINEAR = ("coef", "intercept", "mean", "scale")
IDENTITY_VIEW = asdict(IDENTITY)
DIGITS = 6
"""Of a logit in a file: more tell nothing of the patient, and something of the vector."""
MADE_BY = "Let the hospital write it again: featstore share RUN --out NAME.json"
ANSWERED_BY = (
    "Let the hospital write it again: featstore answers DATA --heads A.json,B.json --own RUN --out SITE.json"
)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear head of some hospital, on the networks that all of them use.

    Attributes
    ----------
    name, strategy
        As its hospital calls it, and what it was fitted by.
    images
        Number that it was fitted on.
    linear
        Its logits, over the columns of all networks.
    document
        As it was written.
    """

    name: str
    strategy: str
    images: int
    linear: LinearModel
    document: Mapping[str, Any]


@public
def share(
    folder: str | Path, out: str | Path, *, name: str | None = None, overwrite: bool = False
) -> SharedHead:
    """Write the head of a run as a file that other hospitals can test; no image, no vector, no patient is in it.

    Parameters
    ----------
    folder
        Run of `featstore.fuse`, of a strategy that is linear in the vectors and answers for images.
    out
        The file, readable for the owner alone.
    name
        What the head is called at other hospitals; by default the name of the file.
    overwrite
        Replace a file that is there.

    Raises
    ------
    UsageError
        If the model is not linear, has covariates, or the file is there already.
    RunError
        If the folder holds no model of one hospital, or the disk refuses.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> shared = featstore.share("runs/fuse", "north.json", overwrite=True)
    >>> shared.name, shared.strategy, shared.images
    ('north', 'concat_logreg', 12)
    """
    run, target = Path(folder), Path(out)
    refuse_there(target, overwrite=overwrite)
    called = target.name.split(".")[0] if name is None else name
    if not _is_name(called):
        raise UsageError(
            f"A head cannot be called {printable(called)[:LONGEST_NAME]!r}.",
            f"Give --name, of 1 to {LONGEST_NAME} letters, digits, spaces, - or _.",
        )
    page = _page_of(run, called)
    size = write_sealed(target, page)
    return SharedHead(
        file=str(target),
        size_bytes=size,
        name=called,
        strategy=page["strategy"],
        backbones=tuple(spec["name"] for spec in page["backbones"]),
        images=page["images"],
        imported=tuple(
            spec["name"] for spec in page["backbones"] if spec["weights"].startswith(IMPORTED_PREFIX)
        ),
    )


def _page_of(run: Path, name: str) -> dict[str, Any]:
    """The head of a run, as `share` writes it; UsageError or RunError if it has none that is shared."""
    model, document = read_model(run), runs.read_run(run)
    if document["kind"] != "fuse":
        raise RunError(
            f"{run} holds a model of several hospitals.",
            "Give a run of `featstore fuse` on one data set.",
        )
    strategy = registry.name_of(FOLDER, type(model.strategy)) or type(model.strategy).__name__
    linear = model.strategy.linear_logits()
    if linear is None or isinstance(model.strategy, PatientStrategy) or model.covariates is not None:
        why = (
            "has covariates"
            if model.covariates is not None
            else "is not linear in the vectors of an image by itself"
        )
        raise UsageError(
            f"The model of {run} ({strategy}) {why}, and heads are shared that are weights of such.",
            "Fit one that is: `featstore fuse DATA --strategy concat_logreg --out RUN`, without --covariates.",
        )
    return {
        "format": HEAD,
        "name": name,
        "strategy": strategy,
        "classes": list(model.classes),
        "positive": model.positive,
        "images": document["sizes"]["train"],
        **{part: document["matrix"][part] for part in ("backbones", "decoding")},
        "linear": {part: getattr(linear, part).tolist() for part in LINEAR},
    }


@public
def answers(
    data: str | Path,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    own: str | Path | None = None,
    accept: Collection[str] = (),
    overwrite: bool = False,
    progress: bool = False,
    **source: Unpack[Source],
) -> HeadAnswers:
    """Answer the patients that this hospital kept for testing with the heads of all hospitals.

    The file holds, for each patient of the data set's own split ``test``, the class and one logit of each head (mean
    over the patient's images), in an order of their own; and the heads. No path, no name, no vector.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` with a split ``test`` that no head has learned from, whose features are
        in the store; their identity view is used.
    files
        Heads, as `share` has written them, of this hospital and the others: at least two, the same at every hospital.
    out
        The file, readable for the owner alone.
    own
        Run of `featstore.fuse` that this hospital's own head was shared from. It knows which images it has learned
        from, also by their pixels and by the names of patients: those patients are left out of the answers and
        counted. Without it nobody can tell whether the head was fitted on another split of this data set.
    accept
        Codes of findings that are known.
    overwrite
        Replace a file that is there.
    progress
        Show a bar on stderr while files are looked at.
    **source
        Where the features are and how the data set is read: see `featstore.matrix.Source`. Networks are those of the
        heads, and the view is the identity, so that neither can be given.

    Raises
    ------
    UsageError
        If networks or views are given, the heads do not belong together or are of other features, none is that of
        `own`, there is no split ``test``, or the file is there.
    AuditError
        If the own head has learned from all patients of the split ``test``.
    RunError
        If a file is no head, `own` does not tell what it has learned from, or the disk refuses.
    MissingFeaturesError
        If features that the heads ask for are not in the store.

    Examples
    --------
    >>> import featstore
    >>> heads = []
    >>> for site in (0, 1):
    ...     data = featstore.make_phantoms(f"site{site}", patients=16, slices=1, size=64, seed=site)
    ...     _ = featstore.split(data, f"site{site}/split.csv", ratios=[75, 25], overwrite=True)
    ...     own = {"cache": f"cache{site}"}
    ...     _ = featstore.extract(f"site{site}/split.csv", backbones=["EfficientNetLite0"], recipe="identity", **own)
    ...     _ = featstore.fuse(f"site{site}/split.csv", out=f"runs/{site}", overwrite=True, **own)
    ...     heads.append(featstore.share(f"runs/{site}", f"head{site}.json", overwrite=True).file)
    >>> asked = featstore.answers(
    ...     "site0/split.csv", heads, "answers0.json", own="runs/0", overwrite=True, cache="cache0"
    ... )
    >>> asked.heads, asked.patients
    (('head0', 'head1'), {'covid': 2, 'normal': 2})
    >>> asked.own, asked.learned  # of the test patients, the own head has learned from none
    ('head0', 0)
    """
    refuse_settled(
        source, ("backbones", "recipe", "seeds"), "the heads name the networks, and answer the identity view"
    )
    target = Path(out)
    refuse_there(target, overwrite=overwrite)
    shared = [read_head(Path(file)) for file in files]
    _require_one_kind([Path(file) for file in files], shared)
    if source.get("covariates"):
        raise UsageError("Heads are of images alone, and --covariates were given.", "Leave out --covariates.")
    mine = None if own is None else _own_head(Path(own), shared)
    first = shared[0].document
    source["seeds"] = ()
    source["backbones"] = [spec["name"] for spec in first["backbones"]]
    matrix, positive = _tested(data, first, accept, progress=progress, source=source)
    rows = np.flatnonzero([record.split == "test" for record in matrix.records])
    leakage.require_unseen(matrix, {"test": rows}, choosing=False)
    tested, learned = rows, 0
    if mine is not None:
        cache = Path(source.get("cache") or default_cache())
        rows = rows[~_learned_from(matrix, mine.learned, cache)[rows]]
        learned = _count_patients(matrix, tested) - _count_patients(matrix, rows)
    if not len(rows):
        raise AuditError(
            f"The head of {own} has learned from all {len(tested)} images of the split test, or from their patients.",
            "Give the table that the head was fitted on: `featstore answers DATA`, DATA as for `featstore fuse`.",
        )
    y, numbers = _patients_of(matrix, rows)
    X = matrix.rows(rows, matrix.backbones, [0])
    logits = np.stack([_mean(head.linear.decision(X), numbers) for head in shared], axis=1).round(DIGITS)
    for file, answered in zip(files, logits.transpose(1, 0, 2), strict=True):
        if not (np.abs(answered) <= LARGEST).all():
            raise RunError(f"{file} gives patients logits beyond all measure.", MADE_BY)
    order = np.lexsort((*logits.reshape(len(y), -1).T, y))
    page = {
        "format": ANSWERS,
        "has_patients": matrix.has_groups,
        "images": len(rows),
        "own": None if mine is None else mine.name,
        "heads": [head.document for head in shared],
        "classes_of": y[order].tolist(),
        "logits": logits[order].tolist(),
    }
    size = write_sealed(target, page)
    table = _answered(matrix.classes, y)
    scores = held_out_primary(
        table,
        np.arange(len(y)),
        {head.name: probabilities(logits[:, at]) for at, head in enumerate(shared)},
        positive,
    )
    return HeadAnswers(
        file=str(target),
        size_bytes=size,
        heads=tuple(head.name for head in shared),
        images=len(rows),
        patients={name: int((y == at).sum()) for at, name in enumerate(matrix.classes)},
        has_patients=matrix.has_groups,
        scores=scores,
        own=None if mine is None else mine.name,
        learned=learned,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _OwnHead:
    """The head of this hospital: what it is called, and what it has learned from."""

    name: str
    learned: KnownImages


def _own_head(run: Path, heads: Sequence[Head]) -> _OwnHead:
    """The one of `heads` that was shared from a run: the digest of all but its name is that of the run's."""
    document = json.loads(json.dumps(_page_of(run, "own")))
    digest = _nameless_digest(document)
    names = [head.name for head in heads if _nameless_digest(head.document) == digest]
    if not names:
        raise UsageError(
            f"None of the heads was shared from {run}.",
            f"Give the run that the head of this hospital is of, or share it anew: `featstore share {run} --out"
            " NAME.json`.",
        )
    learned = leakage.read_training_images(run, runs.read_run(run))
    if learned is None or not learned.is_complete:
        raise RunError(f"{run} does not tell all images that its head has learned from.", runs.REMEDY)
    return _OwnHead(names[0], learned)


def _nameless_digest(document: Mapping[str, Any]) -> str:
    return serialization.digest({part: value for part, value in document.items() if part != "name"})


def _learned_from(matrix: FeatureMatrix, learned: KnownImages, cache: Path) -> NDArray[np.bool_]:
    """Images ``(n,)`` that a head has learned from, or of a patient of whom it knows one."""
    known = {"own": learned}
    ways = recognise(matrix.records, known, matrix.decoding, has_groups=matrix.has_groups, cache=cache)
    return seen_or_same_group(matrix, ways["own"])


def _count_patients(matrix: FeatureMatrix, rows: NDArray[np.intp]) -> int:
    """Number of patients of some images, or of the images where no patients are known."""
    return len(set(matrix.groups[rows].tolist())) if matrix.has_groups else len(rows)


def _answered(classes: Sequence[str], y: NDArray[np.intp]) -> AnsweredUnits:
    """Patients as a table that is scored: each is a group of its own, of no name."""
    return AnsweredUnits(tuple(classes), y, np.char.mod("%07d", np.arange(len(y))))


def refuse_there(target: Path, *, overwrite: bool) -> None:
    """Make sure that a file may be written: it is not there, or may be replaced; UsageError if not."""
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} is there already.", "Choose another --out, or add --overwrite.")


def _is_name(name: object) -> bool:
    """Whether a head can be called so: on any screen and in any table it is what it looks like."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_NAME
        and name == name.strip()
        and all(letter.isalnum() or letter in " -_" for letter in name)
    )


def write_sealed(target: Path, page: Mapping[str, Any]) -> int:
    """Write a sealed file and return its size."""
    text = json.dumps(serialization.seal(json.loads(json.dumps(page))), allow_nan=False) + "\n"
    try:
        target.parent.mkdir(mode=serialization.PRIVATE_FOLDER, parents=True, exist_ok=True)
        serialization.write_private(target, text.encode())
    except OSError as error:
        raise RunError(f"Cannot write {target}: {error.strerror}.", "Choose another --out.") from error
    return len(text)


def _tested(
    data: str | Path,
    head: Mapping[str, Any],
    accept: Collection[str],
    *,
    progress: bool,
    source: Source,
) -> tuple[FeatureMatrix, int | None]:
    """Features of the data set, if they are those of the head; and the positive class."""
    try:
        loaded = leakage.loaded_matrix(data, progress=progress, **source)
    except MissingFeaturesError as error:
        names = ",".join(spec["name"] for spec in head["backbones"])
        raise MissingFeaturesError(
            f"The heads ask for features that are not in the cache: {error.cause}",
            f"Run `featstore extract DATA --backbones {names}`, with the weights and --window of the heads; or name"
            " the store by --cache.",
        ) from error
    cache = Path(source.get("cache") or default_cache())
    codes = [resolve(code) for code in accept]
    matrix = leakage.prepare(data, loaded, cache, codes, drops_seen=False, progress=progress).matrix
    if not any(record.split == "test" for record in matrix.records):
        raise UsageError(
            "The data set has no split, so that nobody knows which patients a head has learned from.",
            "Divide it before a head is fitted: `featstore split DATA --out split.csv`.",
        )
    if list(matrix.classes) != head["classes"]:
        raise UsageError(
            f"The data set has the classes {', '.join(matrix.classes)}, the heads {', '.join(head['classes'])}.",
            "Call them alike at every hospital.",
        )
    here = json.loads(json.dumps(runs.describe(matrix, None)))
    if here["backbones"] != head["backbones"] or pixels_of(here) != pixels_of(head):
        raise UsageError(
            "The features here are of other weights, preprocessing or --window than those of the heads.",
            "Let all hospitals extract with the same ones: `featstore extract DATA --backbones A,B`.",
        )
    positive = head["positive"]
    return matrix, None if positive is None else matrix.classes.index(positive)


def pixels_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """How pixels are made, whatever version of the decoder does it."""
    return {key: value for key, value in document["decoding"].items() if key != "decoder"}


def _patients_of(matrix: FeatureMatrix, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Class ``(patients,)`` of the patients of some images, and the number of the patient of each image."""
    groups = matrix.groups[rows] if matrix.has_groups else np.arange(len(rows))
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    y = matrix.y[rows][first]
    if (matrix.y[rows] != y[numbers]).any():
        raise AuditError(
            "Patients (groups) have images of several classes, and a patient has one.",
            "Give all images of a patient one label.",
        )
    return y, numbers


def _mean(logits: Floats, numbers: NDArray[np.intp]) -> Floats:
    """Mean logits ``(patients, k)`` over the images of each, as `--pool mean-logit` pools."""
    total = np.stack([np.bincount(numbers, column) for column in logits.T], axis=1)
    mean: Floats = total / np.bincount(numbers)[:, None]
    return mean


# Files from elsewhere: everything is checked before it is used


def read_head(path: Path) -> Head:
    """Read a file of `share`.

    Raises
    ------
    RunError
        If it is none, or damaged.
    """
    return parse_head(read_sealed(path, "no head of a hospital", MADE_BY), path)


def parse_head(document: Mapping[str, Any], path: Path) -> Head:
    """Check the content of a file of `share`; see `read_head`."""
    try:
        return _head(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} holds no head of a hospital: {str(error)[:200]}.", MADE_BY) from error


def parse_answers(document: Mapping[str, Any], path: Path) -> SiteAnswers:
    """Check the content of a file of `answers`; see `read_answers`."""
    try:
        return _answers(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} holds no answers of a hospital: {str(error)[:200]}.", ANSWERED_BY) from error


@dataclass(frozen=True, slots=True, eq=False)
class SiteAnswers:
    """What a hospital's test patients were answered.

    Attributes
    ----------
    heads
        Whose answers these are.
    y
        ``(patients,)`` class numbers.
    logits
        ``(patients, heads, k)`` float64.
    images
        Number of images behind them.
    has_patients
        Whether these are patients, and not images taken for them.
    own
        The head that is the hospital's own, if it made sure that this has learned from none of the patients.
    document
        As it was written.
    """

    heads: tuple[Head, ...]
    y: NDArray[np.intp]
    logits: Floats
    images: int
    has_patients: bool
    own: str | None
    document: Mapping[str, Any]


def read_answers(path: Path) -> SiteAnswers:
    """Read a file of `answers`.

    Raises
    ------
    RunError
        If it is none, or damaged.
    """
    return parse_answers(read_sealed(path, "no answers of a hospital", ANSWERED_BY), path)


def holds_answers(path: Path) -> bool:
    """Whether a file says that it holds answers, and not moments; of one that cannot be read, no."""
    try:
        page = serialization.read(path, serialization.LARGE)
    except (OSError, serialization.DocumentError):
        return False
    return isinstance(page, dict) and page.get("format") == ANSWERS


def read_sealed(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read what `write_sealed` has written; RunError, that the file holds `what`, if it is none or damaged."""
    try:
        document: dict[str, Any] = serialization.unseal(serialization.read(path, serialization.LARGE))
    except (OSError, serialization.DocumentError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else error
        raise RunError(f"{path} holds {what}: {why}.", remedy) from error
    return document


def is_count(value: object, least: int, most: int) -> bool:
    """Whether a value from elsewhere is a whole number within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _head(document: Mapping[str, Any]) -> Head:
    if document["format"] != HEAD:
        raise ValueError(f"its format is {str(document['format'])[:40]!r}")
    name, strategy, classes = document["name"], document["strategy"], document["classes"]
    if not (_is_name(name) and _is_name(strategy)):
        raise ValueError("its name is none")
    known = isinstance(classes, list) and all(isinstance(one, str) and one for one in classes)
    if not (known and classes == sorted(set(classes)) and FEWEST <= len(classes) <= MOST_CLASSES):
        raise ValueError("its classes are none")
    if document["positive"] not in (None, *classes):
        raise ValueError("its positive class is none of its classes")
    if not is_count(document["images"], 1, 10**9):
        raise ValueError("its number of images is none")
    keys = [
        FeatureKey.from_json({"backbone": spec, "view": IDENTITY_VIEW, "decoding": document["decoding"]})
        for spec in document["backbones"]
    ]
    if not keys or len({key.backbone.name for key in keys}) < len(keys):
        raise ValueError("its networks are none")
    linear = _linear(document["linear"])
    n_logits = 1 if len(classes) == 2 else len(classes)  # noqa: PLR2004
    if linear.coef.shape != (n_logits, sum(key.backbone.dimension for key in keys)):
        raise ValueError("its weights are not those of its networks and classes")
    return Head(name, strategy, document["images"], linear, dict(document))


def _linear(document: Mapping[str, Any]) -> LinearModel:
    parts = {part: np.array(document[part], np.float64) for part in LINEAR}
    if not all((np.abs(part) <= LARGEST_WEIGHT).all() for part in parts.values()):
        raise ValueError("its weights are beyond all measure")
    return LinearModel(**parts)


def _answers(document: Mapping[str, Any]) -> SiteAnswers:
    if document["format"] != ANSWERS:
        raise ValueError(f"its format is {str(document['format'])[:40]!r}")
    if not (isinstance(document["heads"], list) and FEWEST <= len(document["heads"]) <= MOST_HEADS):
        raise ValueError("its heads are none")
    heads = tuple(_head(page) for page in document["heads"])
    y, logits = np.array(document["classes_of"]), np.array(document["logits"], np.float64)
    if not (y.ndim == 1 and y.dtype.kind == "i" and 0 < len(y) <= MOST_PATIENTS):
        raise ValueError("its patients are none")
    if y.min() < 0 or y.max() >= len(heads[0].document["classes"]):
        raise ValueError("a patient is of no class")
    if logits.shape != (len(y), len(heads), len(heads[0].linear.coef)):
        raise ValueError("it has not one answer of each head for each patient")
    if not (np.abs(logits) <= LARGEST).all():
        raise ValueError("an answer is no logit")
    if not (is_count(document["images"], len(y), 10**9) and isinstance(document["has_patients"], bool)):
        raise ValueError("its counts are none")
    _require_one_kind([Path(head.name) for head in heads], heads)
    own = _own_name(document, heads)
    return SiteAnswers(
        heads, y.astype(np.intp), logits, document["images"], document["has_patients"], own, dict(document)
    )


def _own_name(document: Mapping[str, Any], heads: Sequence[Head]) -> str | None:
    """Which head is the hospital's own; None in a file that does not say, as those of earlier versions."""
    name: str | None = document.get("own")
    if name not in (None, *(head.name for head in heads)):
        raise ValueError("the hospital's own head is none of its heads")
    return name


def _require_one_kind(files: Sequence[Path], heads: Sequence[Head]) -> None:
    """Make sure that heads answer one question about the same vectors, and have names of their own."""
    if not FEWEST <= len(heads) <= MOST_HEADS:
        raise UsageError(
            f"{len(heads)} heads are none of several hospitals.",
            "Give two or more: --heads A.json,B.json",
        )
    first = heads[0]
    for at, (file, one) in enumerate(zip(files, heads, strict=True)):
        for part, what in (
            ("classes", "other classes"),
            ("positive", "another positive class"),
            ("backbones", "other networks or weights"),
        ):
            if one.document[part] != first.document[part]:
                raise UsageError(
                    f"{file} has {what} than {files[0]}.",
                    "Let all hospitals extract and fuse by the same commands, with the same weights.",
                )
        if pixels_of(one.document) != pixels_of(first.document):
            raise UsageError(
                f"{file} was decoded otherwise (--window, --range) than {files[0]}.",
                "Let all hospitals extract with the same window.",
            )
        if one.name in {before.name for before in heads[:at]}:
            raise UsageError(
                f"Two heads are called {one.name}.",
                "Call them otherwise: featstore share RUN --name NAME --out NAME.json",
            )


# The model: the mean of the heads' logits, and what it is worth


def merge_answers(files: Sequence[Path], out: Path) -> MergedHeads:
    """Make one model of the heads that several hospitals have tested, and score it; arguments are checked before."""
    sites = [read_answers(file) for file in files]
    heads = sites[0].heads
    _require_same_heads(files, sites)
    classes = tuple(heads[0].document["classes"])
    chosen = heads[0].document["positive"]
    positive = None if chosen is None else classes.index(chosen)
    y = np.concatenate([site.y for site in sites])
    table = _answered(classes, y)
    logits = np.concatenate([site.logits for site in sites])
    proba = {head.name: probabilities(logits[:, at]) for at, head in enumerate(heads)}
    together = probabilities(logits.mean(axis=1))
    edges = np.cumsum([0, *(len(site.y) for site in sites)])
    parts = [np.arange(start, stop) for start, stop in pairwise(edges)]
    everyone = np.arange(len(y))
    names = _site_names(files)

    def by_hospital(answered: Floats) -> dict[str, Score]:
        return {
            name: held_out_scores(table, rows, answered[rows], positive)[PRIMARY]
            for name, rows in zip(names, parts, strict=True)
        }

    result = MergedHeads(
        run=str(out),
        hospitals=tuple(names),
        backbones=tuple(spec["name"] for spec in heads[0].document["backbones"]),
        classes=classes,
        positive=chosen,
        images=sum(site.images for site in sites),
        patients={name: int((y == at).sum()) for at, name in enumerate(classes)},
        has_patients=all(site.has_patients for site in sites),
        unchecked=tuple(name for name, site in zip(names, sites, strict=True) if site.own is None),
        scores=held_out_scores(table, everyone, together, positive),
        by_hospital=by_hospital(together),
        heads=tuple(
            _scored(head, table, (proba[head.name], together), by_hospital(proba[head.name]), positive)
            for head in heads
        ),
    )
    model = _mean_of(heads)
    runs.clear(out)
    save_strategy(out / runs.MODEL, model, {"classes": list(classes), "operating": NEUTRAL.to_json()})
    runs.write_run(
        out,
        {
            "kind": "merged",
            "strategy": "mean of shared heads",
            "sites": [serialization.digest(site.document) for site in sites],
            "merged": result.to_json(),
            "matrix": {
                "backbones": heads[0].document["backbones"],
                "views": [IDENTITY_VIEW],
                "decoding": heads[0].document["decoding"],
                "positive": chosen,
                "classes": result.patients,
            },
        },
    )
    return result


def _scored(
    head: Head,
    table: AnsweredUnits,
    both: tuple[Floats, Floats],
    by_hospital: Mapping[str, Score],
    positive: int | None,
) -> HeadScore:
    everyone = np.arange(len(table.y))
    change = primary_change(table, everyone, both, positive)
    return HeadScore(
        name=head.name,
        strategy=head.strategy,
        images=head.images,
        score=held_out_primary(table, everyone, {head.name: both[0]}, positive)[head.name],
        by_hospital=by_hospital,
        delta=change.difference,
        interval=change.interval,
    )


def _mean_of(heads: Sequence[Head]) -> ConcatLogreg:
    """The linear model whose logits are the mean of the heads'."""
    coefs = np.stack([head.linear.coef * head.linear.scale for head in heads])
    intercepts = [
        head.linear.intercept - coef @ head.linear.mean for head, coef in zip(heads, coefs, strict=True)
    ]
    width = coefs.shape[2]
    specs = heads[0].document["backbones"]
    blocks = make_blocks({spec["name"]: spec["dimension"] for spec in specs})
    model = ConcatLogreg(blocks)
    model.blocks_, model.classes_ = blocks, np.arange(len(heads[0].document["classes"]))
    model.n_features_in_, model.C_ = width, float(model.C)
    model.model_ = LinearModel(
        coefs.mean(axis=0), np.mean(intercepts, axis=0), np.zeros(width), np.ones(width)
    )
    return model


def _site_names(files: Sequence[Path]) -> list[str]:
    """Names of the files without their endings, told apart where two are alike."""
    names = [file.name.split(".")[0] or file.name for file in files]
    return [name if names.count(name) == 1 else f"{name} {at + 1}" for at, name in enumerate(names)]


def _require_same_heads(files: Sequence[Path], sites: Sequence[SiteAnswers]) -> None:
    """Make sure that all hospitals were asked by the same heads, and none twice."""
    first = [head.document for head in sites[0].heads]
    for at, (file, site) in enumerate(zip(files, sites, strict=True)):
        if [head.document for head in site.heads] != first:
            raise UsageError(
                f"{file} holds answers of other heads than {files[0]}, or in another order.",
                "Let all hospitals run the same: `featstore answers DATA --heads A.json,B.json --own RUN --out"
                " SITE.json`.",
            )
        for other, before in zip(files[:at], sites[:at], strict=True):
            if site.y.tolist() == before.y.tolist() and (site.logits == before.logits).all():
                raise UsageError(
                    f"{file} and {other} hold the same answers: these patients would count twice.",
                    "Give each hospital's file once.",
                )
