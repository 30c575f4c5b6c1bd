"""The cache commands through their installed entry point."""

import os
import pty
import shutil
import subprocess
import time

import numpy as np
import pytest
from commandline import FEATSTORE, NETS, featstore, modules_loaded

from featstore.store.leases import Leases
from featstore.store.shard import IdSet
from featstore.store.store import Store

COMMANDS = ("ls", "du", "verify", "gc", "compact", "export", "import", "drift")


@pytest.fixture
def cache(world, tmp_path):
    copy = tmp_path / "cache"
    shutil.copytree(world.cache, copy)
    return copy


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_loads_nothing_heavy(command):
    assert modules_loaded("cache", command, "--help") == (0, set())


@pytest.mark.parametrize("command", ["ls", "du", "verify", "gc", "compact"])
def test_tidying_loads_nothing_heavy_and_refuses_what_is_no_cache(command, tmp_path):
    more = ["--dry-run"] if command == "gc" else []
    assert modules_loaded("cache", command, *more, "--cache", tmp_path / "none") == (4, set())
    assert not (tmp_path / "none").exists()
    (tmp_path / "thesis").mkdir()
    for path, words in (
        (tmp_path / "none", "There is no cache at"),
        (tmp_path, "is no cache"),
        (FEATSTORE, "is no folder"),
    ):
        refused = featstore("cache", command, *more, "--cache", path)
        assert (refused.code, words in refused.err, str(path) in refused.err) == (4, True, True)


def test_a_cache_without_shards_is_not_called_good(tmp_path):
    (tmp_path / "cache" / "leases").mkdir(parents=True)
    looked = featstore("cache", "verify", "--cache", tmp_path / "cache")
    assert (looked.code, "good" in looked.out, "holds no shards" in looked.out) == (0, False, True)


def test_ls_and_du_by_backbone_view_and_age(cache):
    by_view = featstore("cache", "ls", "--by", "view", "--cache", cache, "--json").json
    assert [(e["backbone"], e["seed"]) for e in by_view] == [
        ("EfficientNetLite0", 0),
        ("MobileNet025", 0),
        ("EfficientNetLite0", 1),
        ("MobileNet025", 1),
    ]
    old = next(cache.glob("features/MobileNet025*/*/seed-0001/*.h5"))
    two_weeks_ago = time.time() - 14 * 86_400
    os.utime(old, (two_weeks_ago, two_weeks_ago))
    first = featstore("cache", "ls", "--by", "age", "--cache", cache, "--json").json[0]
    assert (first["backbone"], first["seed"]) == ("MobileNet025", 1)
    sizes = featstore("cache", "du", "--by", "age", "--cache", cache, "--json").json
    assert list(sizes) == ["less than a day", "less than a month", "quarantine"]
    assert sizes["less than a month"] == old.stat().st_size
    assert len(featstore("cache", "du", "--by", "view", "--cache", cache, "--json").json) == 3
    text = featstore("cache", "ls", "--cache", cache).out
    assert "14 d" in text
    assert "kB" in text
    assert featstore("cache", "ls", "--by", "colour", "--cache", cache).code == 2


def test_verify_finds_repairs_and_says_what_is_to_be_computed_again(cache):
    victim = next(cache.glob("features/MobileNet025*/*/seed-0001/*.h5"))
    victim.write_bytes(victim.read_bytes()[:-1])
    found = featstore("cache", "verify", "--fast", "--cache", cache)
    assert (found.code, "verify --repair" in found.out) == (4, True)
    repaired = featstore("cache", "verify", "--repair", "--cache", cache, "--json")
    assert repaired.code == 4
    assert [(lost["backbone"], lost["seed"], lost["rows"]) for lost in repaired.json["repair"]["lost"]] == [
        ("MobileNet025", 1, 32)
    ]
    sound = featstore("cache", "verify", "--cache", cache)
    assert (sound.code, sound.err) == (0, ""), "no bar where there is no terminal"
    assert "3 shards with 96 rows are good, 0 bad." in sound.out


@pytest.mark.slow
def test_the_next_extraction_heals_what_was_repaired(world, cache):
    expected = sorted(p.name for p in cache.rglob("*.h5"))
    victim = next(cache.rglob("*.h5"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert "To be computed again" in featstore("cache", "verify", "--repair", "--cache", cache).out
    arguments = ["extract", world.data, *NETS, "--recipe", "mild", "--seeds", "1", "--cache", cache]
    assert featstore(*arguments, "--json").json["computed"] == 32
    assert sorted(p.name for p in cache.glob("features/**/*.h5")) == expected


def test_gc_asks_on_a_terminal_and_insists_on_yes_elsewhere(cache):
    left = cache / "features" / ".tmp-0123456789abcdef"
    left.write_bytes(b"half")
    refused = featstore("cache", "gc", "--cache", cache)
    assert (refused.code, "--dry-run" in refused.err, left.exists()) == (2, True, True)
    looked = featstore("cache", "gc", "--dry-run", "--cache", cache)
    assert (looked.code, "1 unfinished files" in looked.out, left.exists()) == (0, True, True)
    for answer, there in (("n", True), ("y", False)):
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [str(FEATSTORE), "cache", "gc", "--cache", str(cache)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(ours, f"{answer}\n".encode())
        _, talk = child.communicate(timeout=60)
        assert child.returncode == 0, talk
        assert left.name in talk, "shown before it is asked"
        assert left.exists() is there
        os.close(ours)
        os.close(theirs)
    left.write_bytes(b"half")
    assert featstore("cache", "gc", "--yes", "--cache", cache, "--json").json["deleted"] is True
    assert not left.exists()


def test_gc_of_a_smaller_data_set_leaves_its_vectors_alone(world, cache, tmp_path):
    head, *lines = world.data.read_text().splitlines()
    half = world.data.with_name("half.csv")
    half.write_text("\n".join([head, *lines[::2]]) + "\n")
    try:
        done = featstore("cache", "gc", half, "--yes", "--cache", cache, "--json").json
        assert sum(item["rows"] for item in done["garbage"]) == 4 * 16
        arguments = ["extract", half, *NETS, "--recipe", "mild", "--seeds", "1", "--cache", cache]
        assert "Nothing is missing: all 64 vectors" in featstore(*arguments).out
    finally:
        half.unlink()


def test_gc_and_compact_refuse_beside_a_writer_and_say_who(cache):
    key = Store(cache).feature_keys()[0]
    with Leases(cache) as leases, leases.acquire({key: IdSet.of(["ab" * 32])}):
        for command in (["gc", "--yes"], ["compact"]):
            refused = featstore("cache", *command, "--cache", cache)
            assert refused.code == 4
            assert f"process {os.getpid()} on " in refused.err


def test_compact_merges_what_many_runs_left(cache):
    store = Store(cache)
    key = store.feature_keys()[0]
    ids = sorted(store.stored_ids(key))
    values = store.read(key, ids)
    for path in store.ids_by_shard(key):
        path.unlink()
    for at in range(0, 32, 8):
        store.write(key, ids[at : at + 8], values[at : at + 8])
    store.flush()
    (line,) = featstore("cache", "compact", "--cache", cache, "--json").json["keys"]
    assert (line["before"], line["after"], line["rows"]) == (4, 1, 32)
    np.testing.assert_array_equal(Store(cache).read(key, ids), values)
    assert "nothing to compact" in featstore("cache", "compact", "--cache", cache).out
    assert featstore("cache", "compact", "--target", "much", "--cache", cache).code == 2


@pytest.mark.slow
def test_an_exported_file_comes_back_and_is_fused(world, cache, tmp_path):
    out = tmp_path / "lite.npz"
    arguments = ["cache", "export", world.data, out, "--backbones", "EfficientNetLite0", "--cache", cache]
    assert "32 images in the view identity: EfficientNetLite0 (1280 columns)." in featstore(*arguments).out
    assert featstore(*arguments).code == 2, "it is there already"
    taken = featstore("cache", "import", world.data, out, "--name", "Theirs", "--cache", cache)
    assert "32 vectors of 1280 numbers are stored as Theirs" in taken.out, taken.err
    chosen = ["--backbones", "Theirs", "--cache", cache, "--out", tmp_path / "run"]
    fused = featstore("fuse", world.data, *chosen, "--json")
    assert fused.code == 0, fused.err
    assert fused.json["matrix"]["backbones"][0]["weights"].startswith("foreign:")


@pytest.mark.slow
def test_imported_vectors_score_as_the_extracted_ones_that_they_are(world, cache, tmp_path):
    arguments = ["--backbones", "EfficientNetLite0", "--cache", cache]
    featstore("cache", "export", world.data, tmp_path / "lite.npz", *arguments)
    featstore("cache", "import", world.data, tmp_path / "lite.npz", "--name", "Theirs", "--cache", cache)
    chosen = ["--backbones", "EfficientNetLite0,Theirs", "--folds", "3", "--seeds", "none", "--cache", cache]
    compared = featstore("compare", world.data, *chosen, "--json").json
    auc = {c["name"]: c["metrics"]["auc"]["mean"] for c in compared["contestants"]}
    assert auc["EfficientNetLite0"] == auc["Theirs"]
    featstore("fuse", world.data, "--backbones", "Theirs", "--cache", cache, "--out", tmp_path / "run")
    predicted = featstore("predict", tmp_path / "run", next(world.data.parent.rglob("*.png")))
    assert (predicted.code, "was imported" in predicted.err) == (1, True)


def test_an_import_that_does_not_fit_says_why_in_one_line(world, cache, tmp_path):
    (tmp_path / "f.csv").write_text("path,f0\nnowhere.png,1.0\n")
    refused = featstore(
        "cache", "import", world.data, tmp_path / "f.csv", "--name", "Theirs", "--cache", cache
    )
    assert (refused.code, "'nowhere.png'" in refused.err) == (2, True)


@pytest.mark.slow
def test_drift_says_that_nothing_has_changed_and_notices_when_it_has(world, cache):
    arguments = ["cache", "drift", world.data, "--rows", "6", *NETS, "--cache", cache]
    same = featstore(*arguments)
    assert same.code == 0, same.err
    assert same.out.count("unchanged") == 2
    store = Store(cache)
    for key in [k for k in store.feature_keys() if k.backbone.name == "MobileNet025"]:
        ids = sorted(store.stored_ids(key))
        values = store.read(key, ids)
        for path in store.ids_by_shard(key):
            path.unlink()
        store.write(key, ids, (values + 0.25).astype(np.float32))
    changed = featstore(*arguments, "--json")
    assert changed.code == 1, changed.err
    assert [d["drifted"] for d in changed.json["backbones"]] == [False, True]
