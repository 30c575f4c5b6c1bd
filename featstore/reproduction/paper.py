"""`paper`: the steps of Ji et al. 2020 in their order, beside the honest protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore import run
from featstore.errors import UsageError
from featstore.evaluation.check import check
from featstore.evaluation.positive import positive_class
from featstore.files import PRIVATE_FOLDER
from featstore.images.scan import ScanOptions, scan
from featstore.report.page.writing import NAME, write_report
from featstore.reproduction.claims import METRIC, claims, floor, reasons
from featstore.reproduction.conversion import convert
from featstore.reproduction.members import SEVEN, choices, members, require_some
from featstore.reproduction.outcome import Reproduction
from featstore.reproduction.plates import draw_all
from featstore.reproduction.protocol import STEPS, Settings, compute_features, cross_validate, fit_paper
from featstore.reproduction.samples import Sitters
from featstore.reproduction.sides import leak, require_every_class, sample, split, table
from featstore.signatures import public
from featstore.sole_writer import LOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.images.manifest import Manifest
    from featstore.reproduction.outcome import Member

RECIPE = "paper"
PARTS = frozenset({"by_image", "by_patient", run.FIGURES, run.METRICS, NAME, LOCK})
"""What a run that was killed may have left."""


@public
def paper(
    data: str | Path | Manifest,
    *,
    backbones: Sequence[str] = SEVEN,
    weights: Mapping[str, str] | None = None,
    precision: str = "float32",
    out: str | Path = "runs/paper",
    overwrite: bool = False,
    images: int | None = None,
    views: int = 2,
    epochs: int = 100,
    seed: int = 0,
    positive: str | None = None,
    value_range: tuple[float, float] | None = None,
    cache: str | Path | None = None,
    memory: int | None = None,
    jobs: int = 1,
    progress: bool = False,
    **reading: Unpack[ScanOptions],
) -> Reproduction:
    """Reproduce Ji et al. 2020 on a data set, and say what its number is worth.

    Each step is a call of a public function, in a run folder of its own under `out`; ``out/figures`` holds a twin of
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
    """
    with run.alone_in(Path(out)):
        folder = Path(out)
        require_some(backbones, weights or {})
        whole = scan(data, **reading)
        part = sample(whole.with_splits(None), images, seed)
        networks = members(backbones, weights or {}, precision)
        settings = Settings(
            backbones=[member.name for member in networks if member.is_here],
            epochs=epochs,
            positive=positive,
            views={"recipe": RECIPE, "seeds": range(1, views + 1)},
            source={
                "weights": choices(networks, weights or {}),
                "precision": precision,
                "value_range": value_range,
                "cache": cache,
            },
            memory=memory,
            jobs=jobs,
            progress=progress,
        )
        arguments = {
            "data_sha256": run.data_digest(part.records),
            "networks": {member.name: member.digest for member in networks},
            "precision": precision,
            "images": images,
            "views": views,
            "epochs": epochs,
            "seed": seed,
            "positive": positive,
        }
        positive_class(part.classes, positive)  # refuses a class that does not exist
        _refuse_other(folder, arguments, overwrite=overwrite)
        with run.alone_in(folder):
            _prepare(folder, arguments, overwrite=overwrite)
            audit = _audit(whole.only({record.id for record in part.files}), value_range)
            result = _reproduce(part, networks, settings, audit, arguments, folder)
            run.write_run(folder, {"kind": "paper", "arguments": arguments}, result.to_json())
            write_report(
                folder, folder / NAME, with_images=True
            )  # in the run folder, where the images are anyway
        return result


def _reproduce(
    part: Manifest,
    networks: Sequence[Member],
    settings: Settings,
    audit: Mapping[str, Any],
    arguments: Mapping[str, Any],
    folder: Path,
) -> Reproduction:
    """Do the steps in their order; all numbers come from the runs that they leave."""
    converted, part = convert(part, settings.source["value_range"])
    splits = {"by_image": split(part.by_image(), arguments["seed"])}
    if part.has_groups:
        splits["by_patient"] = split(part, arguments["seed"])
    for sides in splits.values():
        require_every_class(sides)
    extractions = [
        compute_features(part, settings, features, folder / protocol / "extract")
        for protocol, features in (("by_image", settings.papers), ("by_patient", settings.own))
    ]
    fits = {
        protocol: fit_paper(sides, settings, folder / protocol, singles=protocol == "by_image")
        for protocol, sides in splits.items()
    }
    honest = cross_validate(part, settings, folder / "by_patient" / "compare")
    torn = leak(part, splits["by_image"])
    laid = claims(fits["by_image"], fits.get("by_patient"), honest)
    run.clear(folder)
    return Reproduction(
        run=str(folder),
        arguments=arguments,
        conversion=converted,
        audit=audit,
        networks=tuple(networks),
        sides={protocol: table(sides) for protocol, sides in splits.items()},
        leak=torn,
        floor=floor(table(splits["by_image"])),
        heads={name: fit.scores["test"][METRIC] for name, fit in fits["by_image"].heads.items()},
        fusions={
            protocol: {step: fit.scores["test"][METRIC] for step, fit in mine.fusions.items()}
            for protocol, mine in fits.items()
        },
        claims=laid,
        reasons=reasons(laid, torn, networks, fits["by_image"], honest, audit),
        computed=sum(extraction.computed for extraction in extractions),
        stored=sum(extraction.stored for extraction in extractions),
        figures=draw_all(
            Sitters.of(splits["by_image"], settings), networks, fits["by_image"], folder / run.FIGURES
        ),
        steps={step: what for step, what in STEPS.items() if (folder / step).exists()},
    )


def _audit(whole: Manifest, value_range: tuple[float, float] | None) -> dict[str, Any]:
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
    for part in ("", "by_image", "by_image/heads", "by_patient", run.FIGURES):
        (folder / part).mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def _refuse_other(folder: Path, arguments: Mapping[str, Any], *, overwrite: bool) -> None:
    if not (folder / run.RUN).exists():
        strange = sorted(path.name for path in folder.glob("*") if path.name not in PARTS)
        if strange:
            raise UsageError(
                f"{folder} holds files that are no run: {strange[0]}.", "Choose another folder with --out."
            )
        return
    earlier = run.read_run(folder)
    if not overwrite and (earlier.get("kind"), earlier.get("arguments")) != ("paper", arguments):
        raise UsageError(f"{folder} holds another run already.", "Choose another --out, or add --overwrite.")
