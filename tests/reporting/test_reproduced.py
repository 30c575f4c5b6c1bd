"""A reproduction of the paper in a report: its figures by the paper's numbers, as pictures that can run nothing."""

import base64
import re

import pytest

from featstore import runs as run
from featstore.api.report import write_report
from featstore.errors import RunError

EVIL = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><image href="http://x.invalid/y"/></svg>'
SCORE = {"value": 0.9, "interval": [0.8, 0.95]}


def document(figures):
    member = {
        "name": "Xception",
        "label": "Xception (random weights)",
        "in_paper": True,
        "digest": "random:1",
    }
    drawn = {
        "number": 3,
        "title": "Model fusion",
        "alt": "Seven networks",
        "caption": "As the paper plans it.",
        "shows_images": False,
    }
    paper = {"accuracy": {"value": 0.96, "interval": None}, "images": None, "patients": None}
    honest = {"accuracy": SCORE, "images": 40, "patients": 12}
    return {
        "networks": [member | {"reason": "", "input_size": 299, "dimension": 2048}],
        "sides": {"by_image": {"train_pne": {"covid": 3}}},
        "floor": 0.5,
        "heads": {"Xception": SCORE},
        "fusions": {"by_image": {"head": SCORE}, "by_patient": {"head": {"value": None, "interval": None}}},
        "claims": [
            paper | {"name": "paper", "title": "The paper", "basis": "as printed"},
            honest | {"name": "honest", "title": "Patients kept together", "basis": "resampled"},
        ],
        "reasons": ["5 of 12 patients are on both sides of the split by image."],
        "figures": [drawn | {"file": name} for name in figures],
        "steps": {"by_image/head": "the fusion head"},
        "computed": 7,
        "stored": 0,
    }


@pytest.fixture
def out(tmp_path):
    """What `featstore paper` leaves, in small; the drawing is a stranger's."""
    folder = tmp_path / "paper"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "figure-03-model-fusion.svg").write_text(EVIL)
    arguments = {
        "data_sha256": "ab" * 32,
        "networks": {"Xception": "random:1 keras 3"},
        "images": 48,
        "epochs": 5,
    }
    page = document(["figures/figure-03-model-fusion.svg"])
    run.write_run(folder, {"kind": "paper", "arguments": arguments}, page)
    return folder


def test_its_figures_bear_the_papers_numbers_and_are_pictures_only(out):
    text = write_report(out).read_text()
    assert "<strong>Fig. 3: Model fusion</strong>" in text
    assert "As the paper plans it." in text
    (source,) = re.findall(
        r'<img class="paper" src="data:image/svg\+xml;base64,([^"]+)" alt="Seven networks">', text
    )
    assert base64.b64decode(source).decode() == EVIL, (
        "as it is, but in a picture, where nothing runs or loads"
    )
    assert "x.invalid" not in text
    assert text.count("<script>") == 1


def test_the_papers_number_and_ours_stand_side_by_side_with_the_reasons(out):
    text = write_report(out).read_text()
    assert "The paper claims an accuracy of 0.96; this run reaches under an honest one" in text
    assert "0.900 (95 % interval 0.800 to 0.950)." in text
    assert "5 of 12 patients are on both sides" in text
    assert "Xception (random weights)" in text
    assert (
        "featstore paper DATA --backbones Xception --weights Xception=random:1 --images 48 --epochs 5" in text
    )


def test_a_figure_that_shows_images_waits_to_be_asked_for(out):
    about = {"kind": "paper", "arguments": {"data_sha256": "ab" * 32}}
    page = document(["figures/figure-03-model-fusion.svg"])
    page["figures"][0]["shows_images"] = True
    run.write_run(out, about, page)
    text = write_report(out).read_text()
    assert 'class="paper"' not in text
    assert "1 figures show images of the data set; --with-images adds them." in text
    assert 'class="paper"' in write_report(out, with_images=True).read_text()


def test_a_figure_that_is_not_its_own_is_refused(out, tmp_path):
    (out / "figures" / "figure-03-model-fusion.svg").write_text(EVIL + " ")
    with pytest.raises(RunError, match="is not the file that"):
        write_report(out, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "name", ["../../secret.svg", "figures/../x.svg", "/etc/passwd", "figures/a/b.svg", "figures/x.html"]
)
def test_a_figure_from_elsewhere_is_refused(out, name):
    about = {"kind": "paper", "arguments": {"data_sha256": "ab" * 32}}
    run.write_run(out, about, document([name]))
    with pytest.raises(RunError):
        write_report(out)
