"""`featstore report` from the outside."""

import pytest
from commandline import featstore

from featstore.reporting.page.report import MARK


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vote"
    done = featstore("fuse", world.data, "--strategy", "vote_backbones", "--cache", world.cache, "--out", out)
    assert done.code == 0, done.err
    return out


def test_it_writes_one_file_and_says_where(run, world, tmp_path):
    out = tmp_path / "r.html"
    source = ["--data", world.data, "--cache", world.cache, "--with-images"]
    done = featstore("report", run, world.cache.parent / "run", *source, "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.json == {"report": str(out), "bytes": out.stat().st_size}
    text = out.read_text()
    for word in (MARK, "vote_backbones", "vectors computed in", "coloured by label", "CLAIM"):
        assert word in text


def test_what_it_refuses_is_one_line_and_nothing_is_written(run, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    done = featstore("report", run, "--out", mine)
    assert (done.code, mine.read_text()) == (2, "mine")
    assert len(done.err.splitlines()) == 2
    assert featstore("report", tmp_path, "--out", tmp_path / "r.html").code == 1
    assert not (tmp_path / "r.html").exists()
