"""`demo`: every stage on generated images with pretrained networks, offline."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from featstore.api.compare import compare
from featstore.api.extract import extract
from featstore.api.fuse import fuse
from featstore.api.report import REPORT_FILE, write_report
from featstore.arguments import public
from featstore.phantom import make_phantoms
from featstore.results.paper import Demonstration
from featstore.runs import exclusive_access

if TYPE_CHECKING:
    from collections.abc import Sequence


RECIPE = "mild"
SEEDS = (1, 2)


@public
def demo(
    out: str | Path = "runs/demo",
    *,
    cache: str | Path | None = None,
    patients: int = 48,
    backbones: Sequence[str] = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"),
    progress: bool = False,
) -> Demonstration:
    """Generate lung-CT phantoms, extract, fuse, compare, and write a report with everything in it.

    Parameters
    ----------
    out
        Folder for images and runs.
    cache
        The store; default as for `featstore.extract`.
    patients
        Number of generated patients, four slices each.
    backbones
        Networks to use; the default ones ship with featstore.
    progress
        Show bars on stderr.

    Examples
    --------
    >>> import featstore
    >>> shown = featstore.demo("runs/demo", cache="demo-cache", patients=12, backbones=["EfficientNetLite0"])
    >>> shown.extraction.images, shown.report
    (48, 'runs/demo/report.html')
    """
    with exclusive_access(Path(out)):
        return _demonstrate(Path(out), cache, patients, backbones, progress=progress)


def _demonstrate(
    folder: Path, cache: str | Path | None, patients: int, backbones: Sequence[str], *, progress: bool
) -> Demonstration:
    started = perf_counter()
    data = make_phantoms(folder / "phantoms", patients=patients)
    extraction = extract(
        data,
        backbones=backbones,
        recipe=RECIPE,
        seeds=SEEDS,
        cache=cache,
        out=folder / "extract",
        overwrite=True,
        progress=progress,
    )
    fusion = fuse(
        data,
        strategy="vote_backbones",
        positive="covid",
        backbones=backbones,
        recipe=RECIPE,
        seeds=SEEDS,
        cache=cache,
        out=folder / "fuse",
        overwrite=True,
    )
    comparison = compare(
        data,
        positive="covid",
        backbones=backbones,
        recipe=RECIPE,
        seeds=SEEDS,
        cache=cache,
        out=folder / "compare",
        overwrite=True,
        progress=progress,
    )
    report = write_report(
        [folder / "compare", folder / "fuse", folder / "extract"],
        folder / REPORT_FILE,
        data,
        cache,
        with_images=True,
    )
    return Demonstration(
        data=str(data),
        extraction=extraction,
        fusion=fusion,
        comparison=comparison,
        report=str(report),
        seconds=round(perf_counter() - started, 1),
    )
