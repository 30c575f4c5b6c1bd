"""A run folder or a note from a stranger who knows the format: refused in one line, whatever he has put there."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from corruption import make_runs
from fakes import key

from featstore import runs as run
from featstore import serialization as document
from featstore.api.predict import predict
from featstore.errors import RunError
from featstore.fusion.model_io import ArchiveError, load_strategy, read_arrays
from featstore.serialization import digest_bytes

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))[0]


@pytest.fixture
def out(made, tmp_path):
    """A copy of a run, for forging."""
    for path in made.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(made)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(made)).write_bytes(path.read_bytes())
    return tmp_path


def npz(members, how=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array=None, header=None, data=b"") -> bytes:
    buffer = io.BytesIO()
    if header is None:
        np.lib.format.write_array(buffer, array, allow_pickle=True)
        return buffer.getvalue()
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


ONE = npy(np.zeros(3))
GOOD = npz([("a.npy", ONE)])
ENCRYPTED = GOOD[:6] + b"\1" + GOOD[7:]
ENCRYPTED = ENCRYPTED[: ENCRYPTED.index(b"PK\1\2") + 8] + b"\1" + ENCRYPTED[ENCRYPTED.index(b"PK\1\2") + 9 :]


def overlapping() -> bytes:
    """A hundred names for one member: each is stored, and together they are more than the file."""
    big = npy(np.zeros(5000))
    whole = npz([("a00.npy", big)])
    at = whole.index(b"PK\1\2")
    entry = whole[at : whole.index(b"PK\5\6")]
    names = b"".join(entry.replace(b"a00.npy", b"a%02d.npy" % n) for n in range(100))
    return whole[:at] + names + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 100, 100, len(names), at, 0)


HUGE = npy(header="{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,)}")
NEGATIVE = npy(header="{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", data=bytes(8))
ARCHIVES = {
    "no ZIP": (b"\x93NUMPY", "does not unpack"),
    "absolute member": (npz([("/etc/passwd.npy", ONE)]), "cannot be the name"),
    "member above": (npz([("../../x.npy", ONE)]), "cannot be the name"),
    "member above on Windows": (npz([("..\\x.npy", ONE)]), "cannot be the name"),
    "drive": (npz([("C:x.npy", ONE)]), "cannot be the name"),
    "no array": (npz([("setup.py", b"print()")]), "cannot be the name"),
    "a member twice": (GOOD[:0] + npz([("a.npy", ONE), ("b.npy", ONE)]).replace(b"b.npy", b"a.npy"), "one name"),
    "ZIP bomb": (npz([("a.npy", npy(np.zeros(10**6)))], zipfile.ZIP_DEFLATED), "compressed"),
    "overlapping members": (overlapping(), "more bytes than it has"),
    "encrypted": (ENCRYPTED, "compressed or encrypted"),
    "objects": (npz([("a.npy", npy(np.array([{}], object)))]), "allow_pickle=False"),
    "shape bomb": (npz([("a.npy", HUGE)]), "has 0 bytes"),
    "negative shape": (npz([("a.npy", NEGATIVE)]), "8 bytes"),
    "code for a header": (npz([("a.npy", npy(header="__import__('os').system('true')"))]), "does not unpack"),
    "header of a gigabyte": (npz([("a.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**30))]), "does not unpack"),
    "a later format": (npz([("a.npy", b"\x93NUMPY\3\0" + ONE[8:])]), "format (3, 0)"),
    "a wrong checksum": (GOOD.replace(struct.pack("<I", zlib.crc32(ONE)), bytes(4)), "does not unpack"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "why"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_hostile_archive_is_refused(data, why, tmp_path, tried):
    with pytest.raises(ArchiveError, match=why.replace("(", r"\(").replace(")", r"\)")) as caught:
        read_arrays(data)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is unpacked"
    tried("hostile archives")


def test_arrays_of_every_plain_kind_come_back():
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((3, 2), "f4")),
        "c": np.array(["ä", "b"]),
    }
    arrays |= {"empty": np.empty((0, 3)), "scalar": np.array(7), "flag": np.array([True])}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    back = read_arrays(buffer.getvalue())
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


JSON = {
    "depth 10,000": "[" * 10_000 + "]" * 10_000,
    "objects 10,000 deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "depth 70": "[" * 70 + "]" * 70,
    "NaN": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "a number beyond all measure": '{"a": 1e999}',
    "an integer of 5,000 digits": "9" * 5000,
    "a key twice": '{"a": 1, "a": 2}',
    "a key twice, deep": '[{"b": {"a": 1, "a": 2}}]',
    "Latin-1": b'{"a": "\xe4"}',
    "zeros": bytes(100),
    "two documents": "{} {}",
    "nothing": "",
    "half": '{"a": [1, 2',
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_hostile_json_is_refused_in_one_line(text, tried):
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(document.DocumentError) as caught:
        document.parse_json(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    tried("hostile JSON texts")


@pytest.mark.parametrize("name", [run.RUN, run.MODEL_STATE])
@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_a_run_with_hostile_json_is_refused(out, name, text):
    (out / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError) as caught:
        predict(out, ["x.png"])
    assert "\n" not in caught.value.cause


def test_a_file_too_large_to_be_a_document_is_not_read(out):
    with (out / run.RUN).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunError, match="bytes, more than"):
        run.read_run(out)


def test_a_seal_shows_damage_and_mix_ups():
    sealed = document.seal({"a": 1, "b": [1.5, "x"]})
    assert document.unseal(json.loads(json.dumps(sealed))) == {"a": 1, "b": [1.5, "x"]}
    for forged in (sealed | {"a": 2}, sealed | {"c": 1}, {"a": 1}, [], None, {**sealed, "sha256": "0" * 64}):
        with pytest.raises(document.DocumentError):
            document.unseal(forged)


@pytest.mark.parametrize("name", [run.RUN, run.MODEL_STATE, "model/arrays.npz"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_pipe_or_device_in_the_place_of_a_file_is_refused_and_not_waited_for(out, name, kind, tried):
    (out / name).unlink()
    if kind == "pipe":
        os.mkfifo(out / name)
    elif kind == "device":
        (out / name).symlink_to("/dev/zero")
    else:
        (out / name).mkdir()
    with pytest.raises(RunError, match="pipe, socket or device"):
        predict(out, ["x.png"])
    tried("pipes, devices and folders in the place of files")


def reseal(out, name, change):
    """What a forger does who knows the format: change a document, seal it, and tell run.json."""
    for path, forge in ((out / name, change), (out / run.RUN, lambda page: page["files"].update(known(out)))):
        page = document.unseal(document.read(path, document.LARGE))
        forge(page)
        path.write_text(json.dumps(document.seal(page)))


def known(out):
    return {name: digest_bytes((out / name).read_bytes()) for name in run.FILES if (out / name).exists()}


DESCRIBED = {"backbones": [key().to_json()["backbone"]], "views": [{"recipe": "identity", "seed": 0}]}
DESCRIBED |= {"decoding": key().to_json()["decoding"]}

MATRICES = {
    "no matrix": None,
    "a list": [],
    "no backbone": DESCRIBED | {"backbones": []},
    "a backbone that is a number": DESCRIBED | {"backbones": [3]},
    "no view": DESCRIBED | {"views": []},
    "a view of other fields": DESCRIBED | {"views": [{"recipe": "identity"}]},
    "a seed that is a text": DESCRIBED | {"views": [{"recipe": "identity", "seed": "0"}]},
    "a decoding that is a list": DESCRIBED | {"decoding": []},
    "a range of one number": DESCRIBED | {"decoding": DESCRIBED["decoding"] | {"value_range": [1]}},
    "a backbone that leaves its folder": DESCRIBED
    | {"backbones": [DESCRIBED["backbones"][0] | {"name": "../../../tmp/x"}]},
    "other features than the model's": DESCRIBED,
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_a_sealed_run_of_the_wrong_content_is_refused(out, matrix, tried):
    reseal(out, run.RUN, lambda page: page.update(matrix=matrix))
    with pytest.raises(RunError) as caught:
        predict(out, ["x.png"])
    assert "\n" not in caught.value.cause
    tried("forged runs")


@pytest.mark.parametrize("extra", [None, [], {}, {"classes": "ab"}, {"classes": ["a"]}, {"classes": [1, 2]}])
def test_a_sealed_model_that_does_not_name_its_classes_is_refused(out, extra):
    reseal(out, run.MODEL_STATE, lambda page: page.update(extra=extra))
    with pytest.raises(RunError, match="what its classes are called"):
        predict(out, ["x.png"])


def test_the_model_of_another_run_is_refused(out, made):
    other = made.with_name("run1")
    for name in ("model.json", "arrays.npz"):
        (out / "model" / name).write_bytes((other / "model" / name).read_bytes())
    assert load_strategy(out / "model"), "it is a good model; it is not this run's"
    with pytest.raises(RunError, match=r"not the file that run\.json was written with"):
        predict(out, ["x.png"])


@pytest.mark.parametrize("name", [run.MODEL, run.FIGURES])
def test_a_run_that_is_replaced_takes_nothing_with_it_to_which_a_link_in_it_leads(tmp_path, name):
    outside, out = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    out.mkdir()
    for file in ("drawing.svg", "model.json", "arrays.npz"):
        (outside / file).write_text("precious")
    (out / name).symlink_to(outside)
    (out / run.RUN).write_text("{}")
    run.clear(out)
    assert list(out.iterdir()) == []
    assert {path.read_text() for path in outside.iterdir()} == {"precious"}
    assert len(list(outside.iterdir())) == 3
