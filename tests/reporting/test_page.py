"""The page: one file that asks nobody for anything, shows what strangers wrote as text, and names no patient."""

import base64
import hashlib
import re
import shutil
import stat
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from fakes import write_images
from fakes_matrix import make_matrix
from PIL import Image
from runs import NASTY, PATIENT, forge

from featstore import runs as run
from featstore.api.fuse import fuse
from featstore.api.report import write_report
from featstore.errors import UsageError
from featstore.images.augment import thumbnail
from featstore.reporting.page.report import MARK

VOID = {"meta", "img", "br", "path", "use", "circle", "rect", "line", "image", "hr"}


class Reader(HTMLParser):
    """Elements with their attributes, headings, ids and links, as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.loose = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.loose.append(tag)

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def page(world, tmp_path_factory):
    """All there is: three runs, the data, thumbnails."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    runs = [world.compare, world.fuse]
    return write_report(runs, out, world.data, world.cache, with_images=True)


@pytest.fixture
def bare(monkeypatch):
    """Where a test is not about pictures, none are drawn: that takes most of the time."""
    monkeypatch.setattr("featstore.reporting.page.report.pictures_of", lambda _: [])


@pytest.fixture(scope="module")
def read(page):
    return Reader(page.read_text())


@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equal_runs_give_equal_bytes_and_only_their_owner_may_read_them(drawn, world, tmp_path, monkeypatch):
    if not drawn:
        monkeypatch.setattr("featstore.reporting.page.report.pictures_of", lambda _: [])
    for name in ("one.html", "two.html"):
        write_report(world.fuse, tmp_path / name, world.data, world.cache, with_images=True)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert stat.S_IMODE((tmp_path / "one.html").stat().st_mode) == 0o600


def test_every_element_is_closed_and_every_id_is_there_once(read):
    assert read.loose == []
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50


def test_whatever_is_pointed_at_is_on_the_page(read):
    ids = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    targets = {a["href"].removeprefix("#") for a in read.of("a")}
    for _, attributes in read.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            targets |= set(attributes.get(name, "").split())
        targets |= set(re.findall(r"url\(#([^)]+)\)", " ".join(map(str, attributes.values()))))
    assert targets - ids == set()


def test_nothing_is_loaded_from_anywhere(page, read):
    text = page.read_text()
    assert not re.search(r"@import|url\((?!#)|<(?:link|iframe|object|embed|base|form)\b", text)
    for tag, attributes in read.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, name, value[:60])
        assert not [name for name in attributes if name.startswith("on")], (
            "no script but the one that is hashed"
        )


def test_the_policy_allows_the_one_script_and_nothing_else(page, read):
    (policy,) = [m["content"] for m in read.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page.read_text(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "img-src data:" in policy
    assert "http" not in policy


def test_headings_come_in_order_and_pictures_have_words(read):
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1, "no level is skipped on the way down"
    assert all(image["alt"] for image in read.of("img"))
    figures = [svg for svg in read.of("svg") if svg.get("aria-hidden") != "true"]
    assert len(figures) > 20
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in figures)


def test_no_path_and_no_patient_is_named(page, world):
    text = page.read_text()
    assert PATIENT not in text
    assert ".png" not in text.replace("data:image/png", "")
    assert str(world.data.parent) not in text
    ids = {line.split(",")[1] for line in (world.fuse / run.PREDICTIONS).read_text().splitlines()[1:]}
    assert [image for image in ids if image in text] == [], "a case bears eight digits and no more"


def test_each_wrong_answer_is_on_the_page_with_its_votes_and_its_picture(world, tmp_path, bare):
    text = write_report(
        world.fuse, tmp_path / "r.html", world.data, world.cache, with_images=True
    ).read_text()
    lines = [line.split(",") for line in (world.fuse / run.PREDICTIONS).read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    assert wrong
    assert len(re.findall(r'<li class="case">', text)) == len(wrong) == text.count('src="data:image/png')
    for row in wrong:
        (case,) = re.findall(rf"<code>{row['image_id'][:8]}</code>.*?</li>", text, re.DOTALL)
        for backbone in ("Xception", "ResNet50"):
            mark = "right" if row[f"vote({backbone})"] == row["label"] else "wrong"
            vote = row[f"vote({backbone})"]
            assert f'<dt>{backbone}</dt><dd class="{mark}">{vote} ' in case
        sure = float(row["p(" + row["predicted"] + ")"])
        assert f"<dd>{sure:.3f}</dd>" in case


def test_names_of_classes_are_shown_and_not_obeyed(tmp_path, monkeypatch):
    matrix = make_matrix(signal=(0.5, 0.5), classes=NASTY, views=1)
    monkeypatch.setattr("featstore.api.fuse.load_matrix", lambda *_, **__: matrix)
    fuse(tmp_path, strategy="vote_backbones", out=tmp_path / "run")
    text = write_report(tmp_path / "run").read_text()
    assert text.count("<script>") == 1, "ours"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;/svg&gt;&lt;b&gt;$\\frac{" in text
    read = Reader(text)
    assert (read.loose, read.open) == ([], [])
    assert read.of("b") == [b for b in read.of("b") if not b], "no element that a name has opened"


def test_what_cannot_be_seen_is_spelt_out(world, tmp_path, bare):
    out = shutil.copytree(world.fuse, tmp_path / "run")
    forge(out, run.RUN, lambda page: page.update(python="3\u202e1\x1b]0;x\x07\ud800"))
    text = write_report(out).read_text()
    assert "3\\u202e1\\x1b]0;x\\x07\\ud800" in text
    assert "\u202e" not in text


def test_without_the_data_the_page_says_how_to_get_the_rest(world, tmp_path, bare):
    text = write_report(world.compare, tmp_path / "r.html").read_text()
    assert "featstore report RUN --data DATA adds it" in text
    assert "Images by split and class</strong>" not in text
    assert "data:image/png" not in text


def test_with_the_data_it_has_the_audit_and_a_map_by_label_patient_and_site(page):
    text = page.read_text()
    assert "Guessing the label without a network" in text
    assert text.count("Images by split and class</strong>") == 2
    for colouring in ("label", "patient", "site"):
        assert f"coloured by {colouring}</strong>" in text
    assert "patient 1 " in text, "numbered, not named"


def test_a_cache_without_the_vectors_costs_the_map_alone(world, tmp_path, bare):
    text = write_report(world.fuse, tmp_path / "r.html", world.data, tmp_path / "empty").read_text()
    assert "The map of the features is left out: the cache does not hold them." in text
    assert str(tmp_path) not in text
    assert "Images by split and class</strong>" in text


def test_the_audit_uses_the_cache_that_is_named_and_reads_each_file_once(world, tmp_path, monkeypatch, bare):
    from featstore.images import scan

    seen, read = [], scan.read_contents
    monkeypatch.setattr(scan, "read_contents", lambda path, **asked: seen.append(path) or read(path, **asked))
    (tmp_path / "cache").mkdir()
    write_report(world.fuse, tmp_path / "r.html", world.data, tmp_path / "cache")
    assert list((tmp_path / "cache" / "facts").rglob("*.rows"))
    assert seen
    assert len(seen) == len(set(seen))


def test_data_that_no_run_saw_is_refused(world, tmp_path):
    other = write_images(tmp_path / "other", 12, seed=9)
    with pytest.raises(UsageError, match="None of the runs was made from"):
        write_report(world.fuse, tmp_path / "r.html", other)
    with pytest.raises(UsageError, match="Thumbnails need the images"):
        write_report(world.fuse, tmp_path / "r.html", with_images=True)


def test_a_report_takes_the_place_of_a_report_and_of_nothing_else(world, tmp_path, bare):
    target = tmp_path / "r.html"
    write_report(world.fuse, target)
    assert MARK in target.read_text()[:400]
    write_report(world.fuse, target)
    target.write_text("<html>my thesis</html>")
    with pytest.raises(UsageError, match="no report"):
        write_report(world.fuse, target)
    assert target.read_text() == "<html>my thesis</html>"
    write_report(world.fuse, target, overwrite=True)
    assert MARK in target.read_text()[:400]
    with pytest.raises(UsageError, match="is a folder"):
        write_report(world.fuse, tmp_path)


def test_the_command_that_makes_a_run_again_is_the_one_that_made_it(world, tmp_path, bare):
    text = write_report([world.compare, world.head], tmp_path / "r.html").read_text()
    commands = re.findall(r"<pre><code>(.*?)</code></pre>", text)
    assert commands[0].startswith(
        "featstore compare DATA --strategies vote_backbones,concat_logreg --folds 3 --repeats 3 --fold-seed 0"
        " --positive ill --view-curve concat_logreg --economics --backbones ResNet50,Xception"
    )
    assert "--seeds 1 --out RUN" in commands[0]
    assert "fuse DATA --strategy concat_head --set epochs=5 --positive ill --calibrate platt" in commands[1]


def test_the_templates_are_installed_with_the_package():
    folder = files("featstore.reporting.page").joinpath("templates")
    names = {path.name for path in folder.iterdir()}
    assert names == {"macros.html", "report.css", "report.html", "report.js"}
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '"featstore.reporting.page" = ["templates/*"]' in project


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(10, 20, 1), (300, 200, 3), (96, 96, 1), (50, 1000, 3)]
)
def test_a_thumbnail_fits_its_square_keeps_the_shape_and_is_never_larger(height, width, channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, channels), np.uint8)
    (tmp_path / "x.png").write_bytes(thumbnail(pixels))
    with Image.open(tmp_path / "x.png") as image:
        assert max(image.size) == min(96, max(height, width))
        assert image.width / image.height == pytest.approx(width / height, rel=0.15)
        assert image.mode == ("L" if channels == 1 else "RGB")
        assert image.info == {}
