"""Where a run comes from: keys, digests, versions, and the command that makes it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from featstore.evaluation.comparison import Comparison
from featstore.evaluation.fuse import Fusion
from featstore.fingerprint import digest
from featstore.report.page.sheet import Sheet, whole, words
from featstore.report.plain import SHORT, short_weights, view_name
from featstore.types import FeatureKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.report.records.record import Record

RANDOM = "random:"


def command(record: Record) -> str:
    """Command line that makes the run again, with DATA for the data set."""
    about = record.about
    words_ = ["featstore", record.kind, "DATA"]
    if record.kind == "paper":
        return shlex.join([*words_, *_reproducing(about["arguments"]), "--out", "RUN"])
    match record.outcome:
        case Fusion() as fusion:
            words_ += _fusing(fusion, _asked(about))
        case Comparison() as comparison:
            words_ += _comparing(comparison, _asked(about))
    return shlex.join([*words_, *_source(record.matrix), "--out", "RUN"])


def keys_sheet(record: Record) -> Sheet | None:
    """The feature keys: everything that can change a vector, and the digest by which the cache names it.

    None of a reproduction: its steps are runs of their own and have them.
    """
    if record.kind == "paper":
        return None
    matrix = record.matrix
    rows = []
    for spec in matrix["backbones"]:
        for view in matrix["views"]:
            key = {"backbone": spec, "view": view, "decoding": matrix["decoding"]}
            rows.append(
                (
                    words(spec["name"], short_weights(spec["weights"])),
                    words(view_name(view["recipe"], view["seed"])),
                    whole(spec["input_size"]),
                    whole(spec["dimension"]),
                    words(spec["preprocess"]),
                    words(spec["precision"]),
                    words(_address(key)[:SHORT]),
                )
            )
    heads = ("Backbone, weights", "View", "Input, px", "Values", "Preprocessing", "Precision", "Key")
    return Sheet("Feature keys", heads, tuple(rows))


def facts_of(record: Record) -> list[tuple[str, str]]:
    """Digests and versions, each with its name."""
    about = record.about
    decoding = record.matrix.get("decoding") or {}
    files = sorted(about["files"].items())
    backbones = record.matrix.get("backbones", [])
    return [
        ("Made", about["created"]),
        ("Table of the data set, SHA-256", record.data_sha256),
        *((f"Weights of {spec['name']}", spec["weights"]) for spec in backbones),
        *([("Decoder", str(decoding["decoder"]))] if decoding else []),
        ("Python, machine", f"{about['python']}, {about['machine']}"),
        ("Libraries", ", ".join(f"{name} {found}" for name, found in sorted(about["libraries"].items()))),
        *((f"{name}, SHA-256", found) for name, found in files),
        *_taken(about.get("fits")),
    ]


def _taken(fits: object) -> list[tuple[str, str]]:
    """How many of a comparison's fits the cache had; older runs do not tell."""
    match fits:
        case {"asked": int(asked), "taken_from_cache": int(taken)}:
            return [("Fits taken from the cache", f"{taken} of {asked}")]
    return []


def _reproducing(arguments: Mapping[str, Any]) -> list[str]:
    networks = arguments.get("networks")
    known = networks if isinstance(networks, dict) else {}
    random = [
        f"{name}={str(found).partition(' ')[0]}"
        for name, found in known.items()
        if str(found).startswith(RANDOM)
    ]
    return [
        *_option("--backbones", ",".join(known)),
        *(part for choice in random for part in ("--weights", choice)),
        *_option("--precision", arguments.get("precision"), "float32"),
        *_option("--images", arguments.get("images")),
        *_option("--views", arguments.get("views")),
        *_option("--epochs", arguments.get("epochs")),
        *_option("--seed", arguments.get("seed")),
        *_option("--positive", arguments.get("positive")),
    ]


def _address(key: dict[str, Any]) -> str:
    """Digest of a key; of one that cannot be read back as a key, of what stands there."""
    try:
        return digest(FeatureKey.from_json(key).to_json())
    except ValueError:
        return digest(key)


def _asked(about: Mapping[str, Any]) -> Mapping[str, Any]:
    asked = about.get("asked")
    return asked if isinstance(asked, dict) else {}


def _fusing(fusion: Fusion, asked: Mapping[str, Any]) -> list[str]:
    calibration = fusion.operating["calibration"]
    return [
        "--strategy", fusion.strategy,
        *_option("--preset", asked.get("preset")),
        *_settings(asked.get("options")),
        *_option("--test-size", asked.get("test_size"), 0.25),
        *_option("--split-seed", asked.get("split_seed"), 0),
        *_option("--positive", fusion.matrix["positive"]),
        *_option("--calibrate", None if calibration is None else calibration["method"]),
        *_option("--sensitivity", fusion.operating["sensitivity"]),
        *(["--init-from", "EARLIER"] if fusion.continuation else []),
        *_option("--freeze-blocks", ",".join(fusion.continuation.frozen) if fusion.continuation else None, ""),
    ]  # fmt: skip


def _settings(options: Any) -> list[str]:  # noqa: ANN401
    """Parameters as ``--set`` takes them: text as it is, everything else as a Python literal."""
    given = options.items() if isinstance(options, dict) else ()
    texts = [f"{name}={value if isinstance(value, str) else repr(value)}" for name, value in given]
    return [part for text in texts for part in ("--set", text)]


def _comparing(comparison: Comparison, asked: Mapping[str, Any]) -> list[str]:
    return [
        *_option("--strategies", _joined(asked.get("strategies")), "all"),
        *_option("--subsets", _joined(asked.get("subsets")), "singles"),
        *_option("--folds", comparison.folds),
        *_option("--repeats", comparison.repeats, 1),
        *_option("--fold-seed", comparison.fold_seed),
        *_option("--training-seeds", asked.get("training_seeds"), 1),
        *_option("--positive", comparison.matrix["positive"]),
        *_option("--calibrate", comparison.wish.calibrate),
        *_option("--sensitivity", comparison.wish.sensitivity),
        *_option("--views", _joined(asked.get("views")), "expand"),
        *_option("--test-views", asked.get("test_views"), "identity"),
        *_option("--view-curve", asked.get("view_curve")),
        *(["--economics"] if asked.get("economics") is True else []),
        *(["--nested"] if asked.get("nested") is True else []),
    ]  # fmt: skip


def _source(matrix: Mapping[str, Any]) -> list[str]:
    specs, views = matrix["backbones"], matrix["views"]
    augmented = [view for view in views if view["recipe"] != "identity"]
    decoding = matrix["decoding"] or {}
    window = decoding.get("value_range")
    random = [
        f"{spec['name']}={spec['weights'].partition(' ')[0]}"
        for spec in specs
        if spec["weights"].startswith(RANDOM)
    ]
    return [
        *_option("--backbones", ",".join(spec["name"] for spec in specs)),
        *(part for choice in random for part in ("--weights", choice)),
        *_option("--preprocess", specs[0]["preprocess"] if specs else None, "official"),
        *_option("--precision", specs[0]["precision"] if specs else None, "float32"),
        *_option("--recipe", augmented[0]["recipe"] if augmented else None),
        *_option("--seeds", ",".join(str(view["seed"]) for view in augmented) or "none"),
        *([] if window is None else [f"--range={window[0]:g},{window[1]:g}"]),
    ]


def _option(name: str, value: Any, default: Any = None) -> list[str]:  # noqa: ANN401
    """A flag with its value, unless that is what the command does anyway."""
    if value is None or value == default or isinstance(value, dict | list):
        return []
    return [name, str(value)]


def _joined(value: Any) -> Any:  # noqa: ANN401
    """Lists as the command line has them: names with commas, subsets with plus signs."""
    if not isinstance(value, list):
        return value
    return ",".join("+".join(map(str, part)) if isinstance(part, list) else str(part) for part in value)
