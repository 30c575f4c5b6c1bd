"""`featstore paper`: every figure by its number, three numbers side by side, and no silence about what is missing."""

import csv
import json
import re
import stat

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta

from featstore import runs as run
from featstore.api.report import write_report
from featstore.errors import AbsentWeightsError, AuditError, UnknownNameError, UsageError, WeightsError
from featstore.images.scan import scan
from featstore.reporting.terminal.results import reproduction_text
from featstore.reproduction import paper as module
from featstore.reproduction.paper import convert
from featstore.reproduction.protocol import BY_FIGURE, sample
from featstore.serialization import digest_file

from .conftest import ABSENT, Grids


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes longest, and these tests do not look at it."""
    monkeypatch.setattr(module, "draw_all", lambda *_: ())


def document(world, *steps, name=run.METRICS):
    return json.loads((world.arguments["out"].joinpath(*steps) / name).read_text())


@pytest.mark.slow
def test_every_figure_of_the_paper_has_a_file_by_its_number_and_a_line_in_the_index(world):
    index = [drawn for drawn in document(world)["figures"] if drawn["number"] is not None]
    assert [drawn["number"] for drawn in index] == list(range(1, 24))
    for drawn in index:
        assert re.fullmatch(rf"figures/figure-{drawn['number']:02d}-[a-z0-9-]+\.svg", drawn["file"])
        assert "<svg" in (world.arguments["out"] / drawn["file"]).read_text()
        assert len(drawn["caption"]) > 40
        assert drawn["alt"]
    curves = {drawn["number"]: drawn["file"] for drawn in index}
    for at, name in enumerate(BY_FIGURE):
        assert re.search(rf"-{name.lower()}-.*accuracy\.svg", curves[8 + 2 * at])
        assert re.search(rf"-{name.lower()}-.*loss\.svg", curves[9 + 2 * at])
    extra = [drawn["title"] for drawn in document(world)["figures"] if drawn["number"] is None]
    assert len(extra) == 2
    assert all(title.startswith("MobileNetV2") for title in extra)


@pytest.mark.slow
def test_the_run_seals_its_figures_and_is_for_its_owner_alone(world):
    out = world.arguments["out"]
    files = run.read_run(out)["files"]
    svgs = [f"figures/{path.name}" for path in (out / "figures").iterdir()]
    assert set(files) == {run.METRICS, *svgs}
    assert all(files[name] == digest_file(out / name) for name in files)
    modes = {path.is_dir(): set() for path in out.rglob("*")}
    for path in (out, *out.rglob("*")):
        modes[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {True: {0o700}, False: {0o600}}


@pytest.mark.slow
def test_its_page_lies_in_the_run_and_a_page_elsewhere_shows_no_image_unasked(world, tmp_path):
    out = world.arguments["out"]
    assert (out / "report.html").read_text().count('<img class="paper"') == 25
    elsewhere = write_report(out, tmp_path / "page.html").read_text()
    assert elsewhere.count('<img class="paper"') == 21
    assert "4 figures show images of the data set; --with-images adds them." in elsewhere
    assert (
        write_report(out, tmp_path / "all.html", with_images=True).read_text().count('<img class="paper"')
        == 25
    )


@pytest.mark.slow
def test_neither_run_json_nor_the_numbers_name_a_path_or_a_patient(world):
    for name in (run.RUN, run.METRICS):
        text = (world.arguments["out"] / name).read_text()
        assert str(world.data.parent) not in text
        assert not re.search(r"\bp0\d\d\b", text)


@pytest.mark.slow
def test_the_claims_are_those_of_the_runs_that_were_made_on_the_way(world):
    found = {claim.name: claim for claim in world.result.claims}
    assert list(found) == ["paper", "by_image", "by_patient", "honest"]
    for name in ("by_image", "by_patient"):
        with (world.arguments["out"] / name / "tuned" / run.PREDICTIONS).open(newline="") as lines:
            tested = [line for line in csv.DictReader(lines) if line["split"] == "test"]
        right = sum(line["predicted"] == line["label"] for line in tested) / len(tested)
        assert found[name].accuracy.value == pytest.approx(right)
        assert found[name].images == len(tested)
    honest = document(world, "by_patient", "compare")["contestants"]
    (logreg,) = [row["metrics"]["accuracy"] for row in honest if row["name"] == "concat_logreg"]
    assert found["honest"].accuracy.value == logreg["mean"]
    assert list(found["honest"].accuracy.interval) == logreg["interval"]


@pytest.mark.slow
def test_the_hit_probability_is_of_the_vote_and_printed(world):
    for name, shares in world.result.hit_probability.items():
        with (world.arguments["out"] / name / "vote" / run.PREDICTIONS).open(newline="") as lines:
            tested = [line for line in csv.DictReader(lines) if line["split"] == "test"]
        hit = [float(line[f"p({line['predicted']})"]) for line in tested]
        assert shares["all"] == pytest.approx(sum(hit) / len(hit))
        assert f"{shares['all']:.3f}" in reproduction_text(world.result)
    assert list(world.result.hit_probability) == ["by_image", "by_patient"]


@pytest.mark.slow
def test_the_papers_proportions_are_used_and_kept_in_the_run(world, no_figures, tmp_path):
    found = world.again(out=tmp_path / "run", paper_split=True)
    assert {side: sum(n.values()) for side, n in found.splits["by_image"].items()} == {
        "train": 20, "val": 14, "test": 14,
    }  # fmt: skip
    assert found.arguments["paper_split"] is True


@pytest.mark.slow
def test_the_interval_around_the_papers_number_is_that_of_a_test_as_large_as_ours(world):
    paper, here = world.result.claims[:2]
    n, k = here.images, round(0.96 * here.images)
    low, high = beta.ppf(0.025, k, n - k + 1), 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    assert paper.accuracy.value == 0.96
    assert paper.accuracy.interval == pytest.approx((low, high))


@pytest.mark.slow
def test_the_text_lays_the_numbers_side_by_side_with_intervals_and_says_why_they_differ(world):
    text = reproduction_text(world.result)
    for claim in world.result.claims:
        assert re.search(
            rf"^{re.escape(claim.title)}  +\d\.\d{{3}} \[\d\.\d{{3}} to \d\.\d{{3}}\]", text, re.MULTILINE
        )
    for word in ("Leak:", "Preprocessing:", "Training:", "Selection:", "Size:", "Shortcuts:"):
        assert word in text
    torn = world.result.leak
    assert f"{torn.in_both} of {torn.patients} patients have images on both sides" in text


@pytest.mark.slow
def test_the_split_by_image_is_marked_and_that_by_patient_is_clean(world):
    image, patient = (document(world, side, "head", name=run.RUN) for side in ("by_image", "by_patient"))
    assert image["matrix"]["groups_set_aside"]
    assert not patient["matrix"]["groups_set_aside"]
    assert image["sizes"] == {"train": 22, "val": 14, "test": 12}, (
        "a quarter, then 40 % of the rest, by class"
    )
    assert image["sizes"] == {side: sum(n.values()) for side, n in world.result.splits["by_image"].items()}
    with (world.arguments["out"] / "by_patient" / "head" / run.PREDICTIONS).open(newline="") as lines:
        held = [(line["group"], line["split"]) for line in csv.DictReader(lines)]
    sides = {patient: {split for group, split in held if group == patient} for patient, _ in held}
    assert all(len(splits) == 1 for splits in sides.values())
    assert sum(1 for group, _ in held) == 3 * len(sides), "all three images of each"


@pytest.mark.slow
def test_the_papers_recipe_trains_on_views_and_validates_on_plain_images_by_the_papers_scale(world):
    head = document(world, "by_image", "head", name=run.RUN)
    assert {spec["preprocess"] for spec in head["matrix"]["backbones"]} == {"rescale"}
    assert [view["recipe"][:9] for view in head["matrix"]["views"]] == ["identity", "shear(20)"]
    wanted = {"learning_rate": 1e-5, "batch_size": 2, "epochs": 3, "validation_fraction": 0.4}
    assert wanted.items() <= head["options"].items()
    fit = document(world, "by_image", "head")
    assert fit["history"]["val_accuracy"][-1] == pytest.approx(fit["scores"]["val"]["accuracy"]["value"])
    honest = document(world, "by_patient", "compare", name=run.RUN)
    assert {spec["preprocess"] for spec in honest["matrix"]["backbones"]} == {"official"}
    assert len(honest["matrix"]["views"]) == 1


@pytest.mark.slow
def test_random_weights_are_marked_in_table_and_captions_and_absent_ones_named(world):
    text = reproduction_text(world.result)
    assert re.search(r"^ResNet50 +yes +RANDOM WEIGHTS \(random:3 keras", text, re.MULTILINE)
    assert re.search(rf"^{ABSENT} +yes +weights absent", text, re.MULTILINE)
    assert f"Weights absent: {ABSENT} did not take part" in text
    titles = {drawn.number: (drawn.title, drawn.caption) for drawn in world.result.figures}
    assert all("ResNet50 (random weights)" in part for number in (16, 17) for part in titles[number])
    assert all("VGG19 (weights absent)" in part for number in (18, 19) for part in titles[number])
    assert all("1 with random weights" in titles[number][0] for number in (22, 23))
    files = {drawn.number: drawn.file for drawn in world.result.figures}
    assert files[16].endswith("figure-16-resnet50-random-weights-accuracy.svg")
    assert files[19].endswith("figure-19-vgg19-weights-absent-loss.svg")
    assert all("Random weights: ResNet50." in titles[number][1] for number in (3, 7))
    assert set(world.result.heads) == {"ResNet50", "Xception", "MobileNetV2"}
    (absent,) = [row for row in document(world)["networks"] if row["weights"] == "absent"]
    assert (absent["label"], absent["digest"]) == ("VGG19 (weights absent)", None)
    assert "could not be fetched" in absent["reason"]


@pytest.mark.slow
def test_the_same_call_again_computes_nothing_and_ends_the_same(world, no_figures):
    before, loaded = document(world), Grids.loaded
    account = (world.arguments["out"] / "by_image" / "extract" / run.RUN).read_bytes()
    again = world.again()
    assert Grids.loaded == loaded
    assert (again.computed, again.stored) == (0, world.result.computed)
    assert json.loads(json.dumps(again.to_json()))["claims"] == before["claims"]
    assert again.fusions == world.result.fusions
    assert (world.arguments["out"] / "by_image" / "extract" / run.RUN).read_bytes() == account


@pytest.mark.slow
def test_another_call_does_not_write_over_a_run(world):
    with pytest.raises(UsageError, match="another run already"):
        world.again(epochs=4)


@pytest.mark.slow
def test_a_folder_with_other_things_in_it_is_left_alone(world, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        world.again(out=tmp_path / "mine")


@pytest.mark.slow
def test_without_patients_it_says_that_the_honest_protocol_can_be_no_more_honest(world, no_figures, tmp_path):
    lines = [line.split(",")[:2] for line in world.data.read_text().splitlines()]
    bare = world.data.with_name("bare.csv")
    bare.write_text("\n".join(",".join(line) for line in lines) + "\n")
    found = module.paper(
        bare, **{**world.arguments, "out": tmp_path / "bare", "backbones": ["Xception", ABSENT], "epochs": 1}
    )
    assert found.leak is None
    assert [claim.name for claim in found.claims] == ["paper", "by_image", "honest"]
    assert any("cannot be more honest" in reason for reason in found.reasons)
    assert "vote" not in found.fusions["by_image"], "one network has no majority"
    assert found.computed == 0


@pytest.mark.slow
def test_a_small_part_is_whole_patients_of_every_class(world):
    part = sample(scan(world.data), 24, seed=0)
    assert part.count_by_class() == {"covid": 12, "normal": 12}
    assert set(part.count_by_group().values()) == {3}
    assert part == sample(scan(world.data), 24, seed=0)
    assert part != sample(scan(world.data), 24, seed=1)


@pytest.mark.slow
def test_without_any_weights_it_stops_with_a_remedy(world, tmp_path, monkeypatch):
    monkeypatch.setattr("featstore.reproduction.protocol.can_fetch", lambda _row: True)
    with pytest.raises(WeightsError, match="None of the 1 networks") as error:
        world.again(backbones=[ABSENT], out=tmp_path / "none")
    assert "--weights" in error.value.remedy


@pytest.mark.slow
def test_offline_it_names_all_that_is_missing_before_it_looks_at_an_image(world, tmp_path, monkeypatch):
    monkeypatch.setattr("featstore.reproduction.protocol.can_fetch", lambda _row: False)
    monkeypatch.setattr(module, "scan", None)
    with pytest.raises(AbsentWeightsError, match="of 2 networks \\(VGG19, VGG16\\) are not on") as error:
        world.again(backbones=["VGG19", "VGG16", "VGG19"], out=tmp_path / "none")
    assert error.value.names == ("VGG19", "VGG16")
    assert "--weights VGG19=" in error.value.remedy


@pytest.mark.slow
def test_a_weights_file_that_is_not_there_is_an_error_and_not_an_absence(world, tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        world.again(weights={"VGG19": "typo.weights.h5", "Xception": "random:1"}, out=tmp_path / "typo")


@pytest.mark.slow
def test_what_cannot_be_meant_is_refused_before_any_network_is_loaded(world, tmp_path):
    loaded = Grids.loaded
    with pytest.raises(UnknownNameError, match="no class 'flu'"):
        world.again(positive="flu", out=tmp_path / "flu")
    few = scan(world.data)
    few = few.only({record.id for record in few.records if record.label == "covid" or record.group == "p001"})
    assert set(few.count_by_class().values()) == {24, 3}
    with pytest.raises(AuditError, match="too few patients"):
        module.paper(few, **{**world.arguments, "out": tmp_path / "few"})
    assert Grids.loaded == loaded


@pytest.mark.slow
def test_an_image_that_does_not_decode_is_on_no_side_and_counted(world, tmp_path):
    rng = np.random.default_rng(0)
    for at in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).save(tmp_path / f"{at}.png")
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(rng.integers(0, 4095, (20, 20)).astype(np.uint16)).save(tmp_path / "5.png")
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "4.png", format="JPEG")
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{at}.png,{'ab'[at % 2]}\n" for at in range(6)))
    found, good = convert(scan(tmp_path / "m.csv"), None)
    assert found.formats == {"JPEG": 1, "PNG": 3}
    assert found.channels == {"colour": 1, "grey": 3}
    assert found.unread == {"needs_range": 1, "truncated": 1}
    assert (found.smallest, found.largest) == (20, 30)
    assert [record.path.name for record in good.records] == ["1.png", "2.png", "3.png", "4.png", "5.png"]
