"""`featstore report` from the outside."""

import pytest
from commandline import featstore

from featstore.report.html import MARK


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vote"
    done = featstore("fuse", world.data, "--strategy", "vote_backbones", "--cache", world.cache, "--out", out)
    assert done.code == 0, done.err
    return out


def test_it_writes_one_file_and_says_where(run, world):
    done = featstore("report", run, world.cache.parent / "run", "--json")
    assert done.code == 0, done.err
    assert done.json["report"] == str(run / "report.html")
    text = (run / "report.html").read_text()
    assert MARK in text
    assert len(text.encode()) == done.json["bytes"]
    assert "vote_backbones" in text
    assert "vectors computed in" in text


def test_with_the_data_it_has_pictures_of_the_wrong_answers(run, world, tmp_path):
    done = featstore(
        "report",
        run,
        "--data",
        world.data,
        "--cache",
        world.cache,
        "--with-images",
        "--out",
        tmp_path / "r.html",
    )
    assert done.code == 0, done.err
    assert str(tmp_path / "r.html") in done.out
    assert "coloured by label" in (tmp_path / "r.html").read_text()


def test_what_it_refuses_is_one_line_and_nothing_is_written(run, world, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    done = featstore("report", run, "--out", mine)
    assert (done.code, mine.read_text()) == (2, "mine")
    assert len(done.err.splitlines()) == 2
    assert featstore("report", run, "--with-images").code == 2
    assert featstore("report", tmp_path, "--out", tmp_path / "r.html").code == 1
    assert not (tmp_path / "r.html").exists()
    assert featstore("report").code == 2
