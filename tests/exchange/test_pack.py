"""Feature packs: scores come again byte for byte from vectors alone, and what is not as it was sealed is refused."""

import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore as command
from fakes import spec, write_images
from runs import extract_with_fakes

from featstore import runs
from featstore.api.compare import compare
from featstore.api.exchange import import_features
from featstore.api.fuse import fuse
from featstore.api.pack import pack, replay
from featstore.api.shared_heads import share
from featstore.errors import MissingFeaturesError, RefusedFileError, RunError, UnknownNameError, UsageError
from featstore.exchange.pack import (
    ARRAYS,
    KIND,
    METRICS,
    RUN,
    TABLE,
    numbered,
    open_pack,
    read_archive,
    seal_archive,
)
from featstore.image_facts import FACT_OF_BEFORE
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.reporting.terminal.results import packed_text, replay_text, shared_text
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

SITES = ("Northtown", "Southtown")


@dataclass(frozen=True)
class Study:
    data: Path
    cache: Path
    fuse: Path
    compare: Path
    packs: dict[str, Path]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A fit and a comparison of 48 pictures of 24 patients of two sites, packed; then every picture is gone."""
    folder = tmp_path_factory.mktemp("pack")
    data, cache = write_images(folder / "data", 48), folder / "cache"
    head, *lines = data.read_text().splitlines()
    named = [f"{line.replace(',p', ',Mustermann')},{SITES[at // 2 % 2]}" for at, line in enumerate(lines)]
    data.write_text("\n".join([f"{head},site", *named]) + "\n")
    extract_with_fakes(data, cache)
    source = {"cache": cache, "seeds": [1]}
    fuse(data, strategy="soft_vote", calibrate="platt", sensitivity=0.8, out=folder / "fuse", **source)
    compare(data, strategies=["soft_vote"], folds=3, repeats=1, out=folder / "compare", **source)
    packs = {}
    for kind in ("fuse", "compare"):
        packs[kind] = folder / f"{kind}.zip"
        pack(folder / kind, data, packs[kind], licence="CC BY-NC 4.0", cache=cache)
    shutil.copytree(folder / "data", folder / "kept")
    shutil.rmtree(folder / "data")
    return Study(folder / "kept" / data.name, cache, folder / "fuse", folder / "compare", packs)


@pytest.mark.parametrize("kind", ["fuse", "compare"])
def test_scores_come_again_byte_for_byte_without_an_image(study, kind):
    result = replay(study.packs[kind])
    assert result.differences == ()
    assert (result.same, result.unequal, result.kind, result.images) == (True, (), kind, 48)
    assert "byte for byte" in repr(result)
    assert result.licence == "CC BY-NC 4.0"
    tables = {"fuse": {"scores", "curves", "singles"}, "compare": {"contestants", "comparisons", "winner"}}
    assert tables[kind] <= set(result.tables)
    assert result.files == ((METRICS,) if kind == "fuse" else (METRICS, "results.csv"))


def test_a_network_that_the_run_left_out_is_told_again(tmp_path):
    """The run says so as a finding; to load the run's own networks by name does not."""
    data, cache = write_images(tmp_path / "data", 48), tmp_path / "cache"
    extract_with_fakes(data, cache)
    ids = [record.id for record in scan(data).records[:8]]
    partial = FeatureKey(spec("VGG19"), IDENTITY, Decoding(decoder_version()))
    Store(cache).write(partial, ids, np.ones((8, partial.backbone.dimension), np.float32))
    told = fuse(data, strategy="soft_vote", out=tmp_path / "run", cache=cache, seeds=[1]).findings
    assert "FS405" in {finding.code for finding in told}
    pack(tmp_path / "run", data, tmp_path / "pack.zip", cache=cache)
    assert replay(tmp_path / "pack.zip").differences == ()


@pytest.mark.parametrize("beside", [[], ["Xception"]])
def test_a_pack_and_a_head_of_imported_vectors_say_that_nobody_here_computed_them(tmp_path, beside):
    data, cache = write_images(tmp_path / "data", 48), tmp_path / "cache"
    if beside:
        extract_with_fakes(data, cache)
    files = [record.id for record in scan(data).records]
    vectors = np.random.default_rng(0).normal(size=(len(files), 5)).astype(np.float32)
    np.savez(tmp_path / "theirs.npz", ids=files, features=vectors)
    import_features(data, tmp_path / "theirs.npz", "Theirs", cache=cache)
    fuse(data, backbones=[*beside, "Theirs"], cache=cache, seeds=[], out=tmp_path / "run")
    packed = pack(tmp_path / "run", data, tmp_path / "x.zip", cache=cache)
    again = replay(tmp_path / "x.zip")
    assert (packed.imported, again.imported, again.same) == (("Theirs",), ("Theirs",), True)
    head = share(tmp_path / "run", tmp_path / "head.json")
    for told in (packed_text(packed), replay_text(again), shared_text(head)):
        assert "Theirs: not computed by featstore, but imported." in told


def test_a_pack_names_no_patient_no_site_and_no_path(study):
    for path in study.packs.values():
        data = path.read_bytes()
        for word in (b"Mustermann", b"Northtown", b"Southtown", b".png", str(study.cache.parent).encode()):
            assert word not in data
        members, about = read_archive(path, KIND)
        table = json.loads(members[TABLE])
        assert sorted(set(table["groups"])) == [f"p{n:02d}" for n in range(1, 25)]
        assert set(table["sites"]) == {"s1", "s2"}
        assert about == {"images": 48, "licence": "CC BY-NC 4.0"}


def test_a_pack_is_for_its_owner_alone_and_the_same_bytes_again(study, tmp_path):
    data = study.data.parent.parent / "data"
    shutil.copytree(study.data.parent, data)
    try:
        again = pack(
            study.fuse,
            data / study.data.name,
            tmp_path / "again.zip",
            licence="CC BY-NC 4.0",
            cache=study.cache,
        )
    finally:
        shutil.rmtree(data)
    assert Path(again.file).read_bytes() == study.packs["fuse"].read_bytes()
    assert Path(again.file).stat().st_mode & 0o077 == 0
    assert (again.images, again.groups, again.views, again.columns) == (48, 24, 2, 24)


def test_numbers_stand_in_the_order_of_names():
    names = ["zoe", "Anna", "anna", "Ärger", "b", *map(str, range(20))]
    found = numbered("p", names)
    assert sorted(found, key=found.get) == sorted(names)
    assert len({len(number) for number in found.values()}) == 1


def changed(path, change):
    """The pack with one thing changed, and every digest made right again."""
    members, about = read_archive(path, KIND)
    change(members)
    return seal_archive(KIND, members, about)


def in_table(**values):
    def change(members):
        table = json.loads(members[TABLE])
        for name, value in values.items():
            table[name] = value(table[name])
        members[TABLE] = json.dumps(table).encode()

    return change


def in_arrays(**values):
    def change(members):
        arrays = dict(np.load(io.BytesIO(members[ARRAYS])))
        for name, value in values.items():
            arrays[name] = value(arrays[name])
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        members[ARRAYS] = buffer.getvalue()

    return change


def test_a_number_that_was_touched_is_found_and_named(study, tmp_path):
    """Whoever changes scores in a pack and seals it anew is told by the vectors, which give others."""

    def flatter(members):
        metrics = json.loads(members[METRICS])
        metrics["scores"]["test"]["auc"]["value"] = 0.999
        members[METRICS] = runs.json_text(metrics).encode()

    (tmp_path / "x.zip").write_bytes(changed(study.packs["fuse"], flatter))
    result = replay(tmp_path / "x.zip")
    assert (result.same, result.unequal, result.n_differences) == (False, (METRICS,), 1)
    (difference,) = result.differences
    assert (difference.where, difference.recorded) == ("scores.test.auc.value", "0.999")
    assert 0 < difference.relative < 1


def test_a_pack_of_before_is_replayed_without_what_it_did_not_know(study, tmp_path):
    """Packs of revision 1 of the facts know nothing of border and background: the rest comes out the same."""

    def narrow(rows):
        old = np.zeros(len(rows), FACT_OF_BEFORE)
        for name in FACT_OF_BEFORE.names:
            old[name] = rows[name]
        return old

    (tmp_path / "x.zip").write_bytes(changed(study.packs["compare"], in_arrays(facts=narrow)))
    result = replay(tmp_path / "x.zip")
    assert {one.where.partition(".")[0] for one in result.differences} <= {"negative_controls", "findings"}


def test_other_vectors_give_other_scores(study, tmp_path):
    noise = np.random.default_rng(0)
    other = in_arrays(features=lambda x: noise.normal(size=x.shape).astype(np.float32))
    (tmp_path / "x.zip").write_bytes(changed(study.packs["fuse"], other))
    result = replay(tmp_path / "x.zip")
    assert not result.same
    assert result.n_differences > 50
    assert len(result.differences) == 20


def _drop_metrics(members):
    del members[METRICS]


def _object_array(members):
    buffer = io.BytesIO()
    np.savez(buffer, features=np.array([{}], object), facts=np.zeros(1))
    members[ARRAYS] = buffer.getvalue()


def _huge_shape(members):
    """A header that announces 2**40 images, in front of a few bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("features", "facts"):
            part = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                part, {"descr": "<f4", "fortran_order": False, "shape": (2, 1 << 40, 24)}
            )
            archive.writestr(f"{name}.npy", part.getvalue() + b"0" * 64)
    members[ARRAYS] = buffer.getvalue()


HOSTILE = {
    "no metrics": _drop_metrics,
    "pickled": _object_array,
    "huge shape": _huge_shape,
    "no JSON": lambda members: members.update({TABLE: b"{"}),
    "deep JSON": lambda members: members.update({TABLE: b"[" * 100_000}),
    "a run without settings": lambda members: members.update({RUN: b'{"kind": "fuse"}'}),
    "another kind of run": lambda members: members.update({RUN: b'{"kind": "evil"}'}),
    "fewer labels": in_table(labels=lambda labels: labels[1:]),
    "an id twice": in_table(ids=lambda ids: [ids[0], *ids[:-1]]),
    "an id that is a path": in_table(ids=lambda ids: ["../../evil", *ids[1:]]),
    "a row beyond the last": in_table(scored=lambda rows: [*rows[:-1], 1 << 40]),
    "a negative row": in_table(scored=lambda rows: [*rows[:-1], -1]),
    "no keys": in_table(keys=lambda _: []),
    "a key of another network": in_table(keys=lambda keys: [*keys[:-1], keys[0]]),
    "text for a count": in_table(excluded=lambda _: "many"),
    "a shape of its own": in_arrays(features=lambda x: x[:, :-1]),
    "doubles": in_arrays(features=lambda x: x.astype(np.float64)),
    "not finite": in_arrays(features=lambda x: np.full_like(x, np.nan)),
    "other facts": in_arrays(facts=lambda x: np.zeros(len(x))),
}


@pytest.mark.hostile
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pack_is_refused(study, what, tmp_path, tried):
    (tmp_path / "x.zip").write_bytes(changed(study.packs["fuse"], HOSTILE[what]))
    with pytest.raises(RefusedFileError) as refused:
        replay(tmp_path / "x.zip")
    assert "Get the file again" in refused.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    tried("packs")


@pytest.mark.hostile
def test_what_is_no_pack_is_refused(study, tmp_path, tried):
    (tmp_path / "text.zip").write_bytes(b"no archive")
    (tmp_path / "model.zip").write_bytes(seal_archive("model bundle", {}, {}))
    (tmp_path / "half.zip").write_bytes(study.packs["fuse"].read_bytes()[:-200])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(RefusedFileError):
            open_pack(path)
        tried("packs")
    with pytest.raises(UsageError, match="no file"):
        replay(tmp_path / "absent.zip")


def asked_for(**values):
    """A pack whose run was made with other settings."""

    def change(members):
        run = json.loads(members[RUN])
        run["asked"] |= values
        members[RUN] = json.dumps(run).encode()

    return change


@pytest.mark.parametrize(
    ("change", "error", "cause"),
    [
        (asked_for(test_size=7), RefusedFileError, "cannot be computed again"),
        (asked_for(options={"C": "x"}), RefusedFileError, "cannot be computed again"),
        (in_table(labels=lambda labels: ["ill"] * len(labels)), RefusedFileError, "cannot be computed again"),
        (asked_for(preset="mine"), UnknownNameError, "needs what is not here"),
    ],
)
def test_what_a_fit_refuses_is_an_error_of_the_pack(study, change, error, cause, tmp_path):
    """Never a remedy with a flag of another command."""
    (tmp_path / "x.zip").write_bytes(changed(study.packs["fuse"], change))
    with pytest.raises(error, match=cause) as refused:
        replay(tmp_path / "x.zip")
    assert "--test-size" not in refused.value.remedy
    assert "Get the file again" in refused.value.remedy or "--plugin" in refused.value.remedy


# What is not packed


def test_features_that_are_gone_are_said_to_be(study, tmp_path):
    with pytest.raises(MissingFeaturesError, match="not all in the cache") as refused:
        pack(study.fuse, study.data, tmp_path / "x.zip", cache=tmp_path / "empty")
    assert "--cache" in refused.value.remedy


def test_other_data_than_the_run_s_are_not_packed(study, tmp_path):
    text = study.data.read_text()
    other = study.data.with_name("other.csv")
    other.write_text(text.replace("Mustermann3,", "Musterfrau3,"))
    with pytest.raises(UsageError, match="not the data set of the run"):
        pack(study.fuse, other, tmp_path / "x.zip", cache=study.cache)
    assert list(tmp_path.iterdir()) == []


def test_covariates_are_not_packed(study, tmp_path):
    head, *lines = study.data.read_text().splitlines()
    other = study.data.with_name("ages.csv")
    other.write_text(
        "\n".join([f"{head},age", *(f"{line},{40 + at}" for at, line in enumerate(lines))]) + "\n"
    )
    with pytest.raises(UsageError, match="Runs with covariates are not packed"):
        pack(study.fuse, other, tmp_path / "x.zip", cache=study.cache, covariates=["age"])


def test_a_run_without_scores_and_a_place_that_will_not_do_are_refused(study, tmp_path):
    with pytest.raises(RunError, match="no readable run"):
        pack(study.cache, study.data, tmp_path / "x.zip", cache=study.cache)
    for name, why in {"x.tar": "is a .zip", "none/x.zip": "no folder"}.items():
        with pytest.raises(UsageError, match=why):
            pack(study.fuse, study.data, tmp_path / name, cache=study.cache)
    (tmp_path / "x.zip").write_bytes(b"mine")
    with pytest.raises(UsageError, match="there already"):
        pack(study.fuse, study.data, tmp_path / "x.zip", cache=study.cache)
    assert (tmp_path / "x.zip").read_bytes() == b"mine"


@pytest.mark.slow
def test_the_commands_say_what_was_written_and_whether_it_is_the_same(study, tmp_path):
    kept = study.data.parent.parent / "data"
    shutil.copytree(study.data.parent, kept)
    try:
        out = tmp_path / "x.zip"
        done = command("pack", study.fuse, kept / study.data.name, "--out", out, "--cache", study.cache)
    finally:
        shutil.rmtree(kept)
    assert done.code == 0, done.err
    assert "48 images of 24 patients (groups)" in done.out
    assert "personal data" in done.out
    done = command("replay", out)
    assert done.code == 0, done.err
    assert "The same, byte for byte: metrics.json" in done.out
    assert "not stated" in done.out
    out.write_bytes(changed(out, in_arrays(features=lambda x: x[:, ::-1])))
    done = command("replay", out)
    assert done.code == 1
    assert "Not the same: metrics.json" in done.out
    assert "scores.test" in done.out
