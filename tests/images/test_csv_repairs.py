"""CSV files as spreadsheets and other systems write them: read as they are meant, or refused with the line."""

from __future__ import annotations

import csv
import io
import shlex
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featstore.errors import ManifestError, UsageError
from featstore.images.scan import scan

PLAIN = "path,label\nimg/a.png,ill\nimg/b.png,well\nimg/c.jpg,ill\n"


@pytest.fixture
def folder(write, picture, encode):
    return write({"img/a.png": 1, "img/b.png": 2, "img/c.jpg": encode(picture(3), "JPEG"), "img/D E.PNG": 4})


@pytest.fixture
def read(folder):
    """Scan a table of this text, written beside ``img/``."""

    def read_table(text: str | bytes, name: str = "t.csv", **options):
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return scan(path, **options)

    return read_table


def rows(manifest):
    return [(r.path.relative_to(manifest.root).as_posix(), r.label, r.group) for r in manifest.records]


def named(manifest):
    return {finding.name: finding for finding in manifest.findings}


def options_of(remedy: str):
    """Keywords for `scan` of the flags in a remedy, taken from it as a shell and the command would."""
    words = shlex.split(remedy.partition("--")[1] + remedy.partition("--")[2])
    given = dict(zip(words[::2], words[1::2], strict=False))
    found = {name.removeprefix("--"): value for name, value in given.items()}
    if "columns" in found:
        found["columns"] = dict(part.split("=", 1) for part in found["columns"].split(","))
    return found


SPREADSHEETS = {
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "spaces": PLAIN.replace(",", " "),
    "sep line": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "utf-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "utf-16 without mark": PLAIN.encode("utf-16-le"),
    "utf-16, the other end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "utf-32": PLAIN.encode("utf-32"),
    "trailing commas": PLAIN.replace("\n", ",,\r\n"),
    "trailing commas below the header only": PLAIN.replace("l\n", "l,,\n", 3).replace("label,,", "label"),
    "rows of commas": PLAIN + ",\n, \n\n",
    "space behind the comma": PLAIN.replace(",", ", "),
    "space behind the comma, quoted": 'path, label\n"img/a.png", "ill"\nimg/b.png, well\nimg/c.jpg, "ill"\n',
    "capitals": PLAIN.replace("path,label", "Path,LABEL"),
    "index column": ",path,label\n" + "".join(f"{i},{r}\n" for i, r in enumerate(PLAIN.split()[1:])),
    "old Mac": PLAIN.replace("\n", "\r"),
}


@pytest.mark.parametrize("text", SPREADSHEETS.values(), ids=SPREADSHEETS)
def test_what_spreadsheets_write_reads_like_the_plain_file(read, text):
    plain = read(PLAIN)
    manifest = read(text)
    assert manifest.records == plain.records
    assert "paths_mended" not in named(manifest)


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".TAB", ".CSV"])
def test_a_table_by_another_suffix_is_one(read, suffix):
    assert read(PLAIN.replace(",", "\t"), f"t{suffix}").records == read(PLAIN).records


NEARLY = {
    "no suffix": ("img/a", "img/b", "img/c"),
    "mixed": ("img/a", "img/b.png", "img/c"),
    "backslashes": ("img\\a.png", "img\\b.png", "img\\c.jpg"),
    "capitals": ("img/a.PNG", "IMG/b.png", "img/C.JPG"),
    "spaces": (" img/a.png", "img/b.png ", " img/ c.jpg"),
    "the same format": ("img/a.png", "img/b.png", "img/c.jpeg"),
    "all at once": (" IMG\\A", ".\\img\\b ", "img//C.JPEG"),
    "its own folder in front": ("data/img/a.png", "data/img/b.png", "data\\img\\c"),
}


@pytest.mark.parametrize("paths", NEARLY.values(), ids=NEARLY)
def test_a_path_that_can_mean_one_file_only_means_it_and_is_counted(read, paths):
    plain = read(PLAIN)
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *zip(paths, ("ill", "well", "ill"), strict=True)])
    manifest = read(text.getvalue())
    assert manifest.records == plain.records
    wrong = sum(path not in {"img/a.png", "img/b.png", "img/c.jpg"} for path in paths)
    finding = named(manifest)["paths_mended"]
    assert (finding.count, finding.severity) == (wrong, "note")
    assert "img/" not in finding.message, "a message may leave the run folder"
    assert " is 'img/" in finding.examples[0]


def test_an_exact_name_wins_over_all_that_is_nearly_like_it(read, write):
    write({"img/A.png": 11, "img/a": 12, "img/x\\y.png": 13})
    manifest = read("path,label\nimg/a.png,ill\nimg/a,well\nimg/x\\y.png,ill\n")
    assert [path for path, *_ in rows(manifest)] == ["img/a", "img/a.png", "img/x\\y.png"]
    assert "paths_mended" not in named(manifest)


@pytest.mark.parametrize(
    ("path", "others"), [("img/q", ("q.png", "q.jpg")), ("img/Q.png", ("q.png", "q.PNG")), ("Img2/a.png", ())]
)
def test_a_path_that_can_mean_two_files_is_refused_and_never_guessed(read, write, path, others):
    write({f"img/{name}": 20 + at for at, name in enumerate(others)})
    if not others:
        write({"IMG2/a.png": 30, "img2/a.png": 31})
    with pytest.raises(ManifestError, match=r"line 2: .* could be ") as caught:
        read(f"path,label\n{path},ill\nimg/b.png,well\n")
    if "--suffix" in caught.value.remedy:
        chosen = caught.value.remedy.partition("--suffix ")[2].split(";")[0]
        assert len(read(f"path,label\n{path},ill\nimg/b.png,well\n", suffix=chosen).records) == 2


def test_a_suffix_that_is_given_is_added_where_there_is_none(read, write):
    write({"img/q.png": 20, "img/q.jpg": 21, "img/v1.2.png": 22})
    text = "path,label\nimg/q,ill\nimg/b.png,well\nimg/v1.2,ill\n"
    for suffix in (".png", "png", ".PNG"):
        assert [path for path, *_ in rows(read(text, suffix=suffix))] == [
            "img/b.png",
            "img/q.png",
            "img/v1.2.png",
        ]
    with pytest.raises(UsageError, match="no suffix of files"):
        read(text, suffix="../x")


def test_absolute_paths_inside_the_folder_are_taken(read, folder):
    manifest = read(PLAIN.replace("img/", f"{folder.absolute()}/img/"))
    assert manifest.records == read(PLAIN).records


@pytest.mark.parametrize("home", ["/home/anna/study", "C:\\Users\\Anna\\study", "\\\\nas\\share\\study"])
def test_absolute_paths_of_another_machine_need_a_root_that_the_error_names(read, home):
    slash = "\\" if "\\" in home else "/"
    text = PLAIN.replace("img/", f"{home}{slash}img{slash}")
    with pytest.raises(ManifestError, match=r"line 2: .* absolute path") as caught:
        read(text)
    assert read(text, **options_of(caught.value.remedy)).records == read(PLAIN).records


def test_absolute_paths_that_fit_nothing_stay_refused_with_a_root(read, folder):
    for options in ({}, {"root": folder}):
        with pytest.raises(ManifestError, match="absolute path"):
            read("path,label\n/etc/passwd,ill\n", **options)


def test_an_absolute_path_that_fits_two_files_is_refused(read, write, folder):
    write({"a.png": 40})
    with pytest.raises(ManifestError, match="could be"):
        read("path,label\n/old/img/a.png,ill\n", root=folder)


@pytest.mark.parametrize("place", ["labels", "deep/labels"])
def test_images_outside_the_folder_of_the_table_need_a_root_that_the_error_names(folder, write, place):
    write({f"{place}/t.csv": PLAIN.encode()})
    up = "/".join(".." for _ in place.split("/"))
    write({f"{place}/up.csv": PLAIN.replace("img/", f"{up}/img/").encode()})
    write({f"{place}/names.csv": PLAIN.replace("img/", "").encode()})
    for name in ("t.csv", "up.csv", "names.csv")[: 2 if place != "labels" else 3]:
        with pytest.raises(ManifestError) as caught:
            scan(folder / place / name)
        manifest = scan(folder / place / name, **options_of(caught.value.remedy))
        assert [r.path.name for r in manifest.records] == ["a.png", "b.png", "c.jpg"]
        assert {r.path.parent for r in manifest.records} == {folder / "img"}


def test_the_root_to_type_is_right_for_all_lines(folder, write, tmp_path):
    outside = write({"x/1.png": 70, "y/deep/2.png": 71}, tmp_path / "outside")
    write({"labels/deep/here.png": 72})
    tables = {
        "absolute": [f"{outside}/x/1.png", f"{outside}/y/deep/2.png"],
        "above": ["here.png", "../../img/a.png"],
    }
    for paths in tables.values():
        text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in zip(paths, "ab", strict=True))
        write({"labels/deep/t.csv": text.encode()})
        with pytest.raises(ManifestError) as caught:
            scan(folder / "labels/deep/t.csv")
        assert len(scan(folder / "labels/deep/t.csv", **options_of(caught.value.remedy)).records) == 2


def test_the_top_of_the_disk_is_recommended_to_nobody(read):
    for path in (f"{'../' * 40}etc/passwd", "/x.png"):
        with pytest.raises(ManifestError) as caught:
            read(f"path,label\n{path},ill\nimg/b.png,well\n")
        assert "--root /\n" not in f"{caught.value.remedy}\n"


def test_with_a_root_names_are_relative_to_it_and_nothing_leaves_it(folder, write):
    write({"labels/t.csv": b"path,label\na.png,ill\nb.png,well\n"})
    manifest = scan(folder / "labels/t.csv", root=folder / "img")
    assert manifest.root == folder / "img"
    assert [path for path, *_ in rows(manifest)] == ["a.png", "b.png"]
    for path in ("../t.csv", "../../x.png", "img/../../../etc/passwd"):
        write({"labels/bad.csv": f"path,label\n{path},ill\n".encode()})
        with pytest.raises(ManifestError, match="leaves the folder"):
            scan(folder / "labels/bad.csv", root=folder / "img")
    with pytest.raises(UsageError, match="no folder"):
        scan(folder / "labels/t.csv", root=folder / "nowhere")


def test_a_mended_path_does_not_lead_out_of_the_folder_by_a_link(read, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.png").write_bytes((folder / "img/a.png").read_bytes())
    (folder / "LINK").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="link out of the data set"):
        read("path,label\nlink/x,ill\nimg/b.png,well\n")
    assert len(read("path,label\nlink/x,ill\nimg/b.png,well\n", follow_links=True).records) == 2


@pytest.mark.parametrize("path", ["a.png", "imgs/a.png", "pics/a", "x/img/a.png"])
def test_where_nothing_is_found_one_path_and_its_nearest_file_are_named(read, path):
    with pytest.raises(ManifestError, match=rf"None of the 2 files .*'{path}'.*nearest is 'img"):
        read(f"path,label\n{path},ill\nnowhere.png,well\n")


def test_another_suffix_than_the_files_have_is_answered_with_the_line_that_mends_the_table(read, folder):
    text = "path,label\nimg/a.dcm,ill\nimg/b.dcm,well\n"
    with pytest.raises(ManifestError, match=r"nearest is 'img/a\.png'") as caught:
        read(text)
    line = caught.value.remedy.partition("the table: ")[2]
    subprocess.run(line, shell=True, cwd=folder, check=True)  # noqa: S602 - the remedy as it is printed
    assert read((folder / "new.csv").read_text()).count_by_class() == {"ill": 1, "well": 1}


def test_paths_below_a_folder_are_found_with_the_root_that_the_error_names(read):
    text = PLAIN.replace("img/", "").replace(".png", "").replace(".jpg", "")
    with pytest.raises(ManifestError) as caught:
        read(text)
    manifest = read(text, **options_of(caught.value.remedy))
    assert [path for path, *_ in rows(manifest)] == ["a.png", "b.png", "c.jpg"]


def test_a_file_that_is_missing_among_others_is_quarantined_with_its_nearest(read):
    (row,) = read("path,label\nimg/aa.png,ill\nimg/b.png,well\nimg/c.jpg,ill\n").unreadable
    assert (row.reason, row.path.name) == ("missing", "aa.png")
    assert "the nearest is 'img/a.png'" in row.detail


HEADERS = {
    "filename,class": "path=filename,label=class",
    "id,finding": "path=id,label=finding",
    "image,diagnosis": "path=image,label=diagnosis",
    "file,Category": "path=file,label=Category",
    "File Name,Finding Labels": "'path=File Name,label=Finding Labels'",
    "ISIC ID,dx": "'path=ISIC ID,label=dx'",
    "whatever,target": "path=whatever,label=target",
    "path,class": "label=class",
}


@pytest.mark.parametrize(("header", "columns"), HEADERS.items())
def test_other_names_of_columns_are_refused_with_the_very_line_to_type(read, header, columns):
    text = PLAIN.replace("path,label", header)
    with pytest.raises(ManifestError, match="line 1: there is no column") as caught:
        read(text)
    assert caught.value.remedy.endswith(f"--columns {columns}")
    assert read(text, **options_of(caught.value.remedy)).records == read(PLAIN).records


@pytest.mark.parametrize(
    "column",
    ["patient", "patient_id", "PatientID", "patientid", "subject", "subject_id", "case_id", "mrn", "Patient Name",
     "MRN", "Subject ID", "pid", "participant", "patients", "lesion_id", "group_id", "Patient-Nr"],
)  # fmt: skip
def test_a_column_that_names_the_patient_is_pointed_out_with_the_line_to_type(read, column):
    text = f"path,label,{column}\nimg/a.png,ill,p1\nimg/b.png,well,p2\nimg/c.jpg,ill,p1\n"
    manifest = read(text)
    finding = named(manifest)["patient_column_unused"]
    assert (finding.examples, finding.severity) == ((column,), "warning")
    assert finding.message.endswith(finding.remedy.partition("so: ")[2]), "stage two shows the message alone"
    again = read(text, **options_of(finding.remedy))
    assert again.count_by_group() == {"p1": 2, "p2": 1}
    assert "patient_column_unused" not in named(again)


@pytest.mark.parametrize("column", ["Patient Age", "patient_sex", "age", "casette", "date"])
def test_other_columns_are_not_taken_for_the_patient(read, column):
    manifest = read(f"path,label,{column}\nimg/a.png,ill,1\nimg/b.png,well,2\nimg/c.jpg,ill,3\n")
    assert set(named(manifest)) == {"columns_ignored"}


def test_the_line_to_type_keeps_what_was_typed_before(read):
    text = "file,kind,patient\nimg/a.png,ill,p1\nimg/b.png,well,p2\nimg/c.jpg,ill,p1\n"
    finding = named(read(text, columns={"path": "file", "label": "kind"}))["patient_column_unused"]
    assert finding.remedy.endswith("--columns path=file,label=kind,group=patient")
    with pytest.raises(ManifestError) as caught:
        read(text, columns={"label": "kind"})
    assert caught.value.remedy.endswith("--columns path=file,label=kind,group=patient")


def test_empty_cells_of_a_patient_column_are_counted_before_it_is_recommended(read):
    text = "path,label,patient\nimg/a.png,ill,p1\nimg/b.png,well,p2\nimg/c.jpg,ill,\n"
    assert "fill in its 1 empty cells" in named(read(text))["patient_column_unused"].remedy


def test_columns_are_found_in_any_capitals_and_a_typo_is_named(read):
    text = "File,label,Patient ID\nimg/a.png,ill,p1\nimg/b.png,well,p2\n"
    manifest = read(text, columns={"path": "file", "group": "patient_id"})
    assert manifest.count_by_group() == {"p1": 1, "p2": 1}
    with pytest.raises(ManifestError, match="no column 'Pateint'") as caught:
        read(text, columns={"path": "File", "group": "Pateint"})
    assert "group=Patient ID" in caught.value.remedy
    with pytest.raises(UsageError, match="'patient' is none of") as turned:
        read(text, columns={"patient": "group"})
    assert "--columns group=patient" in turned.value.remedy


def test_options_of_tables_are_refused_for_a_folder(folder):
    for options in ({"columns": {"path": "x"}}, {"root": folder}, {"suffix": ".png"}):
        with pytest.raises(ManifestError, match="is for a CSV file"):
            scan(folder, **options)


def test_one_column_per_class_becomes_the_label_and_is_noted(read):
    text = "path,MEL,NV,BKL\nimg/a.png,1.0,0.0,0.0\nimg/b.png,0.0,1.0,0.0\nimg/c.jpg,1.0,0.0,0.0\n"
    manifest = read(text)
    assert [label for _, label, _ in rows(manifest)] == ["MEL", "NV", "MEL"]
    assert named(manifest)["labels_from_columns"].examples == ("MEL", "NV", "BKL")
    with pytest.raises(ManifestError, match="no column 'path'") as caught:
        read(text.replace("path", "image"))
    assert read(text.replace("path", "image"), **options_of(caught.value.remedy)).records == manifest.records


@pytest.mark.parametrize("flags", [("True", "False"), ("TRUE", "FALSE"), ("true", "0")])
def test_columns_of_true_and_false_are_of_ones_and_zeros(read, flags):
    yes, no = flags
    text = f"path,MEL,NV,note\nimg/a.png,{yes},{no},x\nimg/b.png,{no},{yes},y\nimg/c.jpg,{yes},{no},z\n"
    for options in ({}, {"columns": {"label": "MEL,NV"}}):
        assert [label for _, label, _ in rows(read(text, **options))] == ["MEL", "NV", "MEL"]
    with pytest.raises(ManifestError, match="MEL and NV are 1"):
        read(text.replace(f"{no},{yes}", f"{yes},{yes}"), columns={"label": "MEL,NV"})


def test_several_findings_per_image_are_refused_with_one_question_to_ask(read):
    text = "path,Edema,Effusion\nimg/a.png,1,1\nimg/b.png,0,1\nimg/c.jpg,0,0\n"
    with pytest.raises(ManifestError, match="not one class for each image") as caught:
        read(text)
    assert read(text, **options_of(caught.value.remedy)).count_by_class() == {"0": 2, "1": 1}


@pytest.mark.parametrize("delimiter", [",", ";", " ", "\t"])
def test_a_file_without_a_header_is_refused_with_the_header_to_write(read, delimiter):
    body = "".join(delimiter.join(row) + "\n" for row in [("p1", "img/a.png", "ill"), ("p2", "img/b.png", "well"),
                                                          ("p3", "img/c.jpg", "ill")])  # fmt: skip
    with pytest.raises(ManifestError, match="line 1: it names no columns") as caught:
        read(body)
    header = caught.value.remedy.partition(": ")[2].rstrip(".")
    assert read(f"{header.encode().decode('unicode_escape')[1:-1]}\n{body}").records == read(PLAIN).records


def test_another_encoding_is_refused_with_a_remedy(read):
    with pytest.raises(ManifestError, match="line 3: the text is not UTF-8") as caught:
        read("path,label\nimg/a.png,gesund\nimg/b.png,grün\n".encode("cp1252"))
    assert "UTF-8" in caught.value.remedy


def test_names_in_another_normal_form_are_found(read, write):
    name = unicodedata.normalize("NFD", "é.png")
    root = write({f"img/{name}": 50})
    if name not in {path.name for path in (root / "img").iterdir()}:
        pytest.skip("this file system normalises names")
    manifest = read(f"path,label\nimg/{unicodedata.normalize('NFC', name)},ill\n")
    assert named(manifest)["paths_mended"].count == 1


NAMES = ("a b.png", "c,d.png", "e;f.png", 'g"h.png', "ünï.png", "x.y.png", "q'r.png")


@pytest.fixture(scope="module")
def many(tmp_path_factory, png):
    root = tmp_path_factory.mktemp("many")
    (root / "ct 1").mkdir()
    for at, name in enumerate(NAMES):
        (root / "ct 1" / name).write_bytes(png(at))
    return root


def swap_suffix(path):
    return path[:-4] + ".PNG"


CHANGES = {
    "suffix": swap_suffix, "none": lambda path: path[:-4], "backslashes": lambda path: path.replace("/", "\\"),
    "spaces": lambda path: f"  {path} ", "upper": str.upper, "dot": lambda path: f"./{path}",
}  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.sampled_from(["ill", "no finding", "a,b", 'c"d']), st.sampled_from("pqr")
        ),
        min_size=1, max_size=7, unique_by=lambda row: row[0],
    ),
    changes=st.lists(st.sampled_from(sorted(CHANGES)), max_size=3, unique=True),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    trailing=st.integers(0, 3),
)  # fmt: skip
def test_any_table_reads_the_same_however_it_was_saved(many, table, changes, delimiter, end, mark, trailing):
    def write(paths, delimiter, end, mark, trailing):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
        rest = [""] * trailing
        writer.writerow(["path", "label", "group", *rest])
        writer.writerows(
            [path, label, group, *rest] for path, (_, label, group) in zip(paths, table, strict=True)
        )
        file = many / "t.csv"
        file.write_bytes(text.getvalue().encode(mark))
        return replace(scan(file), findings=())

    plain = [f"ct 1/{name}" for name, *_ in table]
    changed = plain
    for change in sorted(changes, key=list(CHANGES).index):
        changed = [CHANGES[change](path) for path in changed]
    assert write(changed, delimiter, end, mark, trailing) == write(plain, ",", "\n", "utf-8", 0)


@pytest.mark.hostile
def test_a_table_of_paths_to_nowhere_looks_at_each_folder_once(read, monkeypatch, tried):
    import os

    looks = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: looks.append(str(path)) or real(path))
    body = "".join(f"{'deep/' * (n % 50)}{n}/{n}.png,ill\n" for n in range(5000))
    with pytest.raises(ManifestError):
        read("path,label\n" + body)
    looks = [
        path for path in looks if not path.startswith("/proc/")
    ]  # of another test's process, in a thread
    assert 0 < len(looks) < 50
    tried("hostile manifests")


def test_a_path_of_many_parts_is_refused_or_missing_at_once(read):
    manifest = read(f"path,label\nimg/a.png,ill\n{'x/' * 1000}1.png,well\n{'y' * 5000}.png,well\n")
    assert {row.reason for row in manifest.unreadable} <= {"missing", "unreadable"}
    with pytest.raises(ManifestError):
        read(f"path,label\n/{'x/' * 30000}1.png,well\n", root=Path("/nonexistent").parent)


ISIC = "image,MEL,NV,BCC,biopsied,label\na,1,0,0,1,x\nb,0,1.0,0,0,y\nc,0,0,1,1,z\n"


def test_columns_of_zeros_and_ones_can_be_named_beside_others_and_before_a_column_label(read, folder):
    root = folder / "img"
    manifest = read(ISIC, columns={"path": "image", "label": "MEL,NV, BCC"}, root=root)
    assert [(path, label) for path, label, *_ in rows(manifest)] == [
        ("a.png", "MEL"),
        ("b.png", "NV"),
        ("c.jpg", "BCC"),
    ]
    assert named(manifest)["labels_from_columns"].examples == ("MEL", "NV", "BCC")
    assert set(named(manifest)["columns_ignored"].examples) == {"biopsied", "label"}


def test_a_column_whose_name_has_a_comma_is_one_column(read):
    text = 'path,"A,B",A,B\nimg/a.png,ill,0,1\nimg/b.png,well,1,0\n'
    assert {label for _, label, *_ in rows(read(text, columns={"label": "A,B"}))} == {"ill", "well"}


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("b,0,1.0,0", "b,0,0,0", "line 3: none of MEL, NV, BCC is 1"),
        ("b,0,1.0,0", "b,0,1,1", "line 3: NV and BCC are 1, and an image has one class"),
        ("b,0,1.0,0", "b,0,0.5,0", "line 3: the column 'NV' holds '0.5', neither 0 nor 1"),
        ("b,0,1.0,0", "b,,1,0", "line 3: the column 'MEL' holds '', neither 0 nor 1"),
    ],
)
def test_a_line_without_a_single_one_is_named(read, folder, old, new, cause):
    with pytest.raises(ManifestError, match=cause):
        read(ISIC.replace(old, new), columns={"path": "image", "label": "MEL,NV,BCC"}, root=folder / "img")


def test_several_findings_in_one_image_can_be_asked_about_one_by_one(read, folder):
    """As in ChestX-ray14 or CheXpert; the remedy that is told works."""
    text = ISIC.replace("b,0,1.0,0", "b,0,1,1")
    with pytest.raises(ManifestError) as caught:
        read(text, columns={"path": "image", "label": "MEL,NV,BCC"}, root=folder / "img")
    manifest = read(text, **options_of(caught.value.remedy), root=folder / "img")
    assert [label for _, label, *_ in rows(manifest)] == ["0", "1", "0"], "the column NV"


def test_a_misspelt_column_among_several_is_answered_with_the_line_to_type(read, folder):
    with pytest.raises(ManifestError, match="there is no column 'BBC'") as caught:
        read(ISIC, columns={"path": "image", "label": "MEL,NV,BBC"}, root=folder / "img")
    assert caught.value.remedy == "If this is meant, say so: --columns path=image,label=MEL,NV,BCC"


@pytest.mark.parametrize("typed", ["patientid", "PATIENT-IDs", "patient_iid"])
def test_the_nearest_column_is_found_whatever_its_capitals(read, typed):
    text = "path,label,Patient_ID\nimg/a.png,ill,p1\nimg/b.png,well,p2\n"
    try:
        manifest = read(text, columns={"group": typed})
    except ManifestError as error:
        manifest = read(text, **options_of(error.remedy.rstrip("?")))
    assert manifest.count_by_group() == {"p1": 1, "p2": 1}
