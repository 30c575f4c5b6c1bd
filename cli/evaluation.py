"""Commands of stage two: from `featstore check` over `fuse` and `compare` to `predict`, `export` and `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featstore.errors import UsageError

from . import options
from .printing import (
    columns,
    finish,
    print_comparison,
    print_csv,
    print_fusion,
    print_json,
    print_result,
    print_screen,
    print_text,
    say,
)

TEST_SIZE = 0.25


@options.reads_data
def fuse(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Folder (class/… or split/class/…), CSV or Parquet (path,label[,group][,split][,site]), .npz or .h5;"
            " with --from-sites the files of hospitals.",
            metavar="DATA",
        ),
    ],
    strategy: Annotated[str, typer.Option(help="Name; `featstore strategies` lists them.")] = "concat_logreg",
    preset: Annotated[str | None, typer.Option(help="Named settings, such as paper for concat_head.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Parameter of the strategy, such as optimizer=sgd or epochs=200; repeat for more.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    from_sites: Annotated[
        bool,
        typer.Option(
            "--from-sites",
            help="DATA are files that several hospitals wrote by `featstore answers` or `featstore moments`: make one"
            " model of all.",
        ),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Run of the same network whose weights to go on from, at a lower rate."),
    ] = None,
    freeze_blocks: Annotated[
        str | None, typer.Option(help="Backbones, with commas, whose weights stay as --init-from has them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/STRATEGY.")] = None,
    overwrite: options.Overwrite = False,
    test_size: Annotated[
        float, typer.Option(help="Share held out where the data has no splits.")
    ] = TEST_SIZE,
    split_seed: Annotated[int, typer.Option(help="Seed of that hold-out.")] = 0,
    positive: options.Positive = None,
    unit: options.Unit = "image",
    pool: options.Pool = None,
    calibrate: options.Calibrate = None,
    sensitivity: options.Sensitivity = None,
    confidence: options.Confidence = None,
    abstain: options.Abstain = None,
    backbones: options.StoredBackbones = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the views to train on; default as for --seeds.")
    ] = None,
    seeds: options.StoredSeeds = None,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    accept: options.Accept = None,
    json: options.Json = False,
    details: Annotated[
        bool, typer.Option("--details", help="Show every score of every split, with its interval, too.")
    ] = False,
) -> None:
    """Stage two: train one strategy and keep the model.

    Uses stored features only. Scores come from held-out patients: the data set's own splits where it has them.

    Example: featstore fuse DATA --strategy soft_vote --out runs/mine
    """
    from featstore.api.fuse import fuse

    if from_sites:
        others = {
            "strategy": strategy != "concat_logreg",
            "unit": unit != "image",
            "test_size": test_size != TEST_SIZE,
            "split_seed": split_seed,
            "preset": preset,
            "settings": settings,
            "init_from": init_from,
            "freeze_blocks": freeze_blocks,
            "positive": positive,
            "pool": pool,
            "calibrate": calibrate,
            "sensitivity": sensitivity,
            "confidence": confidence,
            "abstain": abstain,
            "backbones": backbones,
            "recipe": recipe,
            "seeds": seeds,
            "weights": weights,
            "preprocess": preprocess,
            "precision": precision,
            "value_range": value_range,
            "window": window,
            "cache": cache,
            "accept": accept,
            "details": details,
            **reading,
        }
        _fuse_from_sites(data, out, others, overwrite=overwrite, json=json)
        return
    if len(data) > 1:
        raise UsageError(
            f"fuse takes one data set, and {len(data)} were given.",
            "Give a table that holds all; files of several hospitals go with --from-sites.",
        )
    say("fuse", "reading the data set and its features, then training", json=json)
    result = fuse(
        data[0],
        strategy=strategy,
        preset=preset,
        options=options.parse_settings(settings),
        test_size=test_size,
        split_seed=split_seed,
        positive=positive,
        unit=unit,
        pool=pool,
        calibrate=calibrate,
        sensitivity=sensitivity,
        confidence=confidence,
        abstain=abstain,
        init_from=init_from,
        freeze_blocks=[] if freeze_blocks is None else freeze_blocks.split(","),
        out=out or Path("runs") / strategy,
        overwrite=overwrite,
        accept=options.parse_codes(accept),
        progress=not json,
        **options.source(
            backbones,
            weights,
            preprocess,
            precision,
            recipe,
            seeds,
            value_range,
            window,
            cache,
            reading,
        ),
    )
    if json:
        print_json(result.to_json())
    else:
        print_fusion(result, details=details)


@options.reads_data
def plan(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The plan, a sealed JSON file.", metavar="PLAN.json")],
    primary: options.Primary = None,
    margin: options.Margin = 0.01,
    folds: options.Folds = "5",
    repeats: options.Repeats = None,
    fold_seed: options.FoldSeed = 0,
    harmonise: options.Harmonise = "none",
    positive: options.Positive = None,
    unit: options.Unit = "image",
    pool: options.Pool = None,
    calibrate: options.Calibrate = None,
    views: options.ViewPolicies = "expand",
    test_views: options.TestViews = "identity",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a plan that is there already.")
    ] = False,
    backbones: options.StoredBackbones = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the views to train on; default as for --seeds.")
    ] = None,
    seeds: options.StoredSeeds = None,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Seal the primary question of a comparison before any score is seen.

    Question, margin, data, features, folds and seeds are written down with the date; nothing is fitted. Then
    featstore compare DATA --plan PLAN.json runs exactly that, and says that it was planned.

    Example: featstore plan DATA --positive covid --out plan.json
    """
    from featstore.api.compare import plan
    from featstore.reporting.terminal.comparison import plan_text

    say("plan", "reading the data set and its features", json=json)
    result = plan(
        data,
        out,
        primary=primary,
        margin=margin,
        folds=options.parse_folds(folds),
        repeats=repeats,
        fold_seed=fold_seed,
        harmonise=harmonise,
        positive=positive,
        unit=unit,
        pool=pool,
        calibrate=calibrate,
        views=options.parse_names(views) or [],
        test_views=test_views,
        overwrite=overwrite,
        **options.source(
            backbones,
            weights,
            preprocess,
            precision,
            recipe,
            seeds,
            value_range,
            window,
            cache,
            reading,
        ),
    )
    if json:
        print_json(result.to_json())
    else:
        print_screen(plan_text(result, out))


@options.reads_data
def compare(
    data: options.Data,
    strategies: Annotated[str, typer.Option(help="all, or names with commas.")] = "all",
    subsets: Annotated[
        str, typer.Option(help="singles, all, greedy, A+B, or several with commas.")
    ] = "singles",
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Question that `featstore plan` has sealed: run exactly that.", metavar="PLAN.json"
        ),
    ] = None,
    primary: options.Primary = None,
    margin: options.Margin = 0.01,
    folds: options.Folds = "5",
    repeats: options.Repeats = None,
    fold_seed: options.FoldSeed = 0,
    harmonise: options.Harmonise = "none",
    training_seeds: Annotated[
        int, typer.Option(help="Seeds to train with, for strategies that draw random numbers.")
    ] = 1,
    positive: options.Positive = None,
    unit: options.Unit = "image",
    pool: options.Pool = None,
    calibrate: options.Calibrate = None,
    sensitivity: options.Sensitivity = None,
    confidence: options.Confidence = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; default none is written.")] = None,
    overwrite: options.Overwrite = False,
    views: options.ViewPolicies = "expand",
    test_views: options.TestViews = "identity",
    view_curve: Annotated[
        str | None,
        typer.Option(
            help="Score of this strategy against the number of augmented views.", metavar="STRATEGY"
        ),
    ] = None,
    economics: Annotated[
        bool, typer.Option("--economics", help="Cost and worth of each backbone; fits all subsets.")
    ] = False,
    nested: Annotated[
        bool,
        typer.Option("--nested", help="Pick the winner anew inside each fold too; five further fits of all."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Processes, one thread each; -1 for one per core; numbers stay.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option(help="Take fits that an earlier comparison left in the cache.")
    ] = True,
    backbones: options.StoredBackbones = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the views to train on; default as for --seeds.")
    ] = None,
    seeds: options.StoredSeeds = None,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    accept: options.Accept = None,
    json: options.Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print one line of CSV per candidate.")] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Show the differences of pairs, too: exploration.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Show every score of the primary fusion, too.")
    ] = False,
) -> None:
    """Stage two: tell whether the fusion is better than every single network.

    Strategies and single backbones on identical folds over whole patients, from stored features only. The question is
    settled before any score and tested at full strength; all other pairs are exploration.

    Example: featstore compare DATA --positive covid --out runs/mine
    """
    from featstore.api.compare import compare
    from featstore.runs import csv_text

    names = options.parse_names(strategies) or []
    say("compare", "reading the data set and its features", json=json)
    result = compare(
        data,
        strategies="all" if strategies == "all" else names,
        subsets=subsets,
        plan=plan,
        primary=primary,
        margin=margin,
        folds=options.parse_folds(folds),
        repeats=repeats,
        fold_seed=fold_seed,
        harmonise=harmonise,
        training_seeds=training_seeds,
        positive=positive,
        unit=unit,
        pool=pool,
        calibrate=calibrate,
        sensitivity=sensitivity,
        confidence=confidence,
        out=out,
        overwrite=overwrite,
        views=options.parse_names(views) or [],
        test_views=test_views,
        view_curve=view_curve,
        economics=economics,
        nested=nested,
        jobs=jobs,
        resume=resume,
        accept=options.parse_codes(accept),
        progress=not json,
        **options.source(
            backbones,
            weights,
            preprocess,
            precision,
            recipe,
            seeds,
            value_range,
            window,
            cache,
            reading,
        ),
    )
    if result.fits_reused:
        taken = (
            f"{result.fits_reused} of {result.fits} fits were taken as earlier runs left them in the cache"
        )
        say("compare", f"{taken}; --no-resume fits them anew", json=json)
    if json:
        print_json(result.to_json())
    elif csv:
        print_text(csv_text(result.rows()).rstrip("\n"))
    else:
        print_comparison(result, out, pairs=pairs, details=details)


SHOWN = 15
"""Answers that a terminal shows; --csv, --json and --out have all."""


@options.reads_data
def predict(
    run: Annotated[Path, typer.Argument(help="Folder that `featstore fuse` left.", metavar="RUN")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, CSV files with a column path, or quoted patterns.",
            metavar="IMAGE",
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the run's own weights are: a file, random:SEED or imagenet; repeat for more backbones."
            " By default they are looked for by their digest.",
            metavar="NAME=CHOICE",
        ),
    ] = None,
    cache: options.NewVectors = None,
    reading: options.Reading = options.PLAIN,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write all answers to this .json file, or .csv, with those for patients in FILE-patients.csv.",
            metavar="FILE",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of --out.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a CSV table to stdout.")] = False,
    json: options.Json = False,
) -> None:
    """Apply a kept model to new images and their patients.

    Every page of a TIFF gets an answer, and every patient, where names, columns or DICOM files tell whose images they
    are. Images that the model has learned from are told before anything is computed,
    and marked. The backbones' weights are found by their digest, or named with --weights.

    Example: featstore predict runs/mine new_scans --out answers.csv
    """
    if csv and json:
        raise UsageError(
            "--csv and --json both want stdout.", "Choose one; --out FILE.json may go beside --csv."
        )
    from featstore.api.predict import refuse_unwritable, write_table

    if out is not None:
        refuse_unwritable(out, overwrite=overwrite)
    from featstore.api.predict import predict_prepared, prepare
    from featstore.reporting.terminal.results import predictions_text
    from featstore.reporting.verdict import findings_text

    say("predict", "reading the images and what the run has learned from", json=json)
    prepared = prepare(
        run,
        images,
        weights=options.parse_weights(weights),
        **reading,
    )
    if prepared.findings:
        print_text(findings_text(prepared.findings), err=True)
    networks = ", ".join(prepared.weights)
    how = f"loading {networks}" if cache is None else f"what {cache} lacks is computed by {networks}"
    say("predict", f"{len(prepared.images.records)} images; {how}", json=json)
    result = predict_prepared(prepared, cache)
    written = () if out is None else write_table(out, result)
    if json:
        print_json(result.to_json())
    elif csv:
        print_csv(result.rows())
    else:
        print_screen(predictions_text(result, SHOWN, columns()))
    if written:
        print_text(f"Written to {' and '.join(map(str, written))}.", err=True)
    finish(result.bad)


@options.reads_data
def explain(
    run: Annotated[Path, typer.Argument(help="Folder that `featstore fuse` left.", metavar="RUN")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, CSV files with a column path, or quoted patterns.",
            metavar="IMAGE",
        ),
    ],
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Evidence for this class; default: the positive one, of three or more classes the predicted one.",
            metavar="NAME",
        ),
    ] = None,
    weights: options.RunWeights = None,
    reading: options.Reading = options.PLAIN,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the maps; default RUN-maps.", metavar="FOLDER")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that are there.")] = False,
    json: options.Json = False,
) -> None:
    """Show where in images the evidence lies: a map per backbone, in logits.

    For models that are linear in the vectors the logit is the mean of a map over the image, exactly: the numbers add
    up. For others maps are approximate (integrated gradients), and say by how much they do not.
    Writes a picture (.png) and the maps (.npz) of each image. Pictures show patients: treat them as such.

    Example: featstore explain runs/mine scans/a.png
    """
    from featstore.api.explain import default_folder, explain_prepared, prepare
    from featstore.reporting.terminal.results import explanations_text
    from featstore.reporting.verdict import findings_text

    out = default_folder(run) if out is None else out
    say("explain", "reading the images and what the run has learned from", json=json)
    prepared = prepare(
        run,
        images,
        class_name=class_name,
        out=out,
        overwrite=overwrite,
        weights=options.parse_weights(weights),
        **reading,
    )
    if prepared.findings:
        print_text(findings_text(prepared.findings), err=True)
    networks = ", ".join(prepared.weights)
    say("explain", f"{len(prepared.images.records)} images; loading {networks}", json=json)
    result = explain_prepared(prepared, class_name=class_name, out=out)
    print_result(result, lambda found: explanations_text(found, columns()), json=json)
    if result.explanations:
        print_text(f"Maps written to {out}.", err=True)
    finish(result.bad)


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `featstore fuse` left.", metavar="RUN")],
    out: Annotated[
        Path,
        typer.Argument(help="X.keras, X.onnx, or X.zip for a sealed bundle with its card.", metavar="OUT"),
    ],
    weights: options.RunWeights = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Write the model of a run as one file that works without featstore: image to probability.

    Preprocessing, networks, fused head and calibration, in layers of plain Keras (safe_mode, no code). Decoding and
    scaling to the input size stay outside; `featstore convert` makes PNG of DICOM, NIfTI and 16-bit images.

    Example: featstore export runs/mine model.keras
    """
    from featstore.api.export import export
    from featstore.reporting.terminal.results import exported_text

    say("export", "reading the run, then loading its networks", json=json)
    result = export(run, out, weights=options.parse_weights(weights), overwrite=overwrite)
    print_result(result, exported_text, json=json)


@options.reads_data
def pack(
    run: Annotated[
        Path, typer.Argument(help="Folder that `featstore fuse` or `compare` left.", metavar="RUN")
    ],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The pack, X.zip.", metavar="PACK.zip")],
    licence: Annotated[
        str | None,
        typer.Option(
            help="On what terms the pack may be used; kept in it.", metavar="TEXT", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    weights: options.Weights = None,
    reading: options.Reading = options.PLAIN,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Write the vectors, labels and splits behind a run's scores as one sealed file, without any image.

    `featstore replay` computes the scores again from it, anywhere. Patients are numbered, paths left out; but vectors
    are personal data, to be kept as safe as the images.

    Example: featstore pack runs/mine DATA --out pack.zip
    """
    from featstore.api.pack import NO_LICENCE, pack
    from featstore.reporting.terminal.results import packed_text

    say("pack", "reading the data set and the features of the run", json=json)
    result = pack(
        run,
        data,
        out,
        licence=licence or NO_LICENCE,
        overwrite=overwrite,
        progress=not json,
        weights=options.parse_weights(weights),
        cache=cache,
        **reading,
    )
    print_result(result, packed_text, json=json)


def _fuse_from_sites(
    files: list[Path], out: Path | None, others: dict[str, object], *, overwrite: bool, json: bool
) -> None:
    """One model of several hospitals; `others` are options of other fits, and refused where they are wished."""
    from featstore.api.moments import fuse_from_sites
    from featstore.reporting.terminal.results import merged_heads_text, merged_text
    from featstore.results.fusion import MergedHeads
    from featstore.runs import config_in_use

    by_file = (config_in_use.get() or {}).get("used", ())
    if any(value for name, value in others.items() if name not in by_file):
        raise UsageError(
            "--from-sites makes a model of what hospitals wrote, and was given options of other fits.",
            "Leave out all but --out, --overwrite and --json; what is in the files each hospital has chosen.",
        )
    say("fuse", f"reading what {len(files)} hospitals wrote", json=json)
    result = fuse_from_sites(files, out or Path("runs") / "from-sites", overwrite=overwrite)
    if isinstance(result, MergedHeads):
        print_result(result, merged_heads_text, json=json)
    else:
        print_result(result, merged_text, json=json)


def share(
    run: Annotated[
        Path, typer.Argument(help="Run of `featstore fuse`, of a linear strategy.", metavar="RUN")
    ],
    out: Annotated[Path, typer.Option(help="The file that other hospitals get.", metavar="NAME.json")],
    name: Annotated[
        str | None, typer.Option(help="What the head is called there; default: as the file.", metavar="NAME")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Write the head of a run for other hospitals to test: weights, no image, no vector, no patient.

    Each hospital hands out its head, answers its own test patients with the heads of all (`featstore answers`), and
    `featstore fuse --from-sites` makes one scored model of them: docs/from-sites.md.

    Example: featstore share runs/mine --out north.json
    """
    from featstore.api.shared_heads import share
    from featstore.reporting.terminal.results import shared_text

    print_result(share(run, out, name=name, overwrite=overwrite), shared_text, json=json)


@options.reads_data
def answers(
    data: options.Data,
    heads: Annotated[
        str,
        typer.Option(
            help="Files of `featstore share`, with commas: those of all hospitals.", metavar="A.json,B.json"
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file of this hospital, SITE.json.", metavar="SITE.json")],
    own: Annotated[
        Path | None,
        typer.Option(
            help="Run that this hospital's own head is of: test patients that it learned from are left out.",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    accept: options.Accept = None,
    json: options.Json = False,
) -> None:
    """Answer the test patients of this hospital with the heads of several, and say how each does here.

    The patients are those of the data set's own split `test`; networks and weights are those of the heads. The file
    is for `featstore fuse --from-sites A.json B.json`; what it tells about patients is in docs/from-sites.md.

    Example: featstore answers DATA --heads a.json,b.json --own RUN --out A.json
    """
    from featstore.api.shared_heads import answers
    from featstore.reporting.terminal.results import head_answers_text

    say("answers", "reading the data set and its features", json=json)
    chosen = options.source(
        None, weights, preprocess, precision, None, None, value_range, window, cache, reading
    )
    chosen.pop("backbones", None)
    result = answers(
        data,
        options.parse_names(heads) or [],
        out,
        own=own,
        accept=options.parse_codes(accept),
        overwrite=overwrite,
        progress=not json,
        **chosen,
    )
    print_result(result, head_answers_text, json=json)


@options.reads_data
def moments(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The file of this hospital, SITE.json.", metavar="SITE.json")],
    dimensions: Annotated[
        int, typer.Option(help="Kept of each network's vector; the same at every hospital.", metavar="N")
    ] = 8,
    projection_seed: Annotated[
        int, typer.Option(help="Seed of the projection; the same at every hospital.", metavar="N")
    ] = 0,
    positive: options.Positive = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    backbones: options.StoredBackbones = None,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    accept: options.Accept = None,
    json: options.Json = False,
) -> None:
    """Write what this hospital gives to a model of several: class moments, no image and no vector.

    `featstore fuse --from-sites A.json B.json` makes one model of them. What the file tells about patients is in
    docs/from-sites.md.

    Example: featstore moments DATA --out site.json
    """
    from featstore.api.moments import moments
    from featstore.reporting.terminal.results import moments_text

    say("moments", "reading the data set and its features", json=json)
    chosen = options.source(
        backbones, weights, preprocess, precision, None, None, value_range, window, cache, reading
    )
    result = moments(
        data,
        out,
        dimensions=dimensions,
        projection_seed=projection_seed,
        positive=positive,
        accept=options.parse_codes(accept),
        overwrite=overwrite,
        progress=not json,
        **chosen,
    )
    print_result(result, moments_text, json=json)


DIFFERS = 1


def replay(
    file: Annotated[Path, typer.Argument(help="What `featstore pack` wrote.", metavar="PACK.zip")],
    json: options.Json = False,
) -> None:
    """Compute every table of a run's scores again from a pack, and say where they differ.

    Needs no image, no network and no cache. Exit code 1 if a number came out otherwise.

    Example: featstore replay pack.zip
    """
    from featstore.api.pack import replay
    from featstore.reporting.terminal.results import replay_text

    say("replay", "reading the pack, then computing its scores again", json=json)
    result = replay(file, progress=not json)
    print_result(result, replay_text, json=json)
    if not result.same:
        raise typer.Exit(DIFFERS)


AUDIT_FAILED = 5


@options.reads_data
def check(
    data: options.Data,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    reading: options.Reading = options.PLAIN,
    cache: options.Cache = None,
    accept: options.Accept = None,
    write_config: Annotated[
        bool,
        typer.Option("--write-config", help="Write what was found and given as settings, to --config."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace settings that are there; what they say is kept.")
    ] = False,
    config: Path | None = None,
    json: options.Json = False,
) -> None:
    """Audit a data set: duplicates, leaks, shortcuts.

    Also lists unreadable files, and how well the label is guessed from file sizes and grey levels alone.

    Example: featstore check DATA --columns group=patient_id
    """
    from featstore.api.config import refuse_overwriting

    if write_config:
        refuse_overwriting(data, config, overwrite=overwrite)
    say("check", "reading the data set", json=json)  # before what takes long to load
    from featstore.api.check import check
    from featstore.api.config import write_config as write
    from featstore.reporting.terminal.results import check_text

    result = check(
        data,
        value_range=options.parse_range(value_range, window),
        **reading,
        cache=cache,
        accept=options.parse_codes(accept),
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_screen(check_text(result))
    if write_config:
        given = {**reading, "value_range": value_range, "window": window, "accept": accept}
        given.pop("follow_links")
        written = write(
            data,
            path=config,
            found=result,
            overwrite=overwrite,
            **{n: v for n, v in given.items() if v},
        )
        print_text(f"Settings written to {written}: every command on these data reads them.", err=True)
    if not result.no_error_found:
        raise typer.Exit(AUDIT_FAILED)
    finish(result.bad)


@options.reads_data
def split(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The manifest, or its name for one a fold.", metavar="FILE.csv")],
    by: Annotated[
        str, typer.Option(help="What stays together: group (patient), or image where each is its own.")
    ] = "group",
    ratios: Annotated[
        str | None,
        typer.Option(
            help="Train/val/test or train/test, of any sum; default 60/20/20.",
            metavar="A/B[/C]",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="In place of ratios: a manifest for each fold.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.", min=0)] = 0,
    reading: options.Reading = options.PLAIN,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Divide a data set into train, val and test, or into folds, and write it as a manifest.

    Whole patients (groups), every class in every part, near the wanted shares of each class. The CSV file has the
    columns path,label,group,split[,site], and every command reads it as DATA.

    Example: featstore split DATA --out split.csv
    """
    from featstore.api.split import split
    from featstore.reporting.terminal.results import split_text

    say("split", "reading the data set", json=json)
    result = split(
        data,
        out,
        by=by,
        ratios=options.parse_ratios(ratios),
        folds=folds,
        seed=seed,
        overwrite=overwrite,
        **reading,
    )
    print_result(result, split_text, json=json)
    finish(result.bad)
