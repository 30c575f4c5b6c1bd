"""`plan`: seal a question before any score; and what `compare` makes sure of before it runs one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore import runs, serialization
from featstore.arguments import public
from featstore.errors import StoreError, UsageError
from featstore.evaluation import candidates, patients
from featstore.evaluation import primary_question as questions
from featstore.evaluation.calibration import method
from featstore.evaluation.crossval import usual_repeats
from featstore.evaluation.metrics import PRIMARY, positive_class
from featstore.matrix import Source, load_matrix
from featstore.results.document import ShapeError, read_result
from featstore.results.plan import Looks, Plan, Planning
from featstore.splits import OWN_SPLIT, group_folds, own_split
from featstore.store.notes import Look, record_look, recorded_looks
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix

PLANNED: Mapping[str, Any] = {
    "primary": None,
    "margin": questions.MARGIN,
    "folds": 5,
    "repeats": None,
    "fold_seed": 0,
    "positive": None,
    "calibrate": None,
    "views": (candidates.EXPAND,),
    "test_views": candidates.IDENTITY,
    "unit": patients.IMAGE,
    "pool": None,
}
"""What a plan settles of `featstore.compare`, and what that takes without one."""
AGAIN = "Make it again, before you look: featstore plan DATA --out plan.json"


@public
def plan(
    data: str | Path | Manifest,
    out: str | Path,
    *,
    primary: str | None = None,
    margin: float = questions.MARGIN,
    folds: int | str = 5,
    repeats: int | None = None,
    fold_seed: int = 0,
    positive: str | None = None,
    calibrate: str | None = None,
    views: Sequence[str] = (candidates.EXPAND,),
    test_views: str = candidates.IDENTITY,
    unit: str = patients.IMAGE,
    pool: str | None = None,
    overwrite: bool = False,
    **source: Unpack[Source],
) -> Plan:
    """Seal the primary question of a comparison before any score is seen.

    Question, margin, data, features, folds, repeats and seeds are written down with the date, under a seal; no label
    is used but to count classes, and nothing is fitted. ``featstore.compare(data, plan=...)`` then runs exactly that
    and says that it was planned. The seal shows a change by hand or by accident; it keeps nobody from making a new
    plan, and therefore looks at the same images are counted in the cache and told.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store.
    out
        The plan: a JSON file, for its owner alone.
    primary, margin, folds, repeats, fold_seed, positive, calibrate, views, test_views, unit, pool
        As for `featstore.compare`; `repeats` by the cost of the primary fusion and the single networks.
    overwrite
        Replace a file that is there already.
    **source
        Which features: see `featstore.matrix.Source`.

    Raises
    ------
    UsageError
        If there is no question to ask, it cannot be asked so, or the file is there already.
    StoreError
        If it cannot be written.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0", "EfficientNetLite1"], recipe="identity")
    >>> sealed = featstore.plan(data, "plan.json", folds=3, overwrite=True)
    >>> sealed.primary, sealed.metric, sealed.margin, sealed.folds
    ('concat_logreg', 'auc', 0.01, 3)
    """
    target = Path(out)
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} is there already.", "Choose another --out, or add --overwrite.")
    matrix = load_matrix(data, **source)
    _, question = questions.settle(primary, margin, (), matrix.backbones)
    if question is None:
        raise UsageError(
            f"There is nothing to plan: {matrix.backbones[0]} is the only network, and nothing is fused.",
            "Extract another network: featstore extract DATA --backbones A,B",
        )
    chosen = positive_class(matrix.classes, positive)
    if calibrate is not None:
        method(calibrate)
    candidates.with_views([question.primary], views, test_views, len(matrix.views))
    pooling = patients.require_unit(unit, pool)
    if pooling is not None:
        patients.patients_of(matrix, pooling, chosen.index)
    asked = [*question.singles, question.primary]
    times = usual_repeats(matrix, asked, folds) if repeats is None else repeats
    _require_splits(matrix, folds, times, fold_seed)
    cache = Path(source.get("cache") or default_cache())
    sealed = Plan(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        primary=primary or questions.DEFAULT,
        margin=margin,
        metric=PRIMARY,
        positive=None if chosen.index is None else matrix.classes[chosen.index],
        folds=folds if isinstance(folds, int) else "split",
        repeats=times,
        fold_seed=fold_seed,
        calibrate=calibrate,
        views=tuple(views),
        test_views=test_views,
        data_sha256=runs.data_digest(matrix.records),
        images=len(matrix.records),
        groups=len(set(matrix.groups.tolist())),
        features_sha256=_features_digest(matrix),
        backbones=matrix.backbones,
        looks=_count(looks_at(cache, matrix)),
        unit="image" if pooling is None else "group",
        pool=pooling,
    )
    try:
        target.parent.mkdir(mode=serialization.PRIVATE_FOLDER, parents=True, exist_ok=True)
        serialization.write_private(target, runs.json_text(serialization.seal(sealed.to_json())).encode())
    except OSError as error:
        raise StoreError(
            f"Cannot write {target}: {error.strerror or error}", "Choose another place with --out."
        ) from error
    return sealed


def _require_splits(matrix: FeatureMatrix, folds: int | str, repeats: int, seed: int) -> None:
    """Refuse folds that could not be drawn."""
    if folds == OWN_SPLIT and repeats == 1:
        own_split(matrix)
    elif folds == OWN_SPLIT:
        raise UsageError("The data set's own split cannot be repeated.", "Leave out --repeats.")
    elif isinstance(folds, int):
        group_folds(matrix, folds, repeats, seed)
    else:
        raise UsageError(f"--folds {folds!r} is no number of folds.", "Give a number, or --folds split.")


# Running a plan


def read_plan(path: Path) -> Plan:
    """Read a sealed plan.

    Raises
    ------
    UsageError
        If the file is none, or was changed after it was sealed.
    """
    try:
        return read_result(Plan, serialization.unseal(serialization.read(path)), "the plan")
    except (OSError, serialization.DocumentError, ShapeError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else error
        raise UsageError(f"{path} is no sealed plan: {why}.", AGAIN) from error


def settled(sealed: Plan | None, *given: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Arguments of `featstore.compare` that a plan settles, in the order of `PLANNED`; without one, as given.

    Raises
    ------
    UsageError
        If another value was given beside the plan.
    """
    if sealed is None:
        return given
    planned = {name: getattr(sealed, name) for name in PLANNED}
    for name, value in zip(PLANNED, given, strict=True):
        asked = tuple(value) if isinstance(value, list | tuple) else value
        if asked not in (PLANNED[name], planned[name]):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"The plan has settled {flag}: it is {planned[name]}, and {asked} was given.",
                f"Leave out {flag}; or run `featstore compare DATA` without the plan, and it is exploratory.",
            )
    return tuple(planned.values())


def require_planned(sealed: Plan | None, matrix: FeatureMatrix) -> None:
    """Make sure that a plan is about these images and these features.

    Raises
    ------
    UsageError
        If it is not.
    """
    if sealed is None:
        return
    if sealed.data_sha256 != runs.data_digest(matrix.records):
        groups = len(set(matrix.groups.tolist()))
        raise UsageError(
            f"The plan is about other data: {sealed.images} images of {sealed.groups} groups, sealed on"
            f" {sealed.created[:10]}; these are {len(matrix.records)} images of {groups}, or other labels, groups or"
            " splits.",
            "Give the data set that was planned for, or plan this one: featstore plan DATA --out plan.json",
        )
    if sealed.features_sha256 != _features_digest(matrix):
        raise UsageError(
            f"The plan is about other features, of {', '.join(sealed.backbones)}; these are of"
            f" {', '.join(matrix.backbones)}, or of other weights, views or decoding.",
            "Choose them as the plan did: `featstore compare DATA --plan PLAN.json --backbones A,B --seeds 1-4`",
        )


def _features_digest(matrix: FeatureMatrix) -> str:
    fields = runs.describe(matrix, None)
    return serialization.digest({name: fields[name] for name in ("backbones", "views", "decoding")})


# Looks at a data set


def looks_at(cache: Path, matrix: FeatureMatrix) -> list[Look]:
    """Looks at these images that the cache knows of, the earliest first."""
    return recorded_looks(cache, [record.id for record in matrix.records])


def take_look(cache: Path, matrix: FeatureMatrix, command: str, sealed: Plan | None = None) -> Planning:
    """Note that scores of these images are about to be seen; return what was planned, and how often they were seen.

    Parameters
    ----------
    cache
        The cache folder.
    matrix
        The images, as they were loaded.
    command
        ``compare`` or ``fuse``.
    sealed
        The plan that is run.
    """
    earlier = looks_at(cache, matrix)
    record_look(
        cache,
        [record.id for record in matrix.records],
        Look(datetime.now(UTC).isoformat(timespec="seconds"), command),
    )
    if sealed is None:
        return Planning(plan=None, looks=_count(earlier))
    before = sum(look.when < sealed.created for look in earlier)
    return Planning(
        plan=serialization.digest(sealed.to_json()),
        created=sealed.created,
        before_plan=max(before, sealed.looks.count),
        looks=_count(earlier),
    )


def _count(looks: Sequence[Look]) -> Looks:
    return Looks(
        compare=sum(look.command == "compare" for look in looks),
        fuse=sum(look.command == "fuse" for look in looks),
        first=looks[0].when if looks else "",
        last=looks[-1].when if looks else "",
    )
