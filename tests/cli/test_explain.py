"""Evidence maps: they add up to the logit for every linear strategy, look at the image, and hang on the head."""

import csv
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from commandline import featstore as command
from PIL import Image

import featstore
from featstore import phantom, registry
from featstore.api.explain import FINEST, ApproximateMaps, EvidenceMaps, add_maps, linear_strategies, overlay
from featstore.errors import UnknownNameError, UsageError
from featstore.fusion.strategy import FOLDER
from featstore.reporting.page.cases import MAPPED, mapped_rows
from featstore.reporting.run_record import read_record
from featstore.testing import WIDTHS, blocky, make_strategy

PATIENTS, SLICES, SIZE = 16, 2, 64
GRIDS = {"wide": (7, 7), "narrow": (8, 8), "noise": (10, 5)}


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A linear probe on both networks of the world."""
    out = tmp_path_factory.mktemp("explain") / "run"
    featstore.fuse(world.data, cache=world.cache, out=out, positive="covid", recipe="identity")
    return out


@pytest.fixture(scope="module")
def explained(world, run):
    """All slices of the ill, by path below the data set."""
    result = featstore.explain(run, world.data.parent / "covid")
    return {one.prediction.path.rpartition("/")[2]: one for one in result.explanations}


def in_logits(probability, name):
    """Logarithm of the odds, or of the probability less its mean over three classes and more."""
    logs = {label: np.log(p) for label, p in probability.items()}
    rest = [value for label, value in logs.items() if label != name]
    return logs[name] - rest[0] if len(rest) == 1 else logs[name] - np.mean([*logs.values()])


# The formula


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", linear_strategies())
def test_the_maps_of_every_linear_strategy_add_up_to_its_logit(name, n_classes):
    """On invented feature maps, of which the strategy learns from the means alone."""
    pooled, y = blocky(n=60, n_classes=n_classes)
    strategy = make_strategy(registry.load(FOLDER, name)).fit(pooled, y)
    classes = tuple("abc"[:n_classes])
    keys = [SimpleNamespace(backbone=SimpleNamespace(name=n, dimension=d)) for n, d in WIDTHS.items()]
    maps = EvidenceMaps(SimpleNamespace(strategy=strategy, classes=classes, keys=keys))
    rng = np.random.default_rng(0)
    row, vector = [], []
    for key in keys:
        network = SimpleNamespace(spec=key.backbone, with_maps=lambda w, g=GRIDS[key.backbone.name]: (w, g))
        weights = maps.of_network(network)
        features = rng.exponential(size=(*GRIDS[key.backbone.name], key.backbone.dimension))
        vector.append(features.mean(axis=(0, 1)))
        row += [vector[-1], (features @ weights).ravel()]
    found, parts = maps.split(np.concatenate(row))
    proba = strategy.predict_proba(found[None])[0]
    prediction = SimpleNamespace(label=classes[int(proba.argmax())])
    for label in classes:
        one = maps.explanation(prediction, label, found, parts)
        expected = in_logits(dict(zip(classes, proba, strict=True)), label)
        assert {n: m.shape for n, m in one.maps.items()} == GRIDS
        assert sum(m.mean() for m in one.maps.values()) + one.constant == pytest.approx(expected, abs=1e-5)
        assert one.total.mean() + one.constant == pytest.approx(expected, abs=1e-5)
        assert one.logit == pytest.approx(expected, abs=1e-6)
        assert abs(one.remainder) < 1e-5
    if n_classes == 2:
        first, second = (maps.explanation(prediction, label, found, parts) for label in classes)
        assert first.carried_by == second.carried_by
        np.testing.assert_allclose(first.total, -second.total, atol=1e-12)


def strategies(n_classes, seed=0):
    """Every strategy on the same rows, with the model that its maps are made of."""
    pooled, y = blocky(n=60, n_classes=n_classes)
    if seed:
        y = np.random.default_rng(seed).permutation(y)
    baseline = SimpleNamespace(distance=SimpleNamespace(mean=pooled.mean(axis=0).astype(np.float32)))
    keys = [SimpleNamespace(backbone=SimpleNamespace(name=n, dimension=d)) for n, d in WIDTHS.items()]
    for name in registry.names(FOLDER):
        strategy = make_strategy(registry.load(FOLDER, name)).fit(pooled, y)
        yield (
            name,
            SimpleNamespace(strategy=strategy, classes=tuple("abc"[:n_classes]), keys=keys, unlike=baseline),
        )


def maps_of(model, kind):
    """Explanation of one invented image for class b, by a kind of maps."""
    maps, rng, row, vector = kind(model), np.random.default_rng(0), [], []
    for key in model.keys:
        grid = GRIDS[key.backbone.name]
        network = SimpleNamespace(spec=key.backbone, with_maps=lambda weights, grid=grid: (weights, grid))
        features = rng.normal(size=(*grid, key.backbone.dimension)) * 2 + 0.5
        vector.append(features.mean(axis=(0, 1)))
        row += [vector[-1], (features @ maps.of_network(network)).ravel()]
    found, parts = maps.split(np.concatenate(row))
    proba = model.strategy.predict_proba(found[None])[0]
    one = maps.explanation(SimpleNamespace(label="b"), "b", found, parts)
    return one, in_logits(dict(zip(model.classes, proba, strict=True)), "b")


NETWORKS = {"concat_head", "attention_pooling"}
"""Linear heads that hold rows out to validate on."""


@pytest.mark.parametrize("n_classes", [2, 3])
def test_approximate_maps_say_how_far_they_add_up_and_of_a_linear_head_are_the_exact_ones(n_classes):
    """Of every strategy that there is; those whose answer jumps say so."""
    seen = {name: model for name, model in strategies(n_classes) if model.strategy.is_smooth}
    assert set(registry.names(FOLDER)) - set(seen) == {"knn", "gompertz_rank", "simpleshot", "vote_backbones"}
    for name, model in seen.items():
        one, logit = maps_of(model, ApproximateMaps)
        assert not one.exact, name
        assert one.logit == pytest.approx(logit, abs=1e-4), name
        added = sum(part.mean() for part in one.maps.values()) + one.constant
        assert added + one.remainder == pytest.approx(one.logit, abs=1e-9), name
        assert abs(one.remainder) <= 0.05 * abs(one.logit - one.constant) + 0.005, name
        if model.strategy.linear_logits() is None:
            continue
        exact, _ = maps_of(model, EvidenceMaps)
        assert exact.exact
        for network, part in one.maps.items():
            apart = part - exact.maps[network]
            assert np.ptp(apart) < 1e-4, name
            if name not in NETWORKS:  # which take off another mean of training: a constant for each network
                assert np.abs(apart).max() < 1e-4, name


@pytest.mark.slow
def test_heads_that_learned_shuffled_labels_have_other_approximate_maps():
    """Adebayo et al. 2018: a map that stays when the head is another would show the image, and not the model."""
    honest, shuffled = (
        {name: maps_of(model, ApproximateMaps)[0].total for name, model in strategies(2, seed=seed)}
        for seed in (0, 5)
    )
    for name in ("concat_mlp", "gated_head", "kernel_svm", "soft_vote", "logit_product"):
        one, other = honest[name].ravel(), shuffled[name].ravel()
        assert np.ptp(one) > 0.1
        likeness = (
            np.corrcoef(one, other)[0, 1] if np.ptp(other) else 0.0
        )  # what learns nothing has empty maps
        assert likeness < 0.5, f"{name}: correlation of the maps {likeness:.2f}"


def test_the_sum_of_maps_of_several_grids_keeps_their_means():
    """And of one grid it is their plain sum, cell by cell."""
    rng = np.random.default_rng(0)
    seven, eight, large = (rng.normal(size=(n, n)) for n in (7, 8, 131))
    np.testing.assert_allclose(add_maps([seven, seven]), 2 * seven, atol=1e-12)
    fine = add_maps([seven, eight])
    whole = np.kron(seven, np.ones((8, 8))) + np.kron(eight, np.ones((7, 7)))
    np.testing.assert_allclose(fine, whole, atol=1e-12)
    total = add_maps([seven, eight, large])
    assert total.shape == (FINEST, FINEST)
    assert total.mean() == pytest.approx(seven.mean() + eight.mean() + large.mean(), abs=1e-12)


# Networks


@pytest.mark.slow
def test_the_maps_of_real_networks_add_up_to_what_predict_says(world, run, explained):
    answers = featstore.predict(run, world.data.parent / "covid").predictions
    assert len(answers) == len(explained) == PATIENTS
    for answer in answers:
        one = explained[answer.path.rpartition("/")[2]]
        assert one.prediction == answer
        assert (one.evidence_for, set(one.maps)) == ("covid", {"MobileNet025", "EfficientNetLite0"})
        expected = in_logits(answer.probability, "covid")
        assert sum(part.mean() for part in one.maps.values()) + one.constant == pytest.approx(
            expected, abs=1e-5
        )
        assert one.total.mean() + one.constant == pytest.approx(expected, abs=1e-5)
        carrier = max(one.contributions, key=one.contributions.get)
        assert answer.label != "covid" or one.carried_by == carrier


@pytest.mark.slow
def test_the_weighted_maps_of_a_patients_images_add_up_to_the_patients_answer(world, tmp_path):
    """Of attention over images: each is explained by itself, and `predict` says its weight."""
    options = {"cache": world.cache, "recipe": "identity", "positive": "covid", "unit": "group"}
    featstore.fuse(world.data, strategy="attention_pooling", out=tmp_path / "run", **options)
    told = featstore.predict(tmp_path / "run", world.data)
    patient = next(one for one in told.patients if one.images > 1)
    mine = [p for p in told.predictions if p.patient == patient.patient]
    explained = featstore.explain(tmp_path / "run", [p.path for p in mine])
    logits = [one.total.mean() + one.constant for one in explained.explanations]
    assert [one.logit for one in explained.explanations] == pytest.approx(logits, abs=1e-5)
    pooled = np.dot([p.weight for p in mine], logits)
    assert pooled == pytest.approx(in_logits(patient.probability, "covid"), abs=1e-5)
    assert [one.prediction.weight for one in explained.explanations] == [1.0] * len(mine)
    for one in explained.explanations:
        assert in_logits(one.prediction.probability, "covid") == pytest.approx(one.logit, abs=1e-5)
    done = command("explain", tmp_path / "run", mine[0].path, "--out", tmp_path / "maps")
    assert "Each image by itself" in done.out


@pytest.mark.slow
def test_a_head_that_learned_shuffled_labels_has_other_maps(world, run, explained, tmp_path):
    """A map that stays when the head is another would show the image, and not the model (Adebayo et al. 2018)."""
    with world.data.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    patients = sorted({row["group"] for row in rows})
    truth = {row["group"]: row["label"] for row in rows}
    drawn = dict(
        zip(
            patients,
            np.random.default_rng(1).permutation([truth[p] for p in patients]).tolist(),
            strict=True,
        )
    )
    shuffled = world.data.with_name("shuffled.csv")
    with shuffled.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "label": drawn[row["group"]]} for row in rows)
    featstore.fuse(shuffled, cache=world.cache, out=tmp_path / "run", positive="covid", recipe="identity")
    others = featstore.explain(tmp_path / "run", world.data.parent / "covid").explanations
    likeness = [
        np.corrcoef(one.total.ravel(), explained[one.prediction.path.rpartition("/")[2]].total.ravel())[0, 1]
        for one in others
    ]
    assert np.mean(likeness) < 0.5, f"correlation of the maps: {np.mean(likeness):.2f}"


def evidence_in_lesions(explained, patients=PATIENTS):
    """Share of the positive evidence of EfficientNetLite0 that lies in lesions, and their share of the area."""
    shares = []
    for path, mask in phantom.lesion_masks(patients=patients, slices=SLICES, size=SIZE).items():
        positive = np.maximum(explained[path.removeprefix("covid/")].maps["EfficientNetLite0"], 0)
        weight = add_maps([positive, np.zeros((SIZE, SIZE))])
        fine = np.kron(mask, np.ones((len(weight) // SIZE,) * 2))
        shares.append(((weight * fine).mean(), weight.mean(), fine.mean()))
    inside, everything, area = np.mean(shares, axis=0)
    return inside / everything, area


@pytest.mark.slow
def test_the_evidence_of_the_trained_network_lies_in_the_lesions_more_than_their_area_does(explained):
    """Over all slices of the cases together."""
    share, area = evidence_in_lesions(explained)
    assert share > area, f"share of evidence {share:.3f}, of area {area:.3f}"


@pytest.mark.slow
def test_approximate_maps_of_real_networks_say_so_everywhere_and_lie_in_the_lesions(tmp_path):
    """Of a mean of probabilities, fitted on patients enough that the run keeps the mean of training."""
    data = featstore.make_phantoms(tmp_path / "ct", patients=48, slices=SLICES, size=SIZE)
    settings = {"cache": tmp_path / "cache", "recipe": "identity"}
    weights = {"MobileNet025": "random:1"}
    networks = ["EfficientNetLite0", "MobileNet025"]
    featstore.extract(data, backbones=networks, weights=weights, **settings)
    featstore.fuse(data, out=tmp_path / "run", positive="covid", strategy="soft_vote", **settings)
    cases = sorted((data.parent / "covid").iterdir())
    result = featstore.explain(tmp_path / "run", cases)
    for one in result.explanations:
        assert not one.exact
        assert one.total.mean() + one.constant + one.remainder == pytest.approx(one.logit, abs=1e-9)
        assert abs(one.remainder) < 0.01
    shown = {one.prediction.path.rpartition("/")[2]: one for one in result.explanations}
    share, area = evidence_in_lesions(shown, 48)
    assert share > area, f"share of evidence {share:.3f}, of area {area:.3f}"
    done = command("explain", tmp_path / "run", cases[0], "--out", tmp_path / "maps")
    assert "Approximate (integrated gradients)" in done.out
    (arrays,) = (tmp_path / "maps").glob("*.npz")
    with np.load(arrays, allow_pickle=False) as kept:
        assert not kept["exact"]
    page = featstore.write_report(
        tmp_path / "run", tmp_path / "r.html", data, tmp_path / "cache", with_images=True
    )
    part = page.read_text("utf-8").partition("Where the evidence lies</h")[2]
    assert part.index("Approximate (integrated gradients)") < part.index('class="pair"')


@pytest.mark.slow
def test_the_command_leaves_the_maps_that_python_gives(world, run, explained, tmp_path):
    name = next(iter(explained))
    (tmp_path / "scans").mkdir()
    shutil.copy(world.data.parent / "covid" / name, tmp_path / "scans" / "known.png")
    assert command("explain", run, tmp_path / "scans", "--out", tmp_path / "maps").code == 0
    (arrays,) = (tmp_path / "maps").glob("known*.npz")
    with np.load(arrays, allow_pickle=False) as kept:
        np.testing.assert_allclose(kept["total"], explained[name].total, atol=1e-5)


# In a report


def test_the_colours_of_an_overlay_are_those_of_the_evidence():
    grey = np.full((8, 6, 1), 100, np.uint8)
    evidence = np.array([[1.0, 0.0], [-0.5, -2.0]])
    picture = overlay(grey, evidence, 1.0)
    assert picture.shape == (8, 6, 3)
    assert (picture[:4, 3:] == 100).all(), "no evidence, no colour"
    red, weak, blue = picture[0, 0].astype(int), picture[-1, 0].astype(int), picture[-1, -1].astype(int)
    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]
    assert weak[2] - weak[0] < blue[2] - blue[0], "half as strong"
    np.testing.assert_array_equal(picture[-1, -1], overlay(grey, np.full((1, 1), -9.0), 1.0)[0, 0])


@pytest.mark.slow
def test_a_report_shows_the_evidence_beside_wrong_answers_and_beside_right_ones(world, run, tmp_path):
    text = featstore.write_report(
        run, tmp_path / "r.html", world.data, world.cache, with_images=True
    ).read_text("utf-8")
    part = text[text.index("Where the evidence lies</h") :]
    answers = read_record(run).predictions["test"]
    wrong, right = mapped_rows(answers)
    assert len(wrong) + len(right) == len(answers.ids) <= MAPPED
    assert part.count('class="pair"') == len(answers.ids)
    shown = featstore.explain(run, [world.data.parent / "covid", world.data.parent / "normal"]).explanations
    logits = {f"{one.logit:+.2f}" for one in shown}
    told = set(re.findall(r"Logit of covid ([+-]\d+\.\d\d)", part))
    assert told
    assert told <= logits
    plain = featstore.write_report(run, tmp_path / "plain.html", world.data, world.cache)
    assert "Where the evidence lies" not in plain.read_text("utf-8"), (
        "images are shown when they are asked for"
    )


# The command


@pytest.mark.slow
def test_the_command_answers_first_and_leaves_a_picture_and_the_maps(world, run, tmp_path):
    """For images from elsewhere; what does not decode is set aside, with exit code 3."""
    name = min(path.name for path in (world.data.parent / "covid").iterdir())
    scans = tmp_path / "scans"
    scans.mkdir()
    with Image.open(world.data.parent / "covid" / name) as image:
        image.resize((90, 70)).save(scans / "new scan.png")
    shutil.copy(world.data.parent / "covid" / name, scans / "known.png")
    (scans / "broken.png").write_bytes((scans / "known.png").read_bytes()[:300])
    done = command("explain", run, scans, "--out", tmp_path / "maps")
    assert done.code == 3, done.err
    header, *lines = done.out.splitlines()
    assert header.split()[:3] == ["image", "predicted", "P"], (
        "the paths of this test are long: names are short"
    )
    assert "* carries the answer." in done.out
    assert any("known.png" in line and "covid" in line for line in lines)
    assert "broken.png" in done.out
    assert "+ for covid, - against" in done.out
    files = sorted(path.name.partition("-")[0] + path.suffix for path in (tmp_path / "maps").iterdir())
    assert files == ["known.npz", "known.png", "new_scan.npz", "new_scan.png"]
    (arrays,) = (tmp_path / "maps").glob("known*.npz")
    with np.load(arrays, allow_pickle=False) as kept:
        np.testing.assert_allclose(kept["total"].mean() + kept["constant"], kept["logit"], atol=1e-5)
        assert str(kept["evidence_for"]) == "covid"
    (picture,) = (tmp_path / "maps").glob("new*.png")
    with Image.open(picture) as image:
        assert image.width > 800
    assert picture.stat().st_mode & 0o077 == 0
    again = command("explain", run, scans, "--out", tmp_path / "maps")
    assert again.code == 2
    assert "--overwrite" in again.err


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("vote_backbones", "vote_backbones has no map: its answer jumps"),
        ("soft_vote", "the run keeps no mean of its training images"),
    ],
)
def test_a_strategy_without_a_map_is_refused_in_two_lines_before_anything_is_loaded(
    world, tmp_path, strategy, why
):
    """Of a vote, and of a run whose patients are too few to keep a distance from training."""
    featstore.fuse(world.data, cache=world.cache, out=tmp_path / "vote", strategy=strategy, recipe="identity")
    done = command("explain", tmp_path / "vote", world.data.parent / "covid")
    assert (done.code, done.out) == (2, "")
    cause, remedy = done.err.splitlines()[-2:]
    assert why in cause
    assert "--strategy concat_logreg" in remedy
    assert "mean_logit" in remedy
    assert not (tmp_path / "vote-maps").exists()


def test_a_class_that_the_model_does_not_know_is_refused(world, run, tmp_path):
    with pytest.raises(UnknownNameError, match="knows no class 'covit'"):
        featstore.explain(run, world.data.parent / "covid", class_name="covit")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        featstore.explain(run, world.data.parent / "covid", out=tmp_path / "file")


@pytest.mark.slow
def test_a_network_without_pooling_is_refused():
    """ConvNeXt normalises behind its pooling; its vector is no mean of a map."""
    import keras

    from featstore.backbones.keras_backbone import KerasBackbone
    from featstore.errors import BackboneError

    inputs = keras.Input((8, 8, 3))
    behind = keras.layers.LayerNormalization()(keras.layers.GlobalAveragePooling2D()(inputs))
    network = KerasBackbone(SimpleNamespace(name="Normed"), 1, keras.Model(inputs, behind), None)
    with pytest.raises(BackboneError, match="no mean over positions"):
        network.with_maps(np.ones((3, 2)))
