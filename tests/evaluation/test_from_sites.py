"""Several hospitals' moments through the public functions and the command line: one model, and nobody's vector."""

import json

import numpy as np
import pytest
from commandline import featstore as command
from PIL import Image

import featstore
from featstore import serialization
from featstore.api.moments import read_moments
from featstore.api.predict import read_model
from featstore.errors import RunError, UsageError
from featstore.fusion.moments import ClassMoments, discriminants, sign_projection

PATIENTS, SLICES, WIDTH, KEPT = 24, 2, 40, 4


def hospital(folder, seed, *, split=False):
    """A data set of small pictures whose vectors know something of the class."""
    rng = np.random.default_rng(seed)
    names, labels, lines = [], [], ["path,label,group" + (",split" if split else "")]
    for number in range(PATIENTS * SLICES):
        patient = number // SLICES
        label = ("covid", "normal")[patient % 2]
        name = f"{label}/secret-name-{seed}-{number}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).save(path)
        names.append(name)
        labels.append(patient % 2)
        part = f",{'test' if patient >= PATIENTS * 2 // 3 else 'train'}" if split else ""
        lines.append(f"{name},{label},secret-patient-{seed}-{patient}{part}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    X = rng.normal(size=(len(names), WIDTH)) + np.outer(labels, np.linspace(-1, 1, WIDTH)) + 5
    return table, X.astype(np.float32), np.array(labels), names


def imported(table, X, names):
    """Bring the vectors into the hospital's cache."""
    vectors = table.with_name("vectors.npz")
    np.savez(vectors, features=X, filenames=np.array(names))
    featstore.import_features(table, vectors, name="Theirs", cache=table.parent / "cache")


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Two hospitals, each with its data, vectors, labels and file."""
    found = []
    for seed in (1, 2):
        table, X, y, names = hospital(tmp_path_factory.mktemp(f"site{seed}"), seed)
        imported(table, X, names)
        file = table.with_name("site.json")
        told = featstore.moments(table, file, dimensions=KEPT, cache=table.parent / "cache")
        found.append((table, X, y, file, told))
    _of_one_network(found[0][3], found[1][3])
    return found


def _of_one_network(first, second):
    """Of imported vectors the digest of their file stands for the network; here both are taken for one."""
    page = serialization.unseal(serialization.read(second))
    page["backbones"] = serialization.unseal(serialization.read(first))["backbones"]
    second.write_text(json.dumps(serialization.seal(page), indent=1) + "\n")


def test_the_model_of_two_hospitals_is_that_of_all_their_vectors(sites, tmp_path):
    merged = featstore.fuse_from_sites([file for *_, file, _ in sites], tmp_path / "run")
    X, y = (np.concatenate([site[at] for site in sites]) for at in (1, 2))
    P = sign_projection("Theirs", WIDTH, KEPT, 0)
    Z = X.astype(float) @ P
    both = [ClassMoments.of(Z[y == at], np.flatnonzero(y == at) // SLICES) for at in (0, 1)]
    expected, shrinkage = discriminants(both, [P])
    model = read_model(tmp_path / "run")
    assert (model.classes, model.positive) == (("covid", "normal"), "covid")
    np.testing.assert_allclose(model.strategy.predict_proba(X), expected.proba(X), atol=1e-8)
    assert merged.shrinkage == pytest.approx(shrinkage)
    assert merged.sites == 2
    assert merged.patients == {"covid": PATIENTS, "normal": PATIENTS}
    assert merged.images == {"covid": PATIENTS * SLICES, "normal": PATIENTS * SLICES}


def test_a_file_holds_no_path_no_name_and_no_vector(sites):
    _, X, _, file, told = sites[0]
    text = file.read_text()
    assert "secret" not in text
    assert str(file.parent) not in text
    assert file.stat().st_mode & 0o077 == 0
    numbers = np.array(
        [number for one in json.loads(text)["moments"] for number in np.ravel([one["mean"], *one["scatter"]])]
    )
    vectors = (X.astype(float) @ sign_projection("Theirs", WIDTH, KEPT, 0)).ravel()
    assert np.abs(numbers[:, None] - vectors).min() > 1e-9
    assert told.size_bytes == len(text)


def test_images_of_the_test_split_are_kept_out_of_it(tmp_path):
    table, X, y, names = hospital(tmp_path, 3, split=True)
    imported(table, X, names)
    told = featstore.moments(table, tmp_path / "site.json", dimensions=KEPT, cache=tmp_path / "cache")
    train = np.arange(PATIENTS * SLICES) < PATIENTS * 2 // 3 * SLICES
    assert told.kept_for_testing == (~train).sum()
    first = read_moments(tmp_path / "site.json")["moments"][0]
    own = X[train & (y == 0)].astype(float) @ sign_projection("Theirs", WIDTH, KEPT, 0)
    np.testing.assert_allclose(first.mean, own.mean(axis=0))


def test_so_few_patients_that_they_could_be_told_are_refused_with_what_works(sites):
    table, *_, file, _ = sites[0]
    settings = {"cache": file.parent / "cache", "overwrite": True}
    with pytest.raises(UsageError, match="covid has 12 patients, and 13 dimensions") as caught:
        featstore.moments(table, file.with_name("more.json"), dimensions=13, **settings)
    assert "--dimensions 12" in caught.value.remedy
    assert not file.with_name("more.json").exists()
    featstore.moments(table, file.with_name("more.json"), dimensions=12, **settings)


def changed(file, **parts):
    """The same file with other content, sealed again as a forger would."""
    content = serialization.unseal(serialization.read(file))
    other = file.with_name(f"changed-{serialization.short_digest(list(parts))}.json")
    other.write_text(json.dumps(serialization.seal({**content, **parts})))
    return other


def test_what_does_not_belong_together_is_refused_and_leaves_no_run(sites, tmp_path):
    first, second = (site[3] for site in sites)
    content = serialization.unseal(serialization.read(second))
    spec = content["backbones"][0]
    for other, why in (
        (first, "hold the same moments"),
        (changed(second, classes=["a", "b"], positive=None), "other classes"),
        (changed(second, positive="normal"), "another positive class"),
        (changed(second, projection={"dimensions": KEPT, "seed": 9}), "another projection"),
        (changed(second, backbones=[{**spec, "weights": "f" * 64}]), "other networks or weights"),
    ):
        with pytest.raises(UsageError, match=why):
            featstore.fuse_from_sites([first, other], tmp_path / "run")
        assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(UsageError, match="1 files make no model"):
        featstore.fuse_from_sites([first], tmp_path / "run")


@pytest.mark.parametrize(
    "forge",
    [
        lambda page: page.update(format="something else"),
        lambda page: page.update(classes=["normal", "covid"]),
        lambda page: page.update(classes="covid"),
        lambda page: page.update(moments=page["moments"][:1]),
        lambda page: page["moments"][0].update(patients=3),
        lambda page: page["moments"][0].update(patients=True),
        lambda page: page["moments"][0].update(mean=[1e300] * KEPT),
        lambda page: page["moments"][0].update(mean=["a"] * KEPT),
        lambda page: page["moments"][0].update(scatter=(-np.eye(KEPT)).tolist()),
        lambda page: page["moments"][0].update(scatter=[[0.0] * KEPT]),
        lambda page: page.update(projection={"dimensions": 10**9, "seed": 0}),
        lambda page: page.update(projection={"dimensions": KEPT, "seed": -1}),
        lambda page: page.update(views=[]),
        lambda page: page.update(backbones=[]),
        lambda page: page.update(backbones=page["backbones"] * 2),
        lambda page: page.pop("decoding"),
    ],
)
def test_a_forged_file_is_refused_in_one_line(sites, tmp_path, forge):
    page = serialization.unseal(serialization.read(sites[0][3]))
    forge(page)
    file = tmp_path / "forged.json"
    file.write_text(json.dumps(serialization.seal(page)))
    with pytest.raises(RunError, match="holds no moments of a hospital"):
        read_moments(file)


def test_a_changed_or_absent_file_is_refused(sites, tmp_path):
    file = tmp_path / "site.json"
    file.write_text(sites[0][3].read_text().replace('"patients": 12', '"patients": 13'))
    for path in (file, tmp_path / "none.json", tmp_path):
        with pytest.raises(RunError, match="holds no moments of a hospital"):
            read_moments(path)


def test_the_command_line_says_what_was_written_and_that_nothing_is_tested(sites, tmp_path):
    table, *_, file, _ = sites[0]
    site = tmp_path / "a.json"
    done = command("moments", table, "--out", site, "--dimensions", KEPT, "--cache", file.parent / "cache")
    assert done.code == 0, done.err
    assert str(site) in done.out
    assert "24 patients (covid 12, normal 12)" in " ".join(done.out.split())
    assert "not anonymous" in done.out
    _of_one_network(sites[0][3], site)
    done = command("fuse", "--from-sites", site, sites[1][3], "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "48 patients (covid 24, normal 24) at 2 hospitals; nobody has tested it" in " ".join(
        done.out.split()
    )
    again = command("fuse", "--from-sites", site, sites[1][3], "--out", tmp_path / "run")
    assert (again.code, "--overwrite" in again.err) == (2, True)
    for option in (["--strategy", "knn"], ["--calibrate", "platt"], ["--details"], ["--suffix", ".png"]):
        done = command("fuse", "--from-sites", site, sites[1][3], "--out", tmp_path / "other", *option)
        assert (done.code, "options of other fits" in " ".join(done.err.split())) == (2, True)
    assert not (tmp_path / "other").exists()
    settings = tmp_path / "settings.toml"
    settings.write_text('positive = "covid"\n')
    done = command(
        "fuse", "--from-sites", site, sites[1][3], "--out", tmp_path / "more", "--config", settings
    )
    assert done.code == 0, done.err
    two = command("fuse", table, table)
    assert two.code == 2
    assert "takes one data set" in two.err
    told = command("report", tmp_path / "run")
    assert told.code == 1
    assert "no report" in told.err
