"""Files to import that are not what they say, by number: bombs, lies about sizes, links, objects, plain damage."""

from __future__ import annotations

import io
import random
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet

WIDTH = 5


def forged(number: int, names: list[str]) -> tuple[str, bytes]:
    """Name and bytes of a forged file; most have something wrong with them."""
    rng = random.Random(number)
    kind = rng.choice([*WRITERS])
    values = np.random.default_rng(number).normal(size=(len(names), WIDTH)).astype("f4")
    data = WRITERS[kind](rng, list(names), values)
    if rng.random() < 0.3:
        data = _damaged(data, rng)
    return f"x.{kind}", data


def _damaged(data: bytes, rng: random.Random) -> bytes:
    new = bytearray(data)
    for _ in range(rng.choice([1, 2, 8])):
        at = rng.randrange(len(new) or 1)
        match rng.choice(["byte", "cut", "number", "twice"]):
            case "byte":
                new[at : at + 1] = rng.randbytes(1)
            case "cut":
                del new[at:]
            case "number":
                new[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1]).to_bytes(4, "little")
            case "twice":
                new[at:at] = new[at : at + 64]
    return bytes(new)


def _odd(rng: random.Random, names: list[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names and values of which something may be amiss."""
    match rng.choice(["good", "good", "nan", "twice", "absent", "escape", "long", "none", "climb"]):
        case "nan":
            values[0, 0] = rng.choice([np.nan, np.inf])
        case "twice":
            names[0] = names[1]
        case "absent":
            names[0] = "absent.png"
        case "escape":
            names[0] = "\x1b]0;title\x07\u202e.png"
        case "long":
            names[0] = "a" * 70_000
        case "none":
            names, values = [], values[:0]
        case "climb":
            names[0] = "../../../etc/passwd"
    return names, values


def _bytes(names: list[str]) -> np.ndarray:
    return np.array([name.encode() for name in names], "S" if names else "S1")


def _npz(rng: random.Random, names: list[str], values: np.ndarray) -> bytes:
    names, values = _odd(rng, names, values)
    buffer = io.BytesIO()
    match rng.choice(["plain", "objects", "header", "bomb"]):
        case "plain":
            np.savez_compressed(buffer, path=_bytes(names), features=values)
        case "objects":
            np.savez(buffer, path=np.array(names, object), features=values)
        case "header":
            page = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                page, {"descr": "<f4", "fortran_order": False, "shape": (2**40, rng.choice([1, 2**30]))}
            )
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("features.npy", page.getvalue())
        case "bomb":
            np.savez_compressed(buffer, path=_bytes(names), features=np.zeros((len(names), 1 << 13), "f4"))
    return buffer.getvalue()


def _hdf5(rng: random.Random, names: list[str], values: np.ndarray) -> bytes:
    names, values = _odd(rng, names, values)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=rng.choice(["earliest", "latest"])) as file:
        file["path"] = _bytes(names)
        shape = (len(names) or 1, rng.choice([WIDTH, 1 << 20]))
        match rng.choice(["plain", "short", "twice", "link", "external", "huge", "skipped"]):
            case "plain":
                file.create_dataset("x", data=values)
            case "short":
                filters = rng.choice([{}, {"shuffle": True}, {"fletcher32": True}, {"compression": 9}])
                x = file.create_dataset("x", shape, "f4", chunks=shape, **filters)
                x.id.write_direct_chunk((0, 0), rng.randbytes(rng.choice([1, 3, 4, 64])))
            case "twice":
                plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plan.set_chunk(shape)
                plan.set_deflate(9)
                plan.set_deflate(9)
                space = h5py.h5s.create_simple(shape)
                h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plan)
            case "link":
                file["x"] = rng.choice([h5py.SoftLink("/path"), h5py.ExternalLink("/etc/passwd", "/")])
            case "external":
                file.create_dataset("x", shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
            case "huge":
                file.create_dataset("x", (len(names) or 1, 1 << 40), "f4", chunks=(1, 1 << 20))
            case "skipped":
                x = file.create_dataset("x", shape, "f4", chunks=shape, fletcher32=True)
                x.id.write_direct_chunk((0, 0), bytes(40), filter_mask=1)
    return buffer.getvalue()


def _parquet(rng: random.Random, names: list[str], values: np.ndarray) -> bytes:
    names, values = _odd(rng, names, values)
    buffer = io.BytesIO()
    rows = values.tolist()
    if rng.random() < 0.3 and rows:
        rows[0] = rows[0][:-1]
    pyarrow.parquet.write_table(pa.table({"path": names, "vector": rows}), buffer)
    return buffer.getvalue()


def _csv(rng: random.Random, names: list[str], values: np.ndarray) -> bytes:
    names, values = _odd(rng, names, values)
    lines = [",".join(["path", *(f"f{at}" for at in range(WIDTH))])]
    lines += [",".join([name, *map(str, row)]) for name, row in zip(names, values.tolist(), strict=True)]
    match rng.choice(["plain", "plain", "wide", "quote", "text", "digits"]):
        case "wide":
            lines.append("," * 20_000)
        case "quote":
            lines.append('"' + "x" * 200_000)
        case "text":
            lines.append(f"{names[0] if names else 'x'},=1+1,2,3,4,5")
        case "digits":
            lines.append(f"{names[0] if names else 'x'}," + ",".join(["9" * 5000] * WIDTH))
    return "\n".join(lines).encode("utf-8", "surrogateescape")


WRITERS = {"npz": _npz, "h5": _hdf5, "parquet": _parquet, "csv": _csv}
