"""Every parser of featstore, what it is fed, and the one kind of error that it may answer with; runs in a child."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import nibabel
import numpy as np
from corruption import make_runs
from fakes import DECODING, key, spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiffs import page, stack, tiff

from featstore import runs as run
from featstore import serialization as document
from featstore.api.moments import FORMAT, parse_moments
from featstore.api.shared_heads import ANSWERS, HEAD, parse_answers, parse_head
from featstore.backbones.efficientnet_lite import read_state_dict
from featstore.errors import (
    BadImageError,
    ManifestError,
    RecipeError,
    RefusedFileError,
    RunError,
    ShardCorruptError,
    StoreError,
    WeightsError,
)
from featstore.evaluation.abstention import fit_unlike, read_rule, read_unlike
from featstore.evaluation.leakage import read_training_images
from featstore.evaluation.metrics import METRICS
from featstore.fusion.model_io import ArchiveError, ModelCodec, load_strategy, read_arrays
from featstore.image_facts import FACT, plausible
from featstore.images.csv import list_csv
from featstore.images.folder import list_folder
from featstore.images.formats.container import check_structure, identify
from featstore.images.formats.npz import read_table
from featstore.images.manifest import read_contents
from featstore.images.reading import decode, decoding_bytes, probe
from featstore.images.recipe import PRESETS, parse_recipe
from featstore.reporting.run_record import read_comparison, read_fusion, read_predictions
from featstore.results.document import ShapeError
from featstore.serialization import digest_bytes
from featstore.store import hdf5_guard as guard
from featstore.store import leases as claim
from featstore.store import notes as facts
from featstore.store import notes as quarantine
from featstore.store import notes as rates
from featstore.store import shard
from featstore.store import store as index
from featstore.store import training_record as learned
from featstore.store.leases import this_process
from featstore.store.shard import IdSet
from featstore.types import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 10
"""For one input; whoever takes longer is killed by the alarm, and the parent sees it die."""
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
TOKENS = [
    b"NaN",
    b"1e999",
    b"-Infinity",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a":' * 3000,
    b'"\\ud800"',
    b"null",
    b"{}",
]
TOKENS += [b"../../etc/passwd", b"\x1b]0;x\x07", b"=cmd()", b"http://x/", b"\0", b"\n", b",", b'"']


@dataclass(frozen=True)
class Target:
    """A parser: valid inputs to damage, what reads them, and the errors of its contract (none: it never raises)."""

    seeds: list[bytes]
    read: Callable[[bytes], object]
    contract: tuple[type[Exception], ...] = ()


@st.composite
def damaged(draw, seeds):  # noqa: C901 - one case a kind
    """A valid input with up to four things done to it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["overwrite", "number", "token", "cut", "insert", "repeat", "end"])):
            case "overwrite":
                new = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(new)] = new
            case "number":
                size = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(st.sampled_from(NUMBERS)) % 256**size
                data[at : at + size] = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
            case "token":
                data[at : at + length] = draw(st.sampled_from(TOKENS))
            case "cut":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.integers(1, 5))
            case "end":
                del data[at:]
    return bytes(data)


def resealed(data: bytes) -> bytes:
    """A forger seals what he has changed."""
    try:
        found = document.parse_json(data)
    except document.DocumentError:
        return data
    if not isinstance(found, dict):
        return data
    found.pop(document.SEAL, None)
    return json.dumps(document.seal(found)).encode()


def targets(folder: Path) -> dict[str, Target]:
    """All parsers; those that read files get theirs in `folder`."""
    return {**_texts(folder), **_stores(folder), **_runs(folder), **_images(folder)}


def _texts(folder: Path) -> dict[str, Target]:
    table = folder / "manifest.csv"
    (folder / "ct").mkdir(exist_ok=True)
    (folder / "ct" / "0.png").touch()  # a table none of whose files is there is refused at once
    csv_seed = b'path,label,group,split,site\nct/0.png,ill,p1,train,x\n"a,""b"".png",well,p2,test,\n'
    recipes = [text.encode() for text in [*PRESETS, *PRESETS.values(), "rotate(-5,5)|fill(constant,7)"]]

    def notation(data: bytes) -> object:
        return ModelCodec({"x": np.zeros(3)}).read(document.parse_json(data))

    def listing(data: bytes) -> object:
        root = folder / os.urandom(4).hex()
        root.mkdir()
        for name in data.split(b"\n")[:6]:
            parts = [part for part in os.fsdecode(name).split("/") if part not in {".", ".."}]
            path = root.joinpath(*parts)
            with suppress(OSError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return list_folder(root)

    values = {
        "a": [1.5, {"$tuple": [None, "x"]}],
        "b": {"$array": {"name": "x", "dtype": "<f8", "shape": [3]}},
    }
    values |= {"c": {"$labels": ["x", 1]}, "d": {"$block": {"name": "a", "start": 0, "stop": 3}}}
    return {
        "JSON": Target([b'{"a": [1, 2.5, "x", null, true]}'], document.parse_json, (document.DocumentError,)),
        "recipe": Target(
            recipes, lambda data: parse_recipe(data.decode("utf-8", "surrogateescape")), (RecipeError,)
        ),
        # Blocks and linear models check themselves, hence TypeError; `restore_model` makes a RunError of all.
        "notation": Target([json.dumps(values).encode()], notation, (ValueError, TypeError)),
        "CSV manifest": Target([csv_seed], _from_file(table, list_csv), (ManifestError,)),
        "listing": Target(
            [b"a/1.png\nb/\xff.png\nb/c/x.jpg\n.hidden/x\ntrain/a/x.png"], listing, (ManifestError,)
        ),
    }


def _stores(folder: Path) -> dict[str, Target]:
    ids = [f"{i:064x}" for i in range(5)]
    rows = np.arange(60, dtype=np.float32).reshape(5, 12)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("train/x", data=rows, compression="gzip", shuffle=True, chunks=(2, 5))
        file.create_dataset("label", data=np.arange(5))
    entries = [index.IndexEntry(bytes(32), bytes([n]) * 32, 9, 9, bytes(64)) for n in range(3)]
    lease = claim.encode_claim(claim.LeaseRecord("t", "r", this_process(), "2026", {"k": IdSet.of(ids)}))
    quarantine.record_bad_image(
        folder / "quarantine", DECODING, quarantine.BadImage("ab" * 32, "truncated", "cut")
    )
    (row,) = (folder / "quarantine").rglob("*.json")
    rates.record_timing(folder, "4-cores-0123abcd", spec(), rates.BackboneTiming(1.0, 2.0))
    (rate,) = (folder / "rates").rglob("*.json")

    facts_page = facts.record_facts(folder, DECODING, 1, np.zeros(3, FACT))
    assert facts_page is not None

    learned.save_training_record(
        folder, spec(), learned.TrainingRecord(spec().weights, frozenset(ids), frozenset())
    )
    (page,) = folder.glob("features/*/learned.json")
    tuned = folder / "tuned.weights.h5"
    with h5py.File(tuned, "w") as file:
        file["layers/dense/vars/0"] = np.eye(3)
    learned.write_to_weights(
        tuned, learned.TrainingRecord("", *(frozenset(part) for part in (ids[:3], ids[3:], ids)))
    )

    def read_page(data: bytes) -> object:
        page.write_bytes(resealed(data))
        return learned.load_training_record(folder, spec())

    def read_row(data: bytes) -> object:
        row.write_bytes(data)
        quarantine.bad_images(folder / "quarantine", DECODING)
        row.write_bytes(resealed(data))
        return quarantine.bad_images(folder / "quarantine", DECODING)

    def read_tuned(path: Path) -> object:
        """What `learned.inscription` does, in this process."""
        names, arrays = learned.read_record(path)
        return learned.decode_record(path, "sha256:", dict(zip(names, arrays, strict=True)))

    claims = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
    return {
        "shard": Target(
            [shard.encode(key(view=View("flip(h)", 1)), ids, rows)], shard.decode, (ShardCorruptError,)
        ),
        "foreign HDF5": Target([buffer.getvalue()], guard.read_plain, (RefusedFileError,)),
        # `Index` drops a segment on any of these and rebuilds it.
        "index segment": Target(
            [index.encode_entries(entries)],
            index.decode_entries,
            (ValueError, LookupError, TypeError, OverflowError),
        ),
        "facts": Target(
            [facts_page.read_bytes()],
            lambda data: plausible(facts.decode_facts(data, FACT)),
            (ValueError, document.DocumentError),
        ),
        "lease": Target([lease], lambda data: claim.decode_claim("t", data), claims),
        "quarantine row": Target([row.read_bytes()], read_row),
        "record of tuned weights": Target([page.read_bytes()], read_page, (StoreError,)),
        "tuned weights": Target(
            [tuned.read_bytes()],
            _from_file(tuned, read_tuned),
            (RefusedFileError,),
        ),
        "rate": Target(
            [rate.read_bytes()],
            _from_file(rate, lambda _: rates.recorded_timings(folder, "4-cores-0123abcd")),
        ),
    }


def _hospitals(described: dict[str, Any]) -> dict[str, Target]:
    """What hospitals write for each other."""
    site = {
        "format": FORMAT,
        "classes": ["no", "yes"],
        "positive": "yes",
        "has_patients": True,
        **described["matrix"],
        "projection": {"dimensions": 2, "seed": 0},
        "moments": [
            {"images": 9, "patients": 3, "mean": [0.5, 1.0], "scatter": [[2.0, 0.5], [0.5, 1.0]]},
            {"images": 8, "patients": 4, "mean": [1.5, 1.0], "scatter": [[3.0, 0.5], [0.5, 1.0]]},
        ],
    }
    columns = sum(spec["dimension"] for spec in described["matrix"]["backbones"])
    head = {
        "format": HEAD,
        "name": "north",
        "strategy": "concat_logreg",
        "classes": ["no", "yes"],
        "positive": "yes",
        "images": 9,
        "backbones": described["matrix"]["backbones"],
        "decoding": described["matrix"]["decoding"],
        "linear": {
            "coef": [[0.5] * columns],
            "intercept": [0.25],
            "mean": [0.0] * columns,
            "scale": [1.0] * columns,
        },
    }
    answered = {
        "format": ANSWERS,
        "has_patients": True,
        "images": 5,
        "heads": [head, {**head, "name": "south"}],
        "classes_of": [0, 0, 1],
        "logits": [[[0.5], [0.25]], [[-0.5], [1.25]], [[2.5], [-0.75]]],
    }

    def read_site(data: bytes) -> object:
        page = document.parse_json(data)
        return parse_moments(page if isinstance(page, dict) else {}, Path("site.json"))

    def read_shared(data: bytes) -> object:
        page = document.parse_json(data)
        return parse_head(page if isinstance(page, dict) else {}, Path("head.json"))

    def read_answered(data: bytes) -> object:
        page = document.parse_json(data)
        return parse_answers(page if isinstance(page, dict) else {}, Path("site.json"))

    return {
        "head of a hospital": Target(
            [json.dumps(head).encode()], read_shared, (RunError, document.DocumentError)
        ),
        "answers of a hospital": Target(
            [json.dumps(answered).encode()], read_answered, (RunError, document.DocumentError)
        ),
        "moments of a hospital": Target(
            [json.dumps(site).encode()], read_site, (RunError, document.DocumentError)
        ),
    }


def _runs(folder: Path) -> dict[str, Target]:
    out = make_runs(folder)[0]
    state, arrays, about = out / run.MODEL_STATE, out / run.MODEL / "arrays.npz", out / run.RUN
    views = [{"recipe": "identity", "seed": 0}]
    described = {
        "matrix": {
            "backbones": [key().to_json()["backbone"]],
            "views": views,
            "decoding": key().to_json()["decoding"],
        }
    }
    original = arrays.read_bytes()

    def read_model(data: bytes) -> object:
        state.write_bytes(resealed(data))
        return load_strategy(out / run.MODEL)

    def read_archive(data: bytes) -> object:
        return {name: array.sum() for name, array in read_arrays(data).items() if array.dtype.kind in "iu"}

    def read_about(data: bytes) -> object:
        about.write_bytes(resealed(data))
        return run.keys_of(run.read_run(out))

    known = {
        "format": 1,
        "complete": True,
        "salt": "ab" * 32,
        "ids": ["00" * 32],
        "pixels": ["11" * 32],
        "groups": [],
    }

    def read_training(data: bytes) -> object:
        data = resealed(data)
        (out / run.TRAINING).write_bytes(data)
        return read_training_images(out, {"files": {run.TRAINING: digest_bytes(data)}})

    def read_outcome(data: bytes) -> object:
        page = document.parse_json(data)
        return (
            read_comparison(page) if isinstance(page, dict) and "contestants" in page else read_fusion(page)
        )

    doubts = {
        "rule": {
            "alpha": 0.1,
            "part": "val",
            "patients": [9, 9],
            "pool": "mean",
            "by_image": [0.2, 0.3],
            "by_patient": [0.2, 0.3],
        },
        "unlike": fit_unlike(np.eye(19, 5), np.arange(19), has_patients=True).to_json(),
    }

    def read_doubts(data: bytes) -> object:
        page = document.parse_json(data)
        kept = page if isinstance(page, dict) else {}
        unlike = read_unlike(kept.get("unlike"), 5)
        return read_rule(kept.get("rule"), 2), None if unlike is None else unlike.ratios(np.ones((1, 5)))

    return {
        **_hospitals(described),
        "what a model abstains by": Target(
            [json.dumps(doubts).encode()], read_doubts, (RunError, document.DocumentError)
        ),
        "outcomes to report": Target(_outcomes(), read_outcome, (ShapeError, document.DocumentError)),
        "predictions to report": Target(
            [_predictions()],
            lambda data: read_predictions(data, "split", ["test"], ["no", "=yes"]),
            (ShapeError,),
        ),
        "bundle JSON": Target([state.read_bytes()], read_model, (RunError,)),
        "training images": Target([json.dumps(document.seal(known)).encode()], read_training, (RunError,)),
        "bundle npz": Target([original], read_archive, (ArchiveError,)),
        "run.json": Target([json.dumps(document.seal(described)).encode()], read_about, (RunError,)),
    }


def _outcomes() -> list[bytes]:
    """What `fuse` and `compare` leave, in small."""
    decoding = key().to_json()["decoding"]
    matrix = {
        "data_sha256": "0",
        "images": 4,
        "quarantined": 0,
        "groups": 4,
        "has_groups": True,
        "positive": None,
    }
    matrix |= {
        "classes": {"no": 2, "yes": 2},
        "decoding": decoding,
        "views": [{"recipe": "identity", "seed": 0}],
    }
    matrix |= {"backbones": [key().to_json()["backbone"]]}
    curves = {"risk_coverage": {"coverage": [0.5, 1.0], "risk": [0.0, 0.25], "aurc": 0.1}}
    fusion = {
        "strategy": "x",
        "options": {},
        "matrix": matrix,
        "sizes": {"test": 4},
        "history": {"loss": [1.0]},
    }
    fusion |= {"operating": dict.fromkeys(("calibration", "threshold", "sensitivity", "positive"))}
    fusion |= {"scores": {"test": {m: {"value": 0.5, "interval": [0.4, 0.6]} for m in METRICS}}}
    fusion |= {"curves": {"test": curves}, "continuation": None}
    shares = {"patients": 2, "covered": 1.0, "interval": [0.3, 1.0], "unsure": 0.5, "neither": 0.0}
    rule = {"alpha": 0.5, "part": "val", "patients": [1, 1], "pool": "mean"}
    rule |= {"by_image": [0.1, 0.2], "by_patient": None}
    fusion |= {"abstention": {"rule": rule, "by_image": {"test": {"yes": shares}}, "by_patient": {}}}
    unlike = {"share": 0.05, "threshold": 1.5, "patients": 19, "has_patients": True}
    fusion |= {"unlike": unlike | {"held_out": {"test": 0.1}}}
    estimate = {"mean": 0.5, "deviation": 0.1, "interval": [0.4, 0.6], "folds": [0.4, None]}
    who = {
        "strategy": "x",
        "backbones": ["Alpha"],
        "views": "expand",
        "test_views": "identity",
        "chosen": None,
    }
    who |= {"metrics": dict.fromkeys(METRICS, estimate), "curves": curves}
    who |= {"spread": {"patients": 0.1, "folds": None, "training": None}}
    pair = {"a": "b", "b": "a", "metric": "auc", "delta": 0.0, "interval": None, "p": 1.0, "needed": None}
    pair |= {"verdict": "cannot_tell", "tests": {"delong": {"p": 1.0, "adjusted": None}}}
    protocol = {"folds": 2, "repeats": 1, "fold_seed": 0, "calibrate": None, "sensitivity": None}
    comparison = {"matrix": matrix, "protocol": protocol, "comparisons": [pair], "winner": None}
    single = {"name": "a", "delta": 0.0, "interval": [-0.1, 0.1], "p": 1.0}
    asked = {"primary": "b", "metric": "auc", "margin": 0.01, "verdict": "cannot_tell", "against": "a"}
    asked |= {"singles": [single], "shortcuts": [single], "above_shortcuts": False, "patients": 4}
    asked |= {"detectable": 0.1, "needed": 9, "needed_interval": [4, 20], "no_number": ""}
    comparison |= {
        "primary_question": asked,
        "contestants": [who | {"name": name} for name in "ab"],
        "view_curve": [],
        "economics": None,
    }
    return [json.dumps(page).encode() for page in (fusion, comparison)]


def _predictions() -> bytes:
    head = [
        "split",
        "image_id",
        "path",
        "frame",
        "group",
        "label",
        "predicted",
        "p(no)",
        "p(=yes)",
        "vote(Alpha)",
    ]
    line = ["test", "ab" * 32, "a,b.png", 0, "p1", "no", "=yes", 0.25, 0.75, "no"]
    return run.csv_text([head, line]).encode()


def _images(folder: Path) -> dict[str, Target]:
    noise = Image.effect_noise((31, 24), 40)
    files = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        noise.save(buffer, kind)
        files.append(buffer.getvalue())

    grey = np.asarray(noise)
    files.append(stack(np.stack([grey, grey[::-1]]), "ImageJ=1\nimages=2\n", order=">"))
    files.append(
        tiff(page(grey / np.float16(9)), page(grey, {254: 1}), below=(page(grey, {254: 1}),), big=True)
    )
    tiles = {259: 8, 317: 3, 322: 32, 323: 32, 324: (8,), 325: (40,)}
    files.append(tiff(page(grey.astype("f8"), tiles, zlib.compress(bytes(8192)))))
    volume = np.stack([grey] * 9, axis=2).astype(np.int16)
    files += [kind(volume, np.eye(4)).to_bytes() for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image)]
    files.append(gzip.compress(files[-1], mtime=0))
    arrays = _saved(np.save, grey), _saved(np.savez, images=[grey] * 2, labels=["a", "b"], groups=[1, 2])
    files += arrays

    def structure(data: bytes) -> None:
        check_structure(identify(data), data)

    path = folder / "image"
    return {
        "labels of arrays": Target(
            list(arrays[1:]), _from_file(folder / "x.npz", read_table), (BadImageError,)
        ),
        "image signature": Target(files, identify, (BadImageError,)),
        "image structure": Target(files, structure, (BadImageError,)),
        "image contents": Target(files, _from_file(path, read_contents)),
        "image header": Target(files, probe),
        "image extent": Target(files, _from_file(path, decoding_bytes)),
        "image": Target(files, lambda data: decode(data, value_range=(0, 99)), (BadImageError,)),
        "torch archive": Target([_archive()], _from_file(folder / "x.pth", read_state_dict), (WeightsError,)),
    }


def _saved(save: Callable[..., None], *values: object, **named: object) -> bytes:
    file = io.BytesIO()
    save(file, *values, **named)
    return file.getvalue()


def _archive() -> bytes:
    """As torch writes it: five pickles, put together by hand as in test_torch_archive.py, and a storage."""
    opening = (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\0\0\0little_endian\x88s."
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\6NtQ"
        b"K\0K\2K\3\x86K\3K\1\x86\x89ccollections\nOrderedDict\n)RtR"
    )
    state = b"\x80\x02ccollections\nOrderedDict\n)R(X\1\0\0\0w" + tensor + b"u."
    return opening + state + b"\x80\x02](X\1\0\0\0000e." + (6).to_bytes(8, "little") + bytes(24)


def _from_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return write_and_read


def fuzz(folder: str, examples: int, rounds: int) -> Iterator[tuple[str, int]]:
    """Feed every target ``rounds * examples`` inputs; the last one lies in the file ``last-input``."""
    warnings.simplefilter("error")  # what Python or a library has to say about hostile bytes is not for users
    last = Path(folder, "last-input").open("wb", buffering=0)  # noqa: SIM115 - open for the life of the process
    found = targets(Path(folder))
    for target in found.values():
        for seed in target.seeds:
            target.read(seed)  # a target whose own inputs it refuses would prove nothing
    yield "targets", len(found)
    for name, target in found.items():
        for _ in range(rounds):
            yield name, _feed(target, examples, last)


def _feed(target: Target, examples: int, last: io.FileIO) -> int:
    count = 0

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200) | damaged(target.seeds) | damaged(target.seeds))
    def feed(data: bytes) -> None:
        nonlocal count
        count += 1
        last.seek(0)
        last.truncate()
        last.write(data)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        with suppress(*target.contract):
            target.read(data)
        signal.setitimer(signal.ITIMER_REAL, 0)

    feed()
    return count
