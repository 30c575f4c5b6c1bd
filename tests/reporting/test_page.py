"""The page: one file that asks nobody for anything, shows what strangers wrote as text, and names no patient."""

import base64
import hashlib
import json
import re
import shutil
import stat
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from fakes import write_images
from fakes_matrix import make_matrix
from msgspec import structs
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
    monkeypatch.setattr("featstore.evaluation.leakage.read_matrix", lambda *_, **__: matrix)
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
    assert "Sites are in the data set alone: featstore report RUN --data DATA adds them." in text
    assert "featstore report RUN --data DATA</code> adds an audit" in text
    assert 'href="#audit"' not in text, "no section that would be empty"
    assert "Images by split and class</strong>" not in text
    assert "data:image/png" not in text


def test_with_the_data_it_has_the_audit_and_a_map_by_label_patient_and_site(page):
    text = page.read_text()
    assert "images, 48 groups. No error was found." in text
    assert text.count("Images by split and class</strong>") == 2
    for colouring in ("label", "patient", "site"):
        assert f"coloured by {colouring}</strong>" in text
    assert "patient 1 " in text, "numbered, not named"


def test_a_guess_without_a_network_has_one_score_on_a_page(page, world, tmp_path, bare):
    """The run scores guesses on its own test images; the audit's own cross-validation would give other numbers."""
    assert "Guessing the label without a network" not in page.read_text()
    before = shutil.copytree(world.fuse, tmp_path / "run")
    forge(before, run.METRICS, lambda document: document.update(shortcuts={}))
    text = write_report(before, tmp_path / "r.html", world.data, world.cache).read_text()
    assert "Guessing the label without a network" in text


def test_the_answer_comes_first_with_its_picture_then_findings_patients_and_scores(world, tmp_path, bare):
    text = write_report(world.compare, tmp_path / "r.html").read_text()
    places = [
        text.index(f'id="run1-{part}"')
        for part in ("verdict", "findings", "patients", "scores", "cases", "provenance", "card")
        if part != "findings" or 'id="run1-findings"' in text
    ]
    assert places == sorted(places)
    assert places[0] < text.index("Difference in AUC to every single network</strong>") < places[1]
    question = json.loads((world.compare / run.METRICS).read_text())["primary_question"]
    for single in question["singles"]:
        assert f"{single['name']} {single['delta']:+.3f}".replace("-", "\u2212") in text


def rows_of(text, title):
    """Cells of a table of the page, row by row, the large text of each."""
    table = re.search(rf"<caption>{title}.*?</table>", text, re.DOTALL)[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>([^<]*)", row) for row in rows]


def test_patients_and_images_by_class_site_and_split(world, tmp_path, bare):
    text = write_report(world.compare, tmp_path / "a.html", world.data, world.cache).read_text()
    head, every, *sites = rows_of(text, r"Patients \(images\) by class")
    assert head == ["", "ill", "well", "All"]
    assert every[0] == "All images used"
    assert every[-1] == "48 (96)"
    assert [row[0] for row in sites] == ["north", "south"]
    text = write_report(world.fuse, tmp_path / "b.html").read_text()
    rows = rows_of(text, r"Patients \(images\) by class")
    sizes = json.loads((world.fuse / run.METRICS).read_text())["sizes"]
    assert [row[0] for row in rows[1:]] == ["All images used", "train", "test"]
    assert rows[2][-1] == f"\u2013 ({sizes['train']})", "whose they are is not in the run"
    assert rows[3][-1].endswith(f" ({sizes['test']})")
    assert rows[3][-1] > "0"


def test_the_flow_says_what_was_set_aside_and_why(world, tmp_path, bare):
    out = shutil.copytree(world.compare, tmp_path / "run")
    forge(out, run.METRICS, lambda document: document["matrix"].update(quarantined=3))
    text = write_report(out).read_text()
    assert "99 images found, 3 set aside (not readable: 3), 96 used of 48 patients: ill " in text


def test_one_table_of_scores_has_the_primary_fusion_the_best_single_network_and_all_guesses(world):
    from featstore.reporting.page import tables
    from featstore.reporting.run_record import read_record

    record = read_record(world.compare)
    shown, hidden = tables._in_brief(record.outcome)
    assert hidden == 0
    many = [
        structs.replace(one, label=f"{at}", estimates=shown[0].estimates)
        for at in range(40)
        for one in record.outcome.candidates[-1:]
    ]
    crowd = structs.replace(record.outcome, candidates=(*record.outcome.candidates, *many))
    shown, hidden = tables._in_brief(crowd)
    assert len(shown) == tables.ROWS
    assert hidden == len(crowd.candidates) + len(crowd.shortcuts) - tables.ROWS
    labels = {one.candidate.label for one in shown}
    single = max((s for s in record.outcome.candidates if len(s.backbones) == 1), key=lambda s: s.primary)
    assert {record.outcome.primary_question.primary, single.label} <= labels
    assert {guess.label for guess in crowd.shortcuts} <= labels
    scores = [one.primary for one in shown]
    assert scores == sorted(scores, reverse=True)


def test_the_report_is_about_the_primary_fusion_and_not_about_the_best_of_many(world, tmp_path, bare):
    document = json.loads((world.compare / run.METRICS).read_text())
    primary = document["primary_question"]["primary"]
    best = max(document["contestants"], key=lambda c: c["metrics"]["auc"]["mean"])
    out = shutil.copytree(world.compare, tmp_path / "run")
    other = next(c["name"] for c in document["contestants"] if c["name"] not in {primary, best["name"]})
    forge(out, run.METRICS, lambda page: page["primary_question"].update(primary=other))
    assert (
        f"images were answered wrong ({primary})" in write_report(world.compare, tmp_path / "a").read_text()
    )
    assert f"images were answered wrong ({other})" in write_report(out).read_text()


@pytest.mark.parametrize("prevalence", [0.01, 0.2, 0.7])
def test_predictive_values_are_those_of_bayes_and_their_intervals_those_of_resampling(prevalence):
    from featstore.reporting.page.tables import Bounded, predictive_values

    rng = np.random.default_rng(3)
    ill, well, n = 0.8, 0.9, 200
    found, spared = rng.binomial(n, [ill, well], (20000, 2)).T / n
    ppv = found * prevalence / (found * prevalence + (1 - spared) * (1 - prevalence))
    npv = spared * (1 - prevalence) / (spared * (1 - prevalence) + (1 - found) * prevalence)
    bounds = [
        Bounded(value, *np.percentile(draws, [2.5, 97.5])) for value, draws in ((ill, found), (well, spared))
    ]
    for told, draws, truth in zip(
        predictive_values(*bounds, prevalence),
        (ppv, npv),
        (
            ill * prevalence / (ill * prevalence + 0.1 * (1 - prevalence)),
            well * (1 - prevalence) / (well * (1 - prevalence) + 0.2 * prevalence),
        ),
        strict=True,
    ):
        assert told.value == pytest.approx(truth)
        assert (told.low, told.high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.012)


def test_predictive_values_stay_shares_where_nobody_or_everybody_is_called_ill():
    from featstore.reporting.page.tables import Bounded, predictive_values

    all_right, none_found = Bounded(1.0, 0.9, 1.0), Bounded(0.0, 0.0, 0.1)
    ppv, npv = predictive_values(all_right, all_right, 0.1)
    assert (ppv.value, ppv.high, npv.value, npv.high) == (1, 1, 1, 1)
    assert 0 < ppv.low < 1
    nobody, npv = predictive_values(none_found, all_right, 0.1)
    assert nobody is None
    assert npv.value == pytest.approx(0.9)
    everybody, none = predictive_values(all_right, none_found, 0.1)
    assert everybody.value == pytest.approx(0.1)
    assert none is None
    for part in (ppv, npv, everybody):
        assert 0 <= part.low <= part.value <= part.high <= 1


def test_files_of_cases_are_named_for_their_owner_and_for_nobody_else(world, tmp_path, bare):
    text = write_report(world.fuse, tmp_path / "r.html", world.data, world.cache, names=True).read_text()
    assert "For the owner of the data alone" in text
    files = re.findall(r'<span class="file">([^<]+)</span>', text)
    known = {line.split(",")[0] for line in world.data.read_text().splitlines()[1:]}
    assert files
    assert set(files) <= known
    assert str(tmp_path) not in text
    with pytest.raises(UsageError, match="Names of files need the data set"):
        write_report(world.fuse, tmp_path / "r.html", names=True)


@pytest.mark.slow
def test_every_figure_is_written_for_a_manuscript_with_its_caption(world, tmp_path, monkeypatch):
    monkeypatch.setattr("featstore.reporting.page.cases.CURVES", 1)  # fewer figures of the same kinds
    figures = tmp_path / "figures"
    for _ in range(2):
        write_report(world.compare, tmp_path / "r.html", figures=figures, formats=["png", "svg"], dpi=100)
    names = {path.stem for path in figures.glob("*.png")}
    assert {"differences", "flow", "roc", "confusion"} <= names
    assert names == {path.stem for path in figures.glob("*.svg")}
    assert not list(figures.glob("*.pdf"))
    captions = (figures / "captions.txt").read_text()
    assert [name for name in names if f"{name}\n" not in captions] == []
    with Image.open(figures / "roc.png") as image:
        assert image.info["dpi"] == pytest.approx((100, 100), abs=0.1)
    (figures / "roc.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="shows something else"):
        write_report(world.compare, tmp_path / "r.html", figures=figures, formats="png", dpi=100)
    assert (figures / "roc.png").read_bytes() == b"mine"


@pytest.mark.parametrize("asked", [{"formats": "tiff"}, {"formats": ()}, {"dpi": 10}])
def test_a_format_that_is_none_is_refused_before_anything_is_written(asked, world, tmp_path):
    with pytest.raises(UsageError):
        write_report(world.fuse, tmp_path / "r.html", figures=tmp_path / "figures", **asked)
    assert not list(tmp_path.iterdir())


def test_a_fit_without_maps_says_why_where_images_are_shown(world, tmp_path, bare):
    text = write_report(world.fuse, tmp_path / "r.html", world.data, with_images=True).read_text()
    assert "No map: " in text
    assert "no network of Keras" in text or "has no map: its answer jumps" in text
    assert str(tmp_path) not in text


def test_the_command_says_that_maps_take_longer(world, tmp_path):
    arguments = ["report", world.fuse, "--data", world.data, "--out", tmp_path / "r.html"]
    assert "its networks are loaded" in featstore(*arguments, "--with-images").err
    assert "its networks are loaded" not in featstore(*arguments).err


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
