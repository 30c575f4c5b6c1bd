"""`paper`: the steps of Ji et al. 2020 in their order, beside the honest protocol."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore import runs
from featstore.api.check import check
from featstore.api.report import REPORT_FILE, write_report
from featstore.arguments import public
from featstore.errors import BadImageError, UsageError
from featstore.evaluation.metrics import positive_class
from featstore.images.formats.container import HEAD, identify
from featstore.images.manifest import Manifest, require_two_classes
from featstore.images.reading import FILE_CACHE, decode
from featstore.images.scan import ScanOptions, scan
from featstore.reproduction import protocol
from featstore.reproduction.figures import SampleImages, draw_all
from featstore.results.paper import Conversion, PaperNetwork, Reproduction
from featstore.runs import LOCK
from featstore.serialization import PRIVATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The steps

RECIPE = "paper"
PARTS = frozenset({"by_image", "by_patient", runs.FIGURES, runs.METRICS, REPORT_FILE, LOCK})
"""What a run that was killed may have left."""


@public
def paper(
    data: str | Path | Manifest,
    *,
    backbones: Sequence[str] = protocol.SEVEN,
    weights: Mapping[str, str] | None = None,
    precision: str = "float32",
    out: str | Path = "runs/paper",
    overwrite: bool = False,
    images: int | None = None,
    views: int = 2,
    epochs: int = 100,
    seed: int = 0,
    paper_split: bool = False,
    positive: str | None = None,
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    memory: int | None = None,
    jobs: int = 1,
    progress: bool = False,
    **reading: Unpack[ScanOptions],
) -> Reproduction:
    """Reproduce Ji et al. 2020 on a data set, and say what its number is worth.

    Each step is a call of a public function, in a run folder of its own under `out`; ``out/figures`` holds
    every figure of the paper, ``out/report.html`` all of it on one page. Features come from the cache, as does every
    answer of the comparison: the same call again computes none.

    Parameters
    ----------
    data
        A folder or a CSV file; a split of its own is not used.
    backbones
        The seven networks of the paper, or others; those beyond the seven are extra members.
    weights
        As for `featstore.extract`. A network whose ImageNet weights cannot be had is left out and listed as absent.
    precision
        As for `featstore.extract`.
    out, overwrite
        Folder of the run. The same call goes on in it; another one needs `overwrite`.
    images
        About so many images, as whole patients; all where None.
    views
        Augmented views of each training image: the paper drew new ones in every epoch.
    epochs
        Of each head.
    seed
        Of the sample of patients and of the splits.
    paper_split
        Whether the sides have the paper's proportions: 2,450 of 6,000 images to train, halves of the others to
        validate and to test. Without it a quarter is for testing, and 40 % of the others for validation.
    positive
        As for `featstore.compare`: the class that counts as infected.
    value_range, cache, memory
        As for `featstore.extract`.
    jobs
        As for `featstore.compare`.
    progress
        Show bars on stderr.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    WeightsError
        If no network has weights.
    AuditError
        If the data set would give a false answer, or is too small to be split.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> reproduction = featstore.paper(
    ...     data, backbones=["MobileNetV2"], weights={"MobileNetV2": "random:1"}, views=1, epochs=1,
    ...     cache="paper-cache", out="runs/paper", overwrite=True,
    ... )
    >>> len(reproduction.claims) > 0
    True
    """
    with runs.exclusive_access(Path(out)):
        folder = Path(out)
        protocol.require_some(backbones, weights or {})
        whole = scan(data, **reading)
        part = protocol.sample(whole.with_splits(None), images, seed)
        networks = protocol.find_networks(backbones, weights or {}, precision)
        settings = protocol.PaperSettings(
            backbones=[member.name for member in networks if member.is_here],
            epochs=epochs,
            positive=positive,
            views={"recipe": RECIPE, "seeds": range(1, views + 1)},
            source={
                "weights": protocol.choices(networks, weights or {}),
                "precision": precision,
                "value_range": value_range,
                "cache": cache,
            },
            memory=memory,
            jobs=jobs,
            progress=progress,
        )
        arguments = {
            "data_sha256": runs.data_digest(part.records),
            "networks": {member.name: member.digest for member in networks},
            "precision": precision,
            "images": images,
            "views": views,
            "epochs": epochs,
            "seed": seed,
            "positive": positive,
            **({"paper_split": True} if paper_split else {}),  # earlier runs do not have it
        }
        positive_class(part.classes, positive)  # refuses a class that does not exist
        _refuse_other(folder, arguments, overwrite=overwrite)
        with runs.exclusive_access(folder):
            _prepare(folder, arguments, overwrite=overwrite)
            audit = _audit(whole.only({record.id for record in part.files}), value_range)
            result = _reproduce(part, networks, settings, audit, arguments, folder)
            runs.write_run(folder, {"kind": "paper", "arguments": arguments}, result.to_json())
            write_report(
                folder, folder / REPORT_FILE, with_images=True
            )  # in the run folder, where the images are anyway
        return result


def _reproduce(
    part: Manifest,
    networks: Sequence[PaperNetwork],
    settings: protocol.PaperSettings,
    audit: Mapping[str, Any],
    arguments: Mapping[str, Any],
    folder: Path,
) -> Reproduction:
    """Do the steps in their order; all numbers come from the runs that they leave."""
    converted, part = convert(part, settings.source["value_range"])
    drawn: dict[str, Any] = {
        "seed": arguments["seed"],
        "paper_split": arguments.get("paper_split", False),
    }
    splits = {"by_image": protocol.split(part.by_image(), **drawn)}
    if part.has_groups:
        splits["by_patient"] = protocol.split(part, **drawn)
    for sides in splits.values():
        protocol.require_every_class(sides)
    extractions = [
        protocol.compute_features(part, settings, features, folder / unit / "extract")
        for unit, features in (("by_image", settings.paper_source), ("by_patient", settings.own_source))
    ]
    fits = {
        unit: protocol.fit_paper(sides, settings, folder / unit, singles=unit == "by_image")
        for unit, sides in splits.items()
    }
    honest = protocol.compare_on_folds(part, settings, folder / "by_patient" / "compare")
    torn = protocol.leak(part, splits["by_image"])
    laid = protocol.claims(fits["by_image"], fits.get("by_patient"), honest)
    runs.clear(folder)
    return Reproduction(
        run=str(folder),
        arguments=arguments,
        conversion=converted,
        audit=audit,
        networks=tuple(networks),
        splits={unit: protocol.split_counts(sides) for unit, sides in splits.items()},
        leak=torn,
        majority_baseline=protocol.majority_baseline(protocol.split_counts(splits["by_image"])),
        heads={name: fit.scores["test"][protocol.METRIC] for name, fit in fits["by_image"].heads.items()},
        fusions={
            unit: {step: fit.scores["test"][protocol.METRIC] for step, fit in mine.fusions.items()}
            for unit, mine in fits.items()
        },
        hit_probability={
            unit: shares
            for unit, mine in fits.items()
            if (shares := protocol.hit_probability(mine, folder / unit))
        },
        claims=laid,
        reasons=protocol.reasons(laid, torn, networks, fits["by_image"], honest, audit),
        computed=sum(extraction.computed for extraction in extractions),
        stored=sum(extraction.stored for extraction in extractions),
        figures=draw_all(
            SampleImages.of(splits["by_image"], settings), networks, fits["by_image"], folder / runs.FIGURES
        ),
        steps={step: what for step, what in protocol.STEPS.items() if (folder / step).exists()},
    )


def _audit(whole: Manifest, value_range: tuple[float, ...] | None) -> dict[str, Any]:
    """What `featstore.check` says, without the examples, which name files."""
    found = check(whole, value_range=value_range)
    return {
        "no_error_found": found.no_error_found,
        "findings": {finding.title: finding.message for finding in found.findings},
        "shortcuts": {n: score.value for n, score in found.shortcuts.items() if score.value is not None},
    }


def _prepare(folder: Path, arguments: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make the folders, if the run may be written here: going on where a killed one was, or repeating the same."""
    _refuse_other(folder, arguments, overwrite=overwrite)
    for part in ("", "by_image", "by_image/heads", "by_patient", runs.FIGURES):
        (folder / part).mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def _refuse_other(folder: Path, arguments: Mapping[str, Any], *, overwrite: bool) -> None:
    if not (folder / runs.RUN).exists():
        strange = sorted(path.name for path in folder.glob("*") if path.name not in PARTS)
        if strange:
            raise UsageError(
                f"{folder} holds files that are no run: {strange[0]}.", "Choose another folder with --out."
            )
        return
    earlier = runs.read_run(folder)
    if not overwrite and (earlier.get("kind"), earlier.get("arguments")) != ("paper", arguments):
        raise UsageError(f"{folder} holds another run already.", "Choose another --out, or add --overwrite.")


# Formats of the data set, and what the decoder makes of them

NEEDS_RANGE = "needs_range"


def convert(manifest: Manifest, value_range: tuple[float, ...] | None) -> tuple[Conversion, Manifest]:
    """Decode every image once and count; nothing is written, since features are made from the files as they are.

    Returns
    -------
    What was met, and the data set without what does not decode: so the sides of a split are drawn, and a leak is
    counted, among images that take part. Deep images without a declared range stay, for `extract` to refuse.

    Raises
    ------
    AuditError
        If one class is left, or none.
    """
    formats: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unread = Counter(row.reason for row in manifest.unreadable)
    lost: dict[str, str] = {}
    sides: list[int] = []
    taken = set()
    for record in manifest.records:
        try:
            file = FILE_CACHE.file(record.path)
            pixels, said = decode(file.data, record.frame, value_range, file.index)
        except OSError:
            unread["missing"] += 1
            lost[record.id] = "missing"
        except BadImageError as error:
            unread[error.reason] += 1
            if error.reason == NEEDS_RANGE:
                taken.add(record.id)
            else:
                lost[record.id] = error.reason
        else:
            formats[identify(file.data[:HEAD])] += 1
            channels["grey" if pixels.shape[2] == 1 else "colour"] += 1
            notes.update(said)
            sides += pixels.shape[:2]
            taken.add(record.id)
    require_two_classes(manifest, lost)
    found = Conversion(
        formats=_sorted(formats),
        channels=_sorted(channels),
        notes=_sorted(notes),
        unread=_sorted(unread),
        smallest=min(sides, default=0),
        largest=max(sides, default=0),
    )
    return found, manifest.only(taken)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
