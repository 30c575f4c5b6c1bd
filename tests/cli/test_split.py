"""`featstore split`: whole patients, every class in every part, a manifest that every command reads back."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from PIL import Image

import featstore as package
from featstore.errors import AuditError, UsageError
from featstore.images.scan import scan


def write_patients(folder, patients, slices=2, classes=("ill", "well"), site=""):
    """A table of so many patients, each of one class; returns its path."""
    rng = np.random.default_rng(0)
    lines = ["path,label,group" + (",site" if site else "")]
    for patient in range(patients):
        label = classes[patient % len(classes)]
        for number in range(slices):
            path = folder / label / f"p{patient:02d}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (12, 12)).astype(np.uint8)).save(path)
            lines.append(f"{label}/{path.name},{label},p{patient}" + (f",{site}" if site else ""))
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def sides(path):
    """Splits by patient."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        found.setdefault(row["group"], set()).add(row["split"])
    return rows, found


def test_the_manifest_keeps_patients_whole_and_is_read_back(tmp_path):
    table = write_patients(tmp_path / "data", 20, site="Bonn")
    done = featstore(
        "split", table, "--by", "group", "--ratios", "60/20/20", "--out", tmp_path / "data/s.csv"
    )
    assert done.code == 0, done.err
    answer, shown, *_ = done.out.split("\n\n")
    assert " ".join(answer.split()) == (
        f"Written: {tmp_path}/data/s.csv: 40 images, each patient (group) in one part."
    )
    header, train, *_ = shown.splitlines()
    assert header.split() == ["part", "images", "share", "wanted", "groups", "ill", "well"]
    assert train.split() == ["train", "24", "60.0%", "60.0%", "12", "12", "12"]
    rows, found = sides(tmp_path / "data/s.csv")
    assert list(rows[0]) == ["path", "label", "group", "split", "site"]
    assert all(len(split) == 1 for split in found.values())
    manifest = scan(tmp_path / "data/s.csv")
    assert manifest.count_by_split() == {"test": 8, "train": 24, "val": 8}
    before = {(r.id, r.label, r.group, r.site) for r in scan(table).records}
    assert {(r.id, r.label, r.group, r.site) for r in manifest.records} == before
    assert not manifest.findings


@pytest.mark.parametrize("ask", [["--ratios", "60/40"], ["--folds", "2"]])
def test_all_columns_of_the_table_go_along_and_covariates_are_found_again(tmp_path, ask):
    table = write_patients(tmp_path, 8)
    header, *lines = table.read_text().splitlines()
    lines = [f"{line},{40 + n},{'fm'[n % 2]},H{n % 3},extra {n}" for n, line in enumerate(lines)]
    lines.append(lines[0].replace("extra 0", "another box"))
    table.write_text("\n".join([f"{header.replace('label', 'dx')},age,sex,hospital,label", *lines]))
    columns = ["--columns", "label=dx,site=hospital"]
    done = featstore("split", table, *columns, *ask, "--out", tmp_path / "s.csv", "--json")
    assert done.code == 0, done.err
    before = {r.path.name: r for r in scan(table, columns={"label": "dx", "site": "hospital"}).records}
    for file in done.json["files"]:
        rows, _ = sides(Path(file))
        assert list(rows[0])[3:] == ["split", "site", "age", "sex", "label_of_table"]
        assert {row["label_of_table"] for row in rows} == {f"extra {n}" for n in range(16)}
        manifest = scan(file, covariates=["age", "sex"])
        for record in manifest.records:
            number = int(record.covariates[0]) - 40
            assert record.covariates == (str(40 + number), "fm"[number % 2])
            known = before[record.path.name]
            assert (record.label, record.site, record.group) == (known.label, known.site, known.group)


def test_the_command_that_it_names_reads_it_wherever_the_file_lies(tmp_path):
    table = write_patients(tmp_path / "data", 12)
    done = featstore("split", table, "--out", tmp_path / "elsewhere/s.csv")
    words = shlex.split(re.search(r"featstore (extract .*)", done.out)[1])
    assert words[-2:] == ["--root", str(tmp_path / "data")]
    nets = ["--backbones", "EfficientNetLite0", "--dry-run", "--cache", tmp_path / "cache"]
    again = featstore(*words, *nets, "--json")
    assert (again.code, again.json["images"]) == (0, 24)


def test_a_data_folder_that_is_a_link_is_read_back(tmp_path, monkeypatch):
    table = write_patients(tmp_path / "disk", 12)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "data").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "work")
    drawn = package.split(f"data/{table.name}", "s.csv")
    assert drawn.root == str(tmp_path / "work" / "data")
    assert len(scan("s.csv", root=drawn.root).records) == 24


def test_folds_are_a_manifest_each_and_test_every_image_once(tmp_path):
    table = write_patients(tmp_path, 15)
    done = featstore("split", table, "--folds", 3, "--seed", 4, "--out", tmp_path / "cv.csv", "--json").json
    assert done["files"] == [str(tmp_path / f"cv-{number}.csv") for number in (1, 2, 3)]
    assert [part["name"] for part in done["parts"]] == ["fold 1", "fold 2", "fold 3"]
    tested = []
    for number in (1, 2, 3):
        rows, found = sides(tmp_path / f"cv-{number}.csv")
        assert {split for group in found.values() for split in group} == {"train", "test"}
        assert all(len(split) == 1 for split in found.values())
        tested += [row["path"] for row in rows if row["split"] == "test"]
    assert sorted(tested) == sorted(row["path"] for row in rows)
    assert not (tmp_path / "cv.csv").exists()


def test_the_seed_decides(tmp_path):
    table = write_patients(tmp_path, 20)
    texts = []
    for number, seed in enumerate((0, 0, 1)):
        package.split(table, tmp_path / f"s{number}.csv", seed=seed)
        texts.append((tmp_path / f"s{number}.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_the_papers_proportions_are_counts(tmp_path):
    """2,450 of 6,000 for training; here by image, at a hundredth."""
    table = write_patients(tmp_path, 60, slices=1)
    drawn = package.split(table, tmp_path / "s.csv", ratios=[2450, 1775, 1775])
    assert [part.images for part in drawn.parts] == pytest.approx([24.5, 17.75, 17.75], abs=2)


def test_nothing_is_overwritten_unasked(tmp_path):
    table = write_patients(tmp_path, 12)
    kept = tmp_path / "s-2.csv"
    kept.write_text("mine")
    done = featstore("split", table, "--folds", 3, "--out", tmp_path / "s.csv")
    assert (done.code, kept.read_text()) == (2, "mine")
    assert f"{kept} is there already." in done.err
    assert not (tmp_path / "s-1.csv").exists()
    assert featstore("split", table, "--folds", 3, "--out", tmp_path / "s.csv", "--overwrite").code == 0
    assert kept.read_text() != "mine"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--ratios", "60/20/20", "--folds", "5"], "both"),
        (["--ratios", "60/0/40"], "not the sizes"),
        (["--ratios", "60/40/20/10"], "not the sizes"),
        (["--ratios", "60/nan"], "not the sizes"),
        (["--ratios", "60,40"], "is not A/B"),
        (["--folds", "1"], "no division"),
        (["--by", "patient"], "nothing to divide by"),
        (["--by", "image"], "names patients"),
        (["--out", "split.xlsx"], "no CSV file"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_two_lines(tmp_path, options, cause):
    table = write_patients(tmp_path, 12)
    done = featstore("split", table, "--out", "split.csv", *options, cwd=tmp_path)
    assert done.code == 2
    told = done.err.replace("split: reading the data set\n", "").splitlines()
    assert len(told) == 2, "one line of cause and one of remedy"
    assert cause in told[0]
    assert not (tmp_path / "split.csv").exists()


def test_groups_have_to_be_named_and_either_remedy_works(tmp_path):
    write_patients(tmp_path / "data", 12)
    (tmp_path / "data" / "table.csv").unlink()
    done = featstore("split", tmp_path / "data", "--out", tmp_path / "s.csv")
    assert done.code == 2
    assert "--group-pattern" in done.err
    pattern = re.search(r"--group-pattern '(.*?)'", done.err)[1]
    assert pattern == r"(p\d+)"
    assert (
        featstore("split", tmp_path / "data", "--out", tmp_path / "s.csv", "--group-pattern", pattern).code
        == 0
    )
    _, found = sides(tmp_path / "s.csv")
    assert len(found) == 12
    by_image = featstore("split", tmp_path / "data", "--out", tmp_path / "i.csv", "--by", "image")
    assert by_image.code == 0
    assert (tmp_path / "i.csv").read_text().startswith("path,label,split\n")
    assert not scan(tmp_path / "i.csv").has_groups


def test_too_few_patients_are_refused_with_what_works(tmp_path):
    table = write_patients(tmp_path, 5)  # two of the class well
    done = featstore("split", table, "--out", tmp_path / "s.csv")
    assert done.code == 5
    assert "ill 3" in done.err
    remedy = re.search(r"--ratios (\S+?);", done.err)[1]
    assert featstore("split", table, "--out", tmp_path / "s.csv", "--ratios", remedy).code == 0
    with pytest.raises(AuditError, match="3 folds need at least 3 groups"):
        package.split(table, tmp_path / "f.csv", folds=3)


def test_a_split_of_its_own_is_replaced_and_told(tmp_path):
    table = write_patients(tmp_path, 12)
    package.split(table, tmp_path / "first.csv", ratios=[50, 50])
    done = featstore("split", tmp_path / "first.csv", "--out", tmp_path / "second.csv")
    assert done.code == 0
    assert "own split is not kept: test 12, train 12." in done.out


def test_files_that_are_no_images_are_left_out_and_told(tmp_path):
    table = write_patients(tmp_path, 12)
    (tmp_path / "ill" / "p00-0.png").write_bytes(b"")
    done = featstore("split", table, "--out", tmp_path / "s.csv")
    assert done.code == 3
    assert "Left out:" in done.out
    assert "p00-0.png: empty" in " ".join(done.out.split())  # wherever a line ends
    assert "p00-0.png" not in (tmp_path / "s.csv").read_text()


def test_copies_go_where_the_first_one_goes(tmp_path):
    table = write_patients(tmp_path, 12)
    copy = tmp_path / "ill" / "p02-9.png"
    copy.write_bytes((tmp_path / "ill" / "p02-0.png").read_bytes())
    table.write_text(table.read_text() + "ill/p02-9.png,ill,p2\n")
    package.split(table, tmp_path / "s.csv")
    rows, found = sides(tmp_path / "s.csv")
    assert len(rows) == 25
    assert len(found["p2"]) == 1


def test_odd_names_come_back_as_they_are(tmp_path):
    """Commas, quotes, spaces at the ends, formulas: in paths, labels and groups."""
    table = write_patients(tmp_path, 8)
    odd = ' =a,"b"; c.png'
    (tmp_path / odd).write_bytes((tmp_path / "ill" / "p00-0.png").read_bytes() + b"x")
    with table.open("a", newline="") as file:
        csv.writer(file).writerow([odd, "ill", "=p;0"])
    package.split(table, tmp_path / "s.csv")
    again = {(record.path.name, record.label, record.group) for record in scan(tmp_path / "s.csv").records}
    assert again == {(record.path.name, record.label, record.group) for record in scan(table).records}
    assert (odd, "ill", "=p;0") in again


def test_a_name_that_is_no_unicode_is_refused(tmp_path):
    write_patients(tmp_path / "data", 8)
    (tmp_path / "data" / "table.csv").unlink()
    odd = tmp_path / "data" / "ill" / b"p01-\xff.png".decode("utf-8", "surrogateescape")
    odd.write_bytes((tmp_path / "data" / "ill" / "p00-0.png").read_bytes() + b"x")
    with pytest.raises(UsageError, match="no Unicode"):
        package.split(tmp_path / "data", tmp_path / "s.csv", group_pattern=r"(p\d+)")


def test_many_classes_have_a_line_each(tmp_path):
    table = write_patients(tmp_path, 30, slices=1, classes=("a", "b", "c", "d", "e"))
    done = featstore("split", table, "--out", tmp_path / "s.csv", "--ratios", "50/50")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["class", "train", "test"] in lines
    assert ["e", "3", "3"] in lines
