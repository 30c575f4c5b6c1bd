"""Heads that hospitals share, the answers of their test patients, and the model and scores that follow."""

import json
from importlib.metadata import version

import numpy as np
import pytest
from commandline import featstore as command
from fakes import GridBackbone, spec, write_images
from msgspec import structs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import featstore
from featstore import serialization
from featstore.api.predict import read_model
from featstore.api.shared_heads import parse_answers, parse_head, read_answers, read_head
from featstore.errors import AuditError, RunError, UsageError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.reporting.terminal.results import head_answers_text
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

KEY = FeatureKey(
    spec("Alpha", weights=f"random:0 keras {version('keras')}"), IDENTITY, Decoding(decoder_version())
)
CLASSES = ("ill", "well", "worse")


def hospital(folder, seed, n_classes):
    """Two images of each of 36 patients, a third of whom are kept for testing; extracted."""
    table = write_images(folder, 72, seed, CLASSES[:n_classes])
    head, *lines = table.read_text().splitlines()
    told = [f"{line},{'test' if at // 2 >= 24 else 'train'}" for at, line in enumerate(lines)]
    table.write_text("\n".join([f"{head},split", *told]) + "\n")
    images = {record.id: record for record in scan(table).records}
    todo = image_blocks(plan([KEY], list(images), {}))
    networks = {KEY.backbone: GridBackbone(KEY.backbone)}
    pipeline.run_pass(todo, images, KEY.decoding, networks, Store(folder / "cache"), pipeline.NullProgress())
    return table


class Hospitals:
    """North and south: tables, heads and answers, made by the public functions."""

    def __init__(self, folder, n_classes):
        self.folder = folder
        self.tables = [hospital(folder / f"data{seed}", seed, n_classes) for seed in (1, 2)]
        self.caches = [table.parent / "cache" for table in self.tables]
        self.heads = [folder / "north.json", folder / "south.json"]
        for at, head in enumerate(self.heads):
            run = folder / f"run{at}"
            options = {"positive": "ill"} if n_classes == 2 else {}
            featstore.fuse(self.tables[at], cache=self.caches[at], out=run, **options)
            self.shared = featstore.share(run, head)
        self.files = [folder / "a.answers.json", folder / "b.answers.json"]
        self.told = [
            featstore.answers(table, self.heads, file, cache=cache)
            for table, file, cache in zip(self.tables, self.files, self.caches, strict=True)
        ]

    def vectors(self, at):
        """Vectors, classes, patients and sides of a hospital."""
        matrix = featstore.load_matrix(self.tables[at], cache=self.caches[at], seeds=())
        tested = np.array([record.split == "test" for record in matrix.records])
        return matrix.X, matrix.y, matrix.groups, tested


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return Hospitals(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return Hospitals(tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(params=["two", "three"])
def hospitals(request):
    return request.getfixturevalue(request.param)


def own_logits(hospitals, of, at):
    """Mean logits of the test patients of a hospital by the head of another, computed anew by scikit-learn."""
    X, y, _, tested = hospitals.vectors(of)
    train = X[~tested].astype(float)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0) / np.sqrt(X.shape[1])
    model = LogisticRegression(C=5.0, tol=1e-10, max_iter=10_000).fit((train - mean) * scale, y[~tested])
    X, y, groups, tested = hospitals.vectors(at)
    logits = model.decision_function((X[tested] - mean) * scale).reshape(tested.sum(), -1)
    names, first = np.unique(groups[tested], return_index=True)
    means = np.array([logits[groups[tested] == name].mean(axis=0) for name in names])
    return means, y[tested][first]


def test_answers_are_those_of_each_head_to_each_patient_kept_for_testing(hospitals):
    for at, file in enumerate(hospitals.files):
        found = read_answers(file)
        expected = np.stack([own_logits(hospitals, of, at)[0] for of in (0, 1)], axis=1)
        y = own_logits(hospitals, 0, at)[1]
        assert len(found.y) == 12
        for label in np.unique(y):
            mine, theirs = found.logits[found.y == label], expected[y == label]
            for part in range(theirs.shape[2]):
                centred = [x - x.mean(axis=2, keepdims=True) * (x.shape[2] > 1) for x in (mine, theirs)]
                pairs = [np.sort(x[:, head, part]) for x in centred for head in (0, 1)]
                np.testing.assert_allclose(pairs[0], pairs[2], atol=1e-3)
                np.testing.assert_allclose(pairs[1], pairs[3], atol=1e-3)


def test_the_model_is_the_mean_of_the_heads_and_its_scores_are_those_of_the_answers(two, tmp_path):
    merged = featstore.fuse_from_sites(two.files, tmp_path / "run")
    model = read_model(tmp_path / "run")
    parts = [read_head(head).linear for head in two.heads]
    X = two.vectors(0)[0]
    mean = np.mean([part.decision(X) for part in parts], axis=0)[:, 0]
    np.testing.assert_allclose(model.strategy.predict_proba(X)[:, 1], 1 / (1 + np.exp(-mean)), atol=1e-9)
    both = [read_answers(file) for file in two.files]
    y = np.concatenate([one.y for one in both])
    logits = np.concatenate([one.logits for one in both])[:, :, 0]
    assert merged.patients == {"ill": 12, "well": 12}
    assert merged.scores["auc"].value == pytest.approx(roc_auc_score(y == 0, -logits.mean(axis=1)))
    for at, head in enumerate(merged.heads):
        assert head.name == ("north", "south")[at]
        assert head.score.value == pytest.approx(roc_auc_score(y == 0, -logits[:, at]))
        assert head.delta == pytest.approx(merged.scores["auc"].value - head.score.value)
        for place, one in zip(merged.hospitals, both, strict=True):
            own = roc_auc_score(one.y == 0, -one.logits[:, at, 0])
            assert head.by_hospital[place].value == pytest.approx(own)
    assert merged.hospitals == ("a", "b")


def test_three_classes_have_one_logit_each_and_a_model(three, tmp_path):
    merged = featstore.fuse_from_sites(three.files, tmp_path / "run")
    assert merged.positive is None
    assert merged.scores["auc"].value is not None
    model = read_model(tmp_path / "run")
    parts = [read_head(head).linear for head in three.heads]
    X = three.vectors(1)[0]
    logits = np.mean([part.decision(X) for part in parts], axis=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.strategy.predict_proba(X), expected, atol=1e-9)


def test_no_file_holds_a_path_a_name_or_a_vector(two):
    for at, file in enumerate([*two.heads, *two.files]):
        text = file.read_text()
        for line in two.tables[at % 2].read_text().splitlines()[1:]:
            path, _, patient, _ = line.split(",")
            assert path not in text
            assert f'"{patient}"' not in text
        assert str(two.folder) not in text
        assert file.stat().st_mode & 0o077 == 0
    logits = read_answers(two.files[0]).logits
    order = np.lexsort((*logits.reshape(len(logits), -1).T, read_answers(two.files[0]).y))
    assert order.tolist() == list(range(len(logits))), "patients stand in an order that tells nothing"


def test_images_that_were_learned_from_are_not_answered(two, tmp_path):
    """Law 6: the answers are of the split test alone, and a data set without one is refused."""
    assert [one.images for one in two.told] == [24, 24]
    table = two.tables[0].with_name("plain.csv")
    lines = two.tables[0].read_text().splitlines()
    table.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    with pytest.raises(UsageError, match="nobody knows which patients a head has learned from") as error:
        featstore.answers(table, two.heads, tmp_path / "site.json", cache=two.caches[0])
    assert "featstore split DATA --out split.csv" in error.value.remedy
    assert not (tmp_path / "site.json").exists()


def forged(file, tmp_path, change):
    """The same file with other content, sealed again as a forger would."""
    page = serialization.unseal(serialization.read(file))
    change(page)
    other = tmp_path / f"forged-{file.name}"
    other.write_text(json.dumps(serialization.seal(page)))
    return other


def test_heads_that_do_not_belong_together_are_refused(two, three, tmp_path):
    first, second = two.heads
    spec_of = serialization.unseal(serialization.read(second))["backbones"][0]
    for change, why in (
        (lambda page: page.update(positive="well"), "another positive class"),
        (
            lambda page: page.update(backbones=[{**spec_of, "weights": "random:9"}]),
            "other networks or weights",
        ),
        (lambda page: page.update(name="north"), "Two heads are called north"),
    ):
        other = forged(second, tmp_path, change)
        with pytest.raises(UsageError, match=why):
            featstore.answers(two.tables[0], [first, other], tmp_path / "x.json", cache=two.caches[0])
    with pytest.raises(UsageError, match="other classes"):
        featstore.answers(two.tables[0], [first, three.heads[1]], tmp_path / "x.json", cache=two.caches[0])
    with pytest.raises(UsageError, match="1 heads are none"):
        featstore.answers(two.tables[0], [first], tmp_path / "x.json", cache=two.caches[0])
    with pytest.raises(
        UsageError, match="The data set has the classes ill, well, worse, the heads ill, well"
    ):
        featstore.answers(three.tables[0], two.heads, tmp_path / "x.json", cache=three.caches[0])
    both = [forged(head, tmp_path, lambda page: page["decoding"].update(range=[0, 9])) for head in two.heads]
    with pytest.raises((UsageError, RunError)):
        featstore.answers(two.tables[0], both, tmp_path / "x.json", cache=two.caches[0])


def test_answers_that_do_not_belong_together_are_refused_and_leave_no_run(two, three, tmp_path):
    first, second = two.files
    turned = tmp_path / "turned.json"
    featstore.answers(two.tables[1], two.heads[::-1], turned, cache=two.caches[1])
    for other, why in (
        (first, "hold the same answers"),
        (turned, "answers of other heads than"),
        (three.files[1], "answers of other heads than"),
    ):
        with pytest.raises(UsageError, match=why):
            featstore.fuse_from_sites([first, other], tmp_path / "run")
    with pytest.raises(RunError, match="holds no answers of a hospital: its format is 'featstore head 1'"):
        featstore.fuse_from_sites([first, two.heads[1]], tmp_path / "run")
    with pytest.raises(UsageError, match="1 files make no model"):
        featstore.fuse_from_sites([second], tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_head_whose_answers_no_file_can_hold_is_named(two, tmp_path):
    loud = forged(two.heads[0], tmp_path, lambda page: page["linear"].update(intercept=[1e20]))
    with pytest.raises(RunError, match=r"forged-.* gives patients logits beyond all measure"):
        featstore.answers(two.tables[0], [loud, two.heads[1]], tmp_path / "x.json", cache=two.caches[0])
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page.update(format="something else"),
        lambda page: page.update(name="a\x1b[2J"),
        lambda page: page.update(name="../north"),
        lambda page: page.update(strategy=7),
        lambda page: page.update(classes=["well", "ill"]),
        lambda page: page.update(positive="none of them"),
        lambda page: page.update(images=0),
        lambda page: page.update(images=True),
        lambda page: page.update(backbones=[]),
        lambda page: page.update(backbones=page["backbones"] * 2),
        lambda page: page["linear"].update(coef=[[1.0]]),
        lambda page: page["linear"].update(coef="no"),
        lambda page: page["linear"].update(intercept=[1e999]),
        lambda page: page["linear"].update(intercept=[-1e308]),
        lambda page: page["linear"]["scale"].__setitem__(0, 1e308),
        lambda page: page["linear"].pop("scale"),
    ],
)
def test_a_forged_head_is_refused_in_one_line(two, tmp_path, change):
    page = serialization.unseal(serialization.read(two.heads[0]))
    change(page)
    with pytest.raises(RunError, match="holds no head of a hospital"):
        parse_head(page, tmp_path / "head.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page.update(format="something else"),
        lambda page: page.update(heads=page["heads"][:1]),
        lambda page: page.update(heads={}),
        lambda page: page["heads"][0].update(name=""),
        lambda page: page.update(classes_of=[0.5] * 12),
        lambda page: page.update(classes_of=[2] * 12),
        lambda page: page.update(classes_of=[-1] * 12),
        lambda page: page.update(classes_of=[]),
        lambda page: page.update(logits=page["logits"][:3]),
        lambda page: page.update(logits=[[[1e9]] * 2] * 12),
        lambda page: page.update(logits=[[["a"]] * 2] * 12),
        lambda page: page.update(images=3),
        lambda page: page.pop("has_patients"),
    ],
)
def test_forged_answers_are_refused_in_one_line(two, tmp_path, change):
    page = serialization.unseal(serialization.read(two.files[0]))
    change(page)
    with pytest.raises(RunError, match="holds no answers of a hospital"):
        parse_answers(page, tmp_path / "site.json")


def test_a_changed_or_absent_file_is_refused(two, tmp_path):
    file = tmp_path / "head.json"
    file.write_text(two.heads[0].read_text().replace('"images": 48', '"images": 49'))
    for path in (file, tmp_path / "none.json", tmp_path):
        with pytest.raises(RunError, match="holds no head of a hospital"):
            read_head(path)
    with pytest.raises(RunError, match="holds no answers of a hospital"):
        read_answers(tmp_path / "none.json")


def test_what_is_no_head_of_one_hospital_is_not_shared(two, tmp_path):
    options = {"cache": two.caches[0], "positive": "ill"}
    featstore.fuse(two.tables[0], strategy="knn", out=tmp_path / "knn", **options)
    featstore.fuse(two.tables[0], strategy="mean_vector", unit="group", out=tmp_path / "patients", **options)
    for name in ("knn", "patients"):
        with pytest.raises(UsageError, match="not linear in the vectors of an image by itself") as error:
            featstore.share(tmp_path / name, tmp_path / "x.json")
        assert "--strategy concat_logreg" in error.value.remedy
    featstore.fuse_from_sites(two.files, tmp_path / "both")
    with pytest.raises(RunError, match="holds a model of several hospitals"):
        featstore.share(tmp_path / "both", tmp_path / "x.json")
    with pytest.raises(UsageError, match="A head cannot be called"):
        featstore.share(two.folder / "run0", tmp_path / "x.json", name="a/b")
    with pytest.raises(UsageError, match="is there already"):
        featstore.share(two.folder / "run0", two.heads[0])


def test_a_patient_of_two_classes_is_refused(two, tmp_path):
    table = two.tables[0].with_name("torn.csv")
    table.write_text(two.tables[0].read_text().replace(",well,p35,", ",well,p34,"))
    with pytest.raises(AuditError, match="images of several classes"):
        featstore.answers(table, two.heads, tmp_path / "x.json", cache=two.caches[0])


def test_the_command_line_goes_all_the_way(two, tmp_path):
    files = []
    for at, name in enumerate(("east", "west")):
        done = command("share", two.folder / f"run{at}", "--out", tmp_path / f"{name}.json")
        assert done.code == 0, done.err
        told = " ".join(done.out.split())
        assert f"the head {name}, weights of concat_logreg on Alpha, fitted on 48 images" in told
    heads = f"{tmp_path / 'east.json'},{tmp_path / 'west.json'}"
    for at, (table, cache) in enumerate(zip(two.tables, two.caches, strict=True)):
        files.append(tmp_path / f"site{at}.json")
        done = command("answers", table, "--heads", heads, "--out", files[-1], "--cache", cache)
        assert done.code == 0, done.err
        first = " ".join(done.out.split())
        assert first.startswith("Of 2 heads ")
        assert "12 patients (ill 6, well 6) of the split test" in first
        assert "not anonymous" in first
    done = command("fuse", "--from-sites", *files, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert told.startswith("The mean of 2 heads has an AUC of ")
    assert "on 24 patients (ill 12, well 12) of 2 hospitals that no head has learned from" in told
    assert "at site0 at site1" in told
    again = command("fuse", "--from-sites", *files, "--out", tmp_path / "run")
    assert (again.code, "--overwrite" in again.err) == (2, True)
    page = json.loads(
        command("fuse", "--from-sites", *files, "--out", tmp_path / "run", "--overwrite", "--json").out
    )
    assert [head["name"] for head in page["heads"]] == ["east", "west"]


def test_without_patients_of_every_class_there_is_a_model_and_no_auc(two, tmp_path):
    """Answers of the ill alone: nothing to rank, which is said in place of a number."""
    alone = []
    for file in two.files:
        page = serialization.unseal(serialization.read(file))
        ill = [at for at, label in enumerate(page["classes_of"]) if label == 0]
        page.update(classes_of=[0] * len(ill), logits=[page["logits"][at] for at in ill])
        alone.append(tmp_path / file.name)
        alone[-1].write_text(json.dumps(serialization.seal(page)))
    done = command("fuse", "--from-sites", *alone, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert told.startswith("One model of 2 heads; no AUC on 12 patients (ill 12, well 0) of 2 hospitals")
    assert "AUC of -" not in told
    assert read_model(tmp_path / "run").classes == ("ill", "well")


def dealt_anew(two, tmp_path, name, tested):
    """The table of the north with another split, by number of patient."""
    table = two.tables[0].with_name(name)
    head, *lines = two.tables[0].read_text().splitlines()
    told = [
        f"{line.rsplit(',', 1)[0]},{'test' if tested(at // 2) else 'train'}" for at, line in enumerate(lines)
    ]
    table.write_text("\n".join([head, *told]) + "\n")
    return table


def test_patients_that_the_own_head_learned_from_are_left_out_and_counted(two, tmp_path):
    """Of 18 patients of another split the head was fitted on 12, so that 6 are answered."""
    table = dealt_anew(two, tmp_path, "anew.csv", lambda patient: patient >= 12 and patient < 30)
    options = {"cache": two.caches[0], "overwrite": True}
    out = tmp_path / "site.json"
    blind = featstore.answers(table, two.heads, out, **options)
    assert (sum(blind.patients.values()), blind.own, blind.learned) == (18, None, 0)
    told = featstore.answers(table, two.heads, out, own=two.folder / "run0", **options)
    assert (sum(told.patients.values()), told.images, told.own, told.learned) == (6, 12, "north", 12)
    kept = dealt_anew(two, tmp_path, "kept.csv", lambda patient: patient >= 24 and patient < 30)
    plain = featstore.answers(kept, two.heads, tmp_path / "kept.json", cache=two.caches[0])
    assert told.scores == plain.scores
    assert read_answers(out).logits.tolist() == read_answers(tmp_path / "kept.json").logits.tolist()


def test_patients_are_known_by_one_image_or_by_their_name(two, tmp_path):
    """A copy under a new name of a patient, and a new picture of an old patient, are both left out with the rest."""
    renamed = two.tables[0].with_name("renamed.csv")
    lines = two.tables[0].read_text().splitlines()
    # a test patient gets a picture of a patient of training; another one is now called as one of training
    lines = [line.replace(",p0,train", ",p24,test") if line.startswith("ill/000") else line for line in lines]
    lines = [line.replace(",p27,test", ",p3,test") for line in lines]
    renamed.write_text("\n".join(line for line in lines if ",p3,train" not in line) + "\n")
    told = featstore.answers(
        renamed, two.heads, tmp_path / "site.json", own=two.folder / "run0", cache=two.caches[0]
    )
    assert (sum(told.patients.values()), told.learned) == (10, 2)


def test_an_own_head_that_has_learned_from_all_of_them_is_refused(two, tmp_path):
    table = dealt_anew(two, tmp_path, "turned.csv", lambda patient: patient < 24)
    with pytest.raises(AuditError, match="has learned from all 48 images of the split test"):
        featstore.answers(table, two.heads, tmp_path / "x.json", own=two.folder / "run0", cache=two.caches[0])
    assert not (tmp_path / "x.json").exists()


def test_a_run_that_none_of_the_heads_is_of_is_refused(two, tmp_path):
    """By the digest of what the head says, whatever it is called: another fit of the same images is another head."""
    featstore.fuse(two.tables[0], cache=two.caches[0], out=tmp_path / "lda", strategy="lda", positive="ill")
    options = {"cache": two.caches[0], "overwrite": True}
    with pytest.raises(UsageError, match="None of the heads was shared from"):
        featstore.answers(two.tables[0], two.heads, tmp_path / "x.json", own=tmp_path / "lda", **options)
    other = forged(two.heads[0], tmp_path, lambda page: page.update(name="elsewhere"))
    told = featstore.answers(
        two.tables[0], [two.heads[1], other], tmp_path / "x.json", own=two.folder / "run0", **options
    )
    assert (told.own, told.learned, sum(told.patients.values())) == ("elsewhere", 0, 12)
    page = serialization.unseal(serialization.read(tmp_path / "x.json"))
    page["own"] = "nobody"
    with pytest.raises(RunError, match="own head is none of its heads"):
        parse_answers(page, tmp_path / "x.json")


def test_of_heads_that_do_alike_none_is_called_the_best(two):
    told = two.told[0]
    score = told.scores["north"]
    text = " ".join(head_answers_text(structs.replace(told, scores={"north": score, "south": score})).split())
    assert text.startswith("Of 2 heads north and south have the highest AUC here, ")


def test_screens_say_whether_the_own_head_was_looked_at(two, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    asked = ["--heads", ",".join(map(str, two.heads)), "--cache"]
    done = command("answers", two.tables[0], *asked, two.caches[0], "--out", files[0])
    assert "cannot be told whether a head has learned from these patients" in done.out
    own = ["--own", two.folder / "run1"]
    done = command("answers", two.tables[1], *asked, two.caches[1], *own, "--out", files[1])
    assert "Your own head, south, has learned from none of these patients." in done.out
    table = dealt_anew(two, tmp_path, "screen.csv", lambda patient: patient >= 12 and patient < 30)
    own = ["--own", two.folder / "run0"]
    done = command("answers", table, *asked, two.caches[0], *own, "--out", tmp_path / "c.json")
    assert "12 patients were left out: your own head, north, has learned from them" in done.out
    done = command("fuse", "--from-sites", *files, "--out", tmp_path / "run")
    assert "Not checked at a: whether its own head has learned from its test patients" in done.out
