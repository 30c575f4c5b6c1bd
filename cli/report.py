"""featstore report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import print_json, print_text


@options.reads_data
def command(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of extract, fuse and compare.", metavar="RUN...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file; default report.html in the first RUN.", metavar="FILE")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What the runs were made from: adds audit, distribution and map.", metavar="DATA"),
    ] = None,
    cache: options.Cache = None,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Thumbnails of the cases answered wrong; needs --data.")
    ] = False,
    reading: options.Reading = options.PLAIN,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is no report, too.")
    ] = False,
    json: options.Json = False,
) -> None:
    """One HTML file that says what runs found.

    Verdict, tables, figures, cases answered wrong, provenance, limits, model card and reporting checklists. It loads
    nothing and works offline; several runs are set side by side.
    """
    from featstore.report.page.writing import write_report

    written = write_report(
        runs,
        out,
        data,
        cache,
        with_images,
        **reading,
        overwrite=overwrite,
    )
    if json:
        print_json({"report": str(written), "bytes": written.stat().st_size})
    else:
        print_text(f"The report is in {written}: open it in any browser.")
