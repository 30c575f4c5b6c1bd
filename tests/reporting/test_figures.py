"""Figures: what they show, for anyone's names and numbers, with the same bytes every time."""

import base64
import io
import itertools
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from featstore.errors import UsageError
from featstore.evaluation.calibration import curves
from featstore.evaluation.intervals import newcombe
from featstore.evaluation.metrics import score
from featstore.reporting import figures
from featstore.reporting.figures.comparison import indistinguishable, mean_ranks, nemenyi
from featstore.reporting.figures.curves import (
    GRID,
    calibration_error,
    measured,
    precision_at_recall,
    sensitivity_at_fpr,
)
from featstore.reporting.figures.data import project
from featstore.reporting.figures.style import INK, STYLE, abbreviated, distinct, fitted, wide

RNG = np.random.default_rng(5)
SEVEN = {
    "InceptionV3": 2048, "DenseNet201": 1920, "ResNet50": 2048, "Xception": 2048, "VGG19": 512,
    "NASNetLarge": 4032, "InceptionResNetV2": 1536,
}  # fmt: skip
COUNTS = {"train": {"pne": 280, "nor": 300}, "valid": {"pne": 70, "nor": 75}, "test": {"pne": 99, "nor": 98}}
HISTORY = {
    "accuracy": [0.6, 0.8, 0.9],
    "val_accuracy": [0.55, 0.75, 0.7],
    "loss": [0.7, 0.5, 0.3],
    "val_loss": [0.7, 0.6, 0.65],
}
NASTY = [
    "$\\frac{1}{2}$", "$", "_hidden", "<b>&amp;</b>", "]]>", "a\nb\x00", "\udce9", "مريض", "患者", "x" * 200,
    "#1b1e23", 'id="m0"', "", " ", "a+b", "\u202eevil", "%s{0}", "+", "++@:",
]  # fmt: skip


def images_of_patients(n=120, classes=2):
    rng = np.random.default_rng(n)
    y = rng.permutation(np.arange(n) % classes)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y, proba, np.array([f"p{i // 3}" for i in range(n)])


def candidate(name, backbones, mean, strategy="concat_logreg"):
    interval = None if mean is None else [mean - 0.05, min(1.0, mean + 0.04)]
    folds = [None if mean is None else mean + d for d in (-0.02, 0.0, 0.02, 0.01, -0.01)]
    auc = {"mean": mean, "deviation": 0.01, "interval": interval, "folds": folds}
    return {
        "name": name,
        "strategy": strategy,
        "backbones": list(backbones),
        "chosen": None,
        "views": "expand",
        "metrics": {"auc": auc},
    }


def question(singles, primary="concat_logreg"):
    """A primary question, each single network with a difference; the last has no interval."""
    asked = [
        {"name": name, "delta": 0.02 - 0.01 * at, "interval": [-0.03 - 0.01 * at, 0.07], "p": 0.4}
        for at, name in enumerate(singles)
    ]
    asked[-1]["interval"] = None
    return {"primary": primary, "metric": "auc", "margin": 0.01, "singles": asked}


def all_subsets(names=tuple(SEVEN)):
    chosen = [s for k in range(1, len(names) + 1) for s in itertools.combinations(names, k)]
    return [candidate("+".join(s), s, 0.7 + 0.02 * len(s) + 0.001 * at % 0.01) for at, s in enumerate(chosen)]


def folds_of(candidates):
    return {c["name"]: c["metrics"]["auc"]["folds"] for c in candidates}


def bargains(candidates):
    return [
        {
            "backbones": c["backbones"],
            "milliseconds": 60.0 * len(c["backbones"]),
            "score": c["metrics"]["auc"]["mean"],
        }
        for c in candidates
    ]


def curves_of(names, classes=2):
    y, proba, _ = images_of_patients(200, classes)
    return {
        name: curves(y, np.roll(proba, at, axis=0) if at else proba, proba.argmax(axis=1), 1)
        for at, name in enumerate(names)
    }


@cache
def gallery(names=("net one", "net two", "net three"), classes=("covid", "normal")):
    """Every figure there is, of candidates and classes with these names; the same numbers every time."""
    rng = np.random.default_rng(1)
    names, classes = list(dict.fromkeys(names)), list(classes)
    y, proba, groups = images_of_patients(classes=len(classes))
    counts = np.arange(len(classes) ** 2).reshape(len(classes), -1)
    everyone = [
        candidate(name, SEVEN if at else ["ResNet50"], 0.9 - 0.001 * at) for at, name in enumerate(names)
    ]
    drawn = curves_of(names, len(classes))
    pixels = rng.integers(0, 256, (2, 20, 20, 3), np.uint8)
    points = [
        {"contestant": names[0], "metric": "auc", "views": v, "mean": 0.8, "interval": [0.7, 0.9]}
        for v in range(3)
    ]
    labels = [classes[k] for k in y]
    vectors = proba[:, [0, 1, 0]] + rng.normal(size=(len(y), 3))
    return [
        figures.fusion_diagram(dict.fromkeys(names[:20], 1280), "dropout 0.5, dense, sigmoid", classes),
        figures.image_grid(pixels, classes[:2], name="grid", title="Images"),
        figures.augmentation_grid(pixels[0], dict.fromkeys(names[:7], pixels[1])),
        figures.distribution({name: dict.fromkeys(classes, 7) for name in names[:3]}),
        figures.flow_diagram(80, {"not readable": 3}, dict.fromkeys(names, classes[:3]), patients=20),
        figures.accuracy_curves(HISTORY, name="accuracy", title="Accuracy"),
        figures.loss_curves(HISTORY, name="loss", title="Loss"),
        figures.confusion(counts, classes),
        figures.roc(y, dict.fromkeys(names, proba), groups),
        figures.precision_recall(y, dict.fromkeys(names, proba), groups),
        figures.reliability(drawn),
        figures.decision_curves(drawn),
        figures.risk_coverage(drawn),
        figures.forest(everyone),
        figures.differences(question(names)),
        figures.critical_difference(folds_of(everyone)),
        figures.lattice([candidate("+".join(s), s, 0.8) for s in ([n] for n in names[:7])]),
        figures.pareto(
            [{"backbones": [n], "milliseconds": 1.0 + at, "score": 0.8} for at, n in enumerate(names)]
        ),
        figures.views_curve(points),
        figures.embedding_map(vectors, {"label": labels, "group": groups}),
    ]


def document(svg):
    return ET.fromstring(svg)  # noqa: S314


def words(picture):
    """Texts that are drawn, line by line."""
    nodes = document(picture.svg()).iter("{http://www.w3.org/2000/svg}text")
    return [text for node in nodes if (text := "".join(node.itertext()).strip())]


def inline_words(picture):
    return "".join(document(picture.inline()).itertext())


# What they are


def test_importing_the_figures_loads_nothing_heavy():
    script = (
        "import sys; from featstore.reporting import figures; dir(figures);"
        "print([m for m in ('matplotlib', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(set(figures.__all__) - {"Picture"}))
def test_every_public_function_is_there_and_tells_its_parameters(name):
    assert "Parameters" in getattr(figures, name).__doc__


def test_every_figure_is_explained_to_whoever_has_to_read_it():
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    assert [name for name in figures.__all__ if name != "Picture" and f"`{name}`" not in page] == []


def test_an_unknown_figure_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute pie_chart"):
        _ = figures.pie_chart


@pytest.mark.slow
def test_drawing_everything_twice_gives_the_same_bytes():
    first = [(p.inline(), p.alt) for p in gallery()]
    assert [(p.inline(), p.alt) for p in gallery.__wrapped__()] == first


def test_a_figure_is_drawn_once_and_its_page_holds_what_hangs_around_it(monkeypatch):
    """As large as matplotlib makes it with ``tight``, which draws everything a first time to find out."""
    draws, draw = [], Figure.draw
    monkeypatch.setattr(
        Figure, "draw", lambda figure, renderer: draws.append(figure) or draw(figure, renderer)
    )
    pictures = gallery.__wrapped__()
    for picture in pictures:
        draws.clear()
        words = picture.svg()
        assert draws == [picture.figure], picture.name
        buffer = io.StringIO()
        with rc_context(STYLE):
            picture.figure.savefig(buffer, format="svg", bbox_inches="tight")
        sizes = [re.search(r'viewBox="([^"]+)"', text)[1] for text in (words, buffer.getvalue())]
        mine, tight = (np.array(size.split(), float) for size in sizes)
        np.testing.assert_allclose(mine, tight, atol=1e-3, err_msg=picture.name)


def test_one_candidate_is_drawn_and_nobodys_global_style_touched():
    _ = rcParams["backend"]  # chosen when first asked for
    before = rcParams.copy()
    for picture in gallery.__wrapped__(("a",)):
        picture.svg()
    assert rcParams == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_every_picture_of_a_gallery_has_a_name_of_its_own_and_an_alt_text_of_one_to_three_sentences():
    pictures = gallery()
    assert len({p.name for p in pictures}) == len(pictures)
    for picture in pictures:
        assert re.fullmatch("[a-z0-9-]+", picture.name)
        assert picture.title
        assert picture.alt.endswith(".")
        assert picture.alt.count(". ") <= 2


def test_on_a_page_ink_takes_the_pages_colour_and_names_stay():
    picture = figures.confusion([[5, 1], [2, 6]], ["#1b1e23", 'id="m0"'])
    tags = "".join(re.findall("<[^>]*>", re.sub('aria-label="[^"]*"', "", picture.inline())))
    assert INK not in tags
    assert "currentColor" in tags
    assert "#1b1e23" in inline_words(picture)
    assert 'id="m0"' in inline_words(picture)


def test_pictures_of_one_page_share_no_id():
    found = [re.findall(r'\bid="([^"]+)"', p.inline()) for p in gallery()[:8]]
    ids = [i for part in found for i in set(part)]
    assert len(ids) == len(set(ids)) > 0


def test_a_notebook_shows_a_picture_as_svg_that_says_its_alt_text():
    picture = figures.distribution(COUNTS)
    root = document(picture._repr_svg_())
    said = {node.tag.rpartition("}")[2]: node.text for node in root if node.text}
    assert said["title"] == "Images by split and class"
    assert said["desc"] == picture.alt


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_a_figure_is_the_same_bytes_in_every_format_whenever_it_is_drawn(kind, tmp_path):
    first, second = (figures.distribution(COUNTS) for _ in range(2))
    data = first.document(kind, 120)
    assert second.document(kind, 120) == data == first.save(tmp_path, kind, 120).read_bytes()
    assert data.startswith({"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}[kind])
    assert b"Date" not in data
    if kind == "pdf":
        assert b"/Type3" not in data, "journals refuse fonts that are drawings"


def test_a_bitmap_has_as_many_dots_as_were_asked_for_and_stands_on_white():
    picture = figures.distribution(COUNTS)
    coarse, fine = (Image.open(io.BytesIO(picture.document("png", dpi))) for dpi in (100, 300))
    assert fine.width == pytest.approx(3 * coarse.width, rel=0.02)
    assert fine.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_axes_bear_the_standard_labels():
    y, proba, groups = images_of_patients()
    labels = {
        "1 \u2212 specificity": figures.roc(y, {"a": proba}, groups),
        "Sensitivity": figures.roc(y, {"a": proba}, groups),
        "Observed proportion": figures.reliability(curves_of(["a"])),
        "Net benefit": figures.decision_curves(curves_of(["a"])),
        "Difference in AUC": figures.differences(question(["a", "b"])),
    }
    assert [label for label, picture in labels.items() if label not in words(picture)] == []


def test_a_candidate_has_one_colour_in_every_figure():
    y, proba, groups = images_of_patients()
    names = ["good", "poor", "middling"]
    scores = {"good": proba, "poor": 1 - proba, "middling": np.full(proba.shape, 0.5) + 0.1 * proba}
    parts = {name: curves(y, part, part.argmax(axis=1), 1) for name, part in scores.items()}
    drawn = [
        figures.roc(y, scores, groups),
        figures.precision_recall(y, scores, groups),
        figures.reliability(parts),
        figures.decision_curves(parts),
        figures.risk_coverage(parts),
    ]
    colours = [
        {
            name: line.get_color()
            for line in picture.figure.axes[0].get_lines()
            for name in names
            if str(line.get_label()).strip().startswith(name)
        }
        for picture in drawn
    ]
    assert len(colours[0]) == len(names)
    assert all(found == colours[0] for found in colours)


def test_differences_are_drawn_with_their_intervals_the_margin_and_the_p():
    picture = figures.differences(question(["VGG19", "Xception"]))
    assert "VGG19 +0.020 [\u22120.030 to +0.070], p = 0.400" in picture.alt
    assert "Xception +0.010 [no interval]" in picture.alt
    assert "margin 0.01" in picture.alt
    axes = picture.figure.axes[0]
    low, high = axes.get_xlim()
    assert low == -high, "zero is in the middle"
    assert high > 0.07


def test_the_flow_adds_up_and_says_why():
    picture = figures.flow_diagram(
        100,
        {"not readable": 4, "tuned a network": 0},
        {"ill": ["50 images"], "well": ["46 images"]},
        patients=31,
    )
    assert picture.alt == (
        "100 images found, 4 set aside (not readable: 4), 96 used of 31 patients: ill 50 images; well 46 images."
    )
    told = words(picture)
    for line in (
        "Images found: 100",
        "Set aside: 4",
        "not readable: 4",
        "Images used: 96 of 31 patients",
        "ill",
    ):
        assert line in told
    assert "tuned a network: 0" not in told


# Whatever they are called, however many they are


def assert_documents(pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in pictures:
            document(picture.inline())


@pytest.mark.slow
def test_nasty_names_are_data_in_every_figure():
    """No formula is parsed, no markup obeyed, no letter missed, and the file stays a document."""
    assert_documents(gallery.__wrapped__(NASTY, NASTY[:2]))


NAMES = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=40)), min_size=2, max_size=5, unique=True)


@pytest.mark.slow
@settings(max_examples=10)
@given(NAMES)
def test_names_are_data(names):
    assert_documents([figures.confusion(np.eye(len(names), dtype=int), names)])


@pytest.mark.slow
@settings(max_examples=15)
@given(NAMES)
def test_names_are_data_in_every_figure(names):
    assert_documents(gallery.__wrapped__(names, names))


@pytest.mark.parametrize("name", ["$a_b$", "_hidden", "<i>&"])
def test_a_short_name_is_shown_letter_by_letter(name):
    y, proba, groups = images_of_patients()
    shown = [
        figures.roc(y, {name: proba}, groups),
        figures.reliability(curves_of([name])),
        figures.forest([candidate(name, ["A"], 0.8)]),
        figures.critical_difference({name: [1, 2, 3], "b": [2, 3, 1]}),
        figures.confusion([[1, 2], [3, 4]], [name, "other"]),
        figures.distribution({"train": {name: 3}}),
        figures.flow_diagram(9, {}, {name: ["9 images"]}),
        figures.differences(question([name, "b"])),
        figures.embedding_map(proba, {"label": [name] * len(y)}),
        figures.image_grid([np.zeros((9, 9), np.uint8)], [name], name="grid", title="t"),
    ]
    assert [p.name for p in shown if not any(name in text for text in words(p))] == []
    assert [p.name for p in shown if name not in p.alt] == []


@pytest.mark.slow
def test_a_hundred_and_twenty_seven_candidates():
    subsets = all_subsets()
    names = [c["name"] for c in subsets]
    y, proba, groups = images_of_patients()
    pictures = [
        figures.roc(y, dict.fromkeys(names, proba), groups),
        figures.reliability(dict.fromkeys(names, curves_of(["a"])["a"])),
        figures.forest(subsets),
        figures.critical_difference(folds_of(subsets)),
        figures.lattice(subsets),
        figures.pareto(bargains(subsets)),
    ]
    text = {p.name: " ".join(words(p)) for p in pictures}
    assert "Grey: 120 others" in text["roc"]
    assert "Grey: 120 others" in text["reliability"]
    assert "The best 30 of 127." in text["forest"]
    assert "The best 30 of 127." in text["critical-difference"]
    assert "A DenseNet201; B InceptionResNetV2" in text["forest"]
    assert "127 subsets of 7 backbones" in pictures[4].alt


EMPTY = {
    "fusion": lambda: figures.fusion_diagram({}, "dense", []),
    "grid": lambda: figures.image_grid([], [], name="grid", title="t"),
    "distribution": lambda: figures.distribution({"train": {"a": 0}}),
    "flow": lambda: figures.flow_diagram(0, {}, {}),
    "differences": lambda: figures.differences({"metric": "auc", "singles": []}),
    "no splits": lambda: figures.distribution({}),
    "accuracy": lambda: figures.accuracy_curves({}, name="a", title="t"),
    "loss": lambda: figures.loss_curves({"loss": [], "val_loss": []}, name="a", title="t"),
    "confusion": lambda: figures.confusion(np.zeros((2, 2), int), ["a", "b"]),
    "no classes": lambda: figures.confusion(np.zeros((0, 0), int), []),
    "roc of one class": lambda: figures.roc([1, 1], {"a": [0.3, 0.4]}, ["p", "q"]),
    "roc of no one": lambda: figures.roc([1, 0], {}, ["p", "q"]),
    "roc of no image": lambda: figures.roc([], {"a": []}, []),
    "precision of one class": lambda: figures.precision_recall([0, 0], {"a": [0.3, 0.4]}),
    "reliability": lambda: figures.reliability({}),
    "macro": lambda: figures.decision_curves({"a": {"risk_coverage": {}}}),
    "empty curve": lambda: figures.risk_coverage(
        {"a": {"risk_coverage": {"coverage": [], "risk": [], "aurc": None}}}
    ),
    "forest": lambda: figures.forest([candidate("a", ["A"], None)]),
    "ranks of one": lambda: figures.critical_difference({"a": [1.0, 2.0]}),
    "ranks of no one": lambda: figures.critical_difference({}),
    "undefined folds": lambda: figures.critical_difference({"a": [None, 1.0], "b": [1.0, None]}),
    "lattice": lambda: figures.lattice([candidate("a", ["A"], None)]),
    "pareto": lambda: figures.pareto([{"backbones": ["A"], "milliseconds": None, "score": 0.7}]),
    "views": lambda: figures.views_curve([]),
    "map": lambda: figures.embedding_map(np.zeros((2, 4)), {"label": ["a", "b"]}),
}


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_where_there_is_nothing_to_draw_the_picture_says_so(draw):
    picture = draw()
    sentence = " ".join(words(picture))
    assert sentence == picture.alt
    assert not picture.figure.axes[0].lines


def test_a_resample_without_a_class_does_not_matter():
    """Two patients of each class: a perfect curve, and what four patients can say about it."""
    picture = figures.roc([1, 1, 0, 0], {"a": [0.9, 0.8, 0.2, 0.3]}, list("pqrs"))
    low = newcombe(1.0, 2, 2)[0]
    assert f"a AUC 1.000 [{low:.3f} to 1.000]" in picture.alt
    assert 0.3 < low < 0.5


def test_one_patient_of_a_class_allows_no_interval_and_no_band():
    (curve,) = measured(
        [1, 0, 0, 0], {"a": [0.9, 0.1, 0.2, 0.3]}, list("pqrs"), 1, 0, "auc", sensitivity_at_fpr, 1
    )
    assert (curve.score, curve.interval, curve.band) == (1.0, None, None)


def test_a_number_that_a_table_has_stands_at_the_curve_as_it_is():
    y, proba, groups = images_of_patients(60)
    stated = {"a": (0.812, (0.701, 0.934)), "b": (0.9, None)}
    picture = figures.roc(y, {"a": proba[:, 1], "b": proba[:, 1]}, groups, stated=stated)
    assert "a AUC 0.812 [0.701 to 0.934]; b AUC 0.900" in picture.alt


def crossings(figure):
    """Pairs of level texts that cover each other by more than a hair."""
    figure.set_dpi(72)
    shown = [
        t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and not t.get_rotation()
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    return [
        (a, b)
        for (a, one), (b, two) in itertools.combinations(boxes, 2)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 1.5 and min(one.y1, two.y1) - max(one.y0, two.y0) > 1.5
    ]


@pytest.mark.parametrize(("candidates", "classes"), [(2, 12), (12, 2)])
@pytest.mark.slow
def test_no_label_covers_another_and_every_picture_fits_a_phone(candidates, classes):
    names = tuple(f"candidate with a long name {i}" for i in range(candidates))
    for picture in gallery(names, tuple(f"class {i}" for i in range(classes))):
        width = float(re.search(r'width="([0-9.]+)pt"', picture.svg())[1])
        assert (picture.name, width) < (picture.name, 72 * 5.8)
        assert (picture.name, crossings(picture.figure)) == (picture.name, [])
        assert min(t.get_fontsize() for t in picture.figure.findobj(Text) if t.get_text()) >= 6.5


# Names that fit


@given(st.text(max_size=60), st.floats(0.3, 3))
def test_a_name_is_never_wider_than_its_room(name, inches):
    cut = fitted(name, inches)
    assert wide(cut) <= inches or cut == "…"


def test_names_that_begin_alike_stay_apart():
    names = [f"a rather long name of candidate {i}" for i in range(3)]
    assert len(set(distinct(names, 1.0))) == 3


def test_subsets_are_called_by_letters_and_the_key_says_which():
    names = ["Xception", "concat_svm:Xception+ResNet50@expand", "concat_svm:ResNet50+VGG19+Xception@expand"]
    short, key = abbreviated(names, 1.95)
    assert short == ["Xception", "concat_svm:A+C@expand", "concat_svm:A+B+C@expand"]
    assert key == "A ResNet50; B VGG19; C Xception"
    assert abbreviated(names, 9.0) == (names, "")


# What they show


def test_the_curves_are_those_of_scikit_learn():
    y, proba, groups = images_of_patients()
    values = proba[:, 1].round(2)
    (roc,) = measured(y, {"a": values}, groups, 1, 0, "auc", sensitivity_at_fpr, 1)
    (pr,) = measured(y, {"a": values}, groups, 1, 0, "average_precision", precision_at_recall, 1)
    false, found, _ = roc_curve(y, values, drop_intermediate=False)
    np.testing.assert_allclose(roc.seen, np.interp(GRID, false, found), atol=1e-12)
    assert roc.score == pytest.approx(roc_auc_score(y, values))
    precision, recall, _ = precision_recall_curve(y, values)
    # Where nothing is found, scikit-learn puts a precision of 1 that no threshold has.
    expected = [precision[np.flatnonzero(recall >= g - 1e-9)[-1]] for g in GRID[1:]]
    np.testing.assert_allclose(pr.seen[1:], expected, atol=1e-12)
    assert pr.score == pytest.approx(average_precision_score(y, values))


def test_more_than_two_classes_are_averaged_one_against_the_rest():
    y, proba, groups = images_of_patients(classes=3)
    (curve,) = measured(y, {"a": proba}, groups, 1, 0, "auc", sensitivity_at_fpr, 1)
    assert curve.score == pytest.approx(roc_auc_score(y, proba, multi_class="ovr"))
    parts = []
    for c in range(3):
        false, found, _ = roc_curve(y == c, proba[:, c], drop_intermediate=False)
        parts.append(np.interp(GRID, false, found))
    np.testing.assert_allclose(curve.seen, np.mean(parts, axis=0), atol=1e-12)


def test_bands_resample_patients_and_not_images():
    """Four copies of every image under one patient tell nothing new; taken for four patients they would."""
    y, proba, _ = images_of_patients(60)
    values, who = proba[:, 1], np.arange(60).astype(str)
    (once,) = measured(y, {"a": values}, who, 1, 0, "auc", sensitivity_at_fpr, 1)
    four = (np.repeat(y, 4), {"a": np.repeat(values, 4)})
    (copied,) = measured(*four, np.repeat(who, 4), 1, 0, "auc", sensitivity_at_fpr, 1)
    (fooled,) = measured(*four, None, 1, 0, "auc", sensitivity_at_fpr, 1)
    np.testing.assert_allclose(copied.band, once.band, atol=1e-9)
    assert copied.interval == pytest.approx(once.interval)
    assert np.mean(fooled.band[1] - fooled.band[0]) < 0.7 * np.mean(once.band[1] - once.band[0])


def test_the_band_holds_the_curve_of_most_other_samples():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 4000)
    values = truth + rng.normal(0, 1.2, 4000)
    whole = measured(truth, {"a": values}, None, 1, 0, "auc", sensitivity_at_fpr, 0)[0].seen
    inside = []
    for _ in range(20):
        some = rng.choice(4000, 150)
        (curve,) = measured(truth[some], {"a": values[some]}, None, 1, 0, "auc", sensitivity_at_fpr, 1)
        inside.append((curve.band[0] <= whole) & (whole <= curve.band[1]))
    assert 0.85 < np.mean(inside) <= 1.0


def test_different_lengths_are_refused():
    with pytest.raises(UsageError, match="differ in length"):
        figures.roc([0, 1, 1], {"a": [0.1, 0.2]}, ["p", "q", "r"])
    with pytest.raises(UsageError, match="does not fit 3 classes"):
        figures.confusion([[1, 2], [3, 4]], ["a", "b", "c"])
    with pytest.raises(UsageError, match="differ in length"):
        figures.embedding_map(np.zeros((5, 2)), {"label": ["a"]})
    with pytest.raises(UsageError, match="1 images have 2 captions"):
        figures.image_grid([np.zeros((9, 9), np.uint8)], ["a", "b"], name="g", title="t")


def test_the_calibration_error_in_the_legend_is_that_of_the_table():
    y, proba, _ = images_of_patients(300)
    part = curves(y, proba, proba.argmax(axis=1), 1)
    assert calibration_error(part["calibration"]) == pytest.approx(
        score(y, proba, np.ones((1, len(y))), 1)["ece"][0]
    )


def test_the_critical_difference_is_demsars():
    """JMLR 7, 2006: table 5(a), and the example of section 3.2.2 with four classifiers on 14 data sets."""
    quantiles = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for k, expected in quantiles.items():
        assert nemenyi(k, 10) / np.sqrt(k * (k + 1) / 60) == pytest.approx(expected, abs=1.1e-3)
    assert nemenyi(4, 14) == pytest.approx(1.25, abs=5e-3)


def test_ranks_are_shared_by_ties_and_a_lower_loss_can_be_better():
    table = np.array([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.5, 0.5, 0.5]])
    assert mean_ranks(-table).tolist() == pytest.approx([1.5, 1.5, 3.0])
    by_loss = figures.critical_difference(dict(zip("abc", table, strict=True)), metric="brier")
    assert "c 1.00" in by_loss.alt


@given(st.lists(st.floats(1, 9), min_size=1, max_size=9), st.floats(0.1, 5))
def test_bars_join_just_those_that_are_alike(ranks, difference):
    ranks = sorted(ranks)
    joined = {
        (a, b)
        for first, last in indistinguishable(ranks, difference)
        for a in range(first, last)
        for b in range(a + 1, last + 1)
    }
    pairs = itertools.combinations(range(len(ranks)), 2)
    assert joined == {(a, b) for a, b in pairs if ranks[b] - ranks[a] < difference}


def test_folds_are_said_not_to_be_independent():
    text = " ".join(words(figures.critical_difference({"a": [1.0, 0.9], "b": [0.8, 0.7], "c": [0.6, 0.8]})))
    assert "not independent data sets: descriptive" in text


def test_the_forest_puts_the_best_first_and_leaves_out_what_is_undefined():
    everyone = [candidate("low", ["A"], 0.6), candidate("high", "AB", 0.9), candidate("none", "AB", None)]
    picture = figures.forest(everyone)
    assert picture.alt.index("high 0.900 [0.850 to 0.940]") < picture.alt.index("low 0.600")
    assert "1 without a value are left out." in " ".join(words(picture))


def test_the_lattice_joins_subsets_that_differ_by_one():
    subsets = all_subsets(("A", "B", "C"))
    picture = figures.lattice(subsets)
    axes = picture.figure.axes[0]
    pairs = [line for line in axes.lines if line.get_label().startswith("_")]
    assert len(pairs) == 9
    assert {"A", "AB", "ABC"} <= set(words(picture))
    assert "7 subsets of 3 backbones: best A+B+C" in picture.alt


def test_the_lattice_is_about_one_strategy():
    others = [candidate("knn:A+B", ["A", "B"], 0.99, "knn")]
    assert "best A+B+C" in figures.lattice(all_subsets(("A", "B", "C")) + others).alt
    assert "best A+B with 0.990" in figures.lattice(all_subsets(("A", "B", "C")) + others, strategy="knn").alt


def test_the_front_holds_what_nothing_cheaper_surpasses():
    points = [(10.0, 0.7), (20.0, 0.6), (30.0, 0.9), (40.0, 0.8)]
    picture = figures.pareto(
        [{"backbones": [f"N{at}"], "milliseconds": m, "score": s} for at, (m, s) in enumerate(points)]
    )
    assert "N0 10 ms 0.700; N2 30 ms 0.900." in picture.alt


def test_the_diagram_adds_the_dimensions_up():
    picture = figures.fusion_diagram(
        SEVEN, "dropout 0.5, dense, sigmoid", ["covid", "normal"], inputs={"VGG19": 224}
    )
    assert {"14,144", "512 numbers", "covid"} & set(words(picture)) >= {"14,144", "covid"}
    assert "join to 14,144 numbers" in picture.alt
    assert "224 px → 512 numbers" in words(picture)


def test_no_image_leads_to_what_no_network_computed():
    picture = figures.fusion_diagram({"A": 512, "Theirs": 107}, "lda", ["covid"], tables=["Theirs"])
    assert picture.alt.startswith(
        "Each image goes through 1 frozen network, whose pooled vectors (A 512), beside what no network computed here"
        " (Theirs 107) join to 619 numbers"
    )
    arrows = [
        one.figure.axes[0].texts
        for one in (picture, figures.fusion_diagram({"A": 512, "B": 107}, "lda", ["x"]))
    ]
    assert len(arrows[0]) == len(arrows[1]) - 1


def test_at_decision_level_answers_are_joined_and_not_vectors():
    picture = figures.fusion_diagram(SEVEN, "vote", ["covid", "normal"], level="decision")
    assert "14,144" not in picture.alt + " ".join(words(picture))
    assert "each of which answers" in picture.alt


def test_a_confusion_matrix_reads_row_by_row():
    picture = figures.confusion([[8, 2], [1, 9]], ["covid", "normal"])
    assert "17 of 20 images answered right (8 of 10 covid, 9 of 10 normal)" in picture.alt
    assert [t for t in words(picture) if t.endswith("%")] == ["80 %", "20 %", "10 %", "90 %"]


def test_learning_curves_tell_the_best_epoch():
    assert "best 0.750 at epoch 2" in figures.accuracy_curves(HISTORY, name="a", title="A").alt
    assert "best 0.600 at epoch 2" in figures.loss_curves(HISTORY, name="l", title="L").alt
    broken = figures.loss_curves({"loss": [float("nan")], "val_loss": []}, name="l", title="L")
    assert "nan" in broken.alt


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 1), (16, 24, 3)])
def test_an_image_is_shown_pixel_by_pixel(shape):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    picture = figures.image_grid([pixels], ["one"], name="grid", title="One")
    (data,) = re.findall(r"base64,([^\"]+)", picture.svg())
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    expected = np.broadcast_to(pixels.reshape(16, 24, -1), (16, 24, 3))
    assert np.array_equal(shown, expected) or np.array_equal(shown[::-1], expected)


def test_large_images_are_shrunk_and_others_refused():
    picture = figures.image_grid([np.zeros((1000, 800), np.uint8)] * 4, list("abcd"), name="grid", title="t")
    assert len(picture.svg()) < 40_000
    with pytest.raises(UsageError, match="float64"):
        figures.image_grid([np.zeros((9, 9))], ["a"], name="grid", title="t")


# Maps


def test_the_map_of_principal_components_is_scikit_learns():
    X = RNG.normal(size=(40, 9)) * np.arange(1, 10)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = PCA(2, svd_solver="full").fit(scaled)
    places, axes = project(X, "pca")
    np.testing.assert_allclose(np.abs(places), np.abs(expected.transform(scaled)), atol=1e-9)
    assert f"{100 * expected.explained_variance_ratio_[0]:.0f} % of the variance" in axes


def test_tsne_keeps_clouds_apart_and_is_the_same_every_time():
    X = np.repeat(np.eye(3, 8) * 9, 12, axis=0) + RNG.normal(size=(36, 8)) * 0.1
    places, _ = project(X, "tsne", seed=4)
    assert np.array_equal(places, project(X, "tsne", seed=4)[0])
    centres = places.reshape(3, 12, 2).mean(axis=1)
    spread = places.reshape(3, 12, 2).std(axis=1).max()
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(centres, 2)) > 2 * spread


@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (4, 5), (12, 300)])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_images_or_few_columns_still_have_a_map(shape, method):
    X = RNG.normal(size=shape)
    picture = figures.embedding_map(X, {"label": ["a"] * shape[0]}, method)
    assert f"{shape[0]} images" in picture.alt


def test_equal_vectors_have_a_map():
    figures.embedding_map(np.ones((5, 3)), {"label": list("aabbb")}).svg()
    figures.embedding_map(np.ones((5, 3)), {"label": list("aabbb")}, "tsne").svg()


def test_many_images_become_a_bitmap():
    picture = figures.embedding_map(RNG.normal(size=(5000, 3)), {"label": ["a", "b"] * 2500})
    assert len(picture.svg()) < 300_000


def test_umap_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match="pip install 'featstore\\[umap\\]'"):
        figures.embedding_map(RNG.normal(size=(20, 3)), {"label": ["a"] * 20}, "umap")


@pytest.mark.slow
def test_umap_keeps_clouds_apart_and_is_the_same_every_time():
    pytest.importorskip("umap", reason="the extra umap is not installed")
    X = np.repeat(np.eye(3, 8) * 9, 12, axis=0) + RNG.normal(size=(36, 8)) * 0.1
    places, _ = project(X, "umap", seed=4)
    assert np.array_equal(places, project(X, "umap", seed=4)[0])
    centres = places.reshape(3, 12, 2).mean(axis=1)
    spread = places.reshape(3, 12, 2).std(axis=1).max()
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(centres, 2)) > 2 * spread
    figures.embedding_map(X[:4], {"label": list("aabb")}, "umap").svg()


def test_an_unknown_map_is_refused():
    with pytest.raises(UsageError, match="Choose one of: pca, tsne, umap"):
        figures.embedding_map(RNG.normal(size=(20, 3)), {"label": ["a"] * 20}, "isomap")
