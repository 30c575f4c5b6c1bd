"""Findings: what a reader must know of a data set, its files or a result, each under a stable code.

One mechanism for every command: whatever is odd becomes a `Finding` with a code of `CATALOGUE`, is shown by the
command, kept in the run, repeated in the report and explained in ``docs/findings.md``.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from featstore.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    Severity = Literal["error", "warning", "note"]

EXAMPLES = 5
"""Cases that a finding keeps; the count tells how many there were."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""``error``: every score would be false; ``warning``: it bears on their meaning; ``note``: what was done to files."""


class FindingKind(NamedTuple):
    """A row of the catalogue.

    Attributes
    ----------
    name
        Short name in snake case, shown behind the code.
    severity
        ``error``, ``warning`` or ``note``.
    meaning
        What it says about the answer; the text of ``docs/findings.md``.
    remedy
        One line: what to do about it. Every flag in it exists in every command that shows the finding.
    """

    name: str
    severity: Severity
    meaning: str
    remedy: str


CATALOGUE: dict[str, FindingKind] = {
    # FS1xx, would a score on these data mean anything?
    "FS101": FindingKind(
        "shortcut",
        "warning",
        "The class can be guessed without looking at the picture: from the file alone (bytes, width, height,"
        " channels, format) or from its grey levels. A network can learn the same shortcut, so a score tells"
        " nothing about the disease unless it is clearly above that of the shortcut.",
        "Prepare the images of all classes alike (same source, format, size and grey scale), or report the shortcut"
        " beside every score.",
    ),
    "FS102": FindingKind(
        "copies_across_groups",
        "warning",
        "Pictures that look the same belong to different patients (groups) or splits: copies, mirrored or cropped"
        " versions, or the same patient under two names. The test images are then partly training images.",
        "Look at the examples; give images of one patient one group in a CSV file with a group column, or delete the"
        " copies.",
    ),
    "FS103": FindingKind(
        "groups_merged",
        "warning",
        "Patients (groups) share a file, are called the same but for capitals, accents and spaces, or show the same"
        " picture (see FS102). They were taken for one patient, so that no picture is learned from and tested on.",
        "Find out which patient each of these files belongs to, and correct the groups.",
    ),
    "FS104": FindingKind(
        "no_groups",
        "warning",
        "Nothing says which images belong to one patient, so images of one patient may be learned from and tested on:"
        " scores may be too high.",
        "Say how the path tells the patient, --group-pattern 'patient(\\d+)', or add a group column to the CSV file.",
    ),
    "FS105": FindingKind(
        "group_spelling",
        "warning",
        "Names of patients (groups) differ only in capitals, accents' encoding or spaces, so one patient may count as"
        " several and stand on both sides of a split.",
        "Spell each patient in one way.",
    ),
    "FS106": FindingKind(
        "label_conflict",
        "error",
        "The same picture is in two classes.",
        "Decide which class is right and delete the other copies.",
    ),
    "FS107": FindingKind(
        "leak_exact",
        "error",
        "The same picture is in two splits.",
        "Delete the copies from all splits but one.",
    ),
    "FS108": FindingKind(
        "leak_group",
        "error",
        "Images of one patient (group) are in two splits.",
        "Move all images of a group into one split.",
    ),
    "FS109": FindingKind(
        "one_class",
        "error",
        "All images that can be read are of one class: there is nothing to tell apart.",
        "Add images of a second class.",
    ),
    "FS110": FindingKind(
        "group_is_class",
        "warning",
        "The groups are the classes or split them into a handful of blocks: they name something else than patients.",
        "Give a group pattern or a group column that names the patient.",
    ),
    "FS111": FindingKind(
        "group_numbers_restart",
        "warning",
        "The same group names occur in every class (or site), as where each folder numbers its files from 1:"
        " strangers then count as one patient.",
        "Let the pattern take in the class as well, for instance --group-pattern '([^/]+/[^/]*\\d+)'.",
    ),
    "FS112": FindingKind(
        "group_placeholder",
        "warning",
        "A group is called like a missing value (NA, nan, unknown): strangers would count as one patient.",
        "Give each of these images its patient, or a name of its own.",
    ),
    "FS113": FindingKind(
        "patient_column_unused",
        "warning",
        "A column looks like the patient, and the groups are not taken from it.",
        "Say so: --columns group=NAME",
    ),
    "FS114": FindingKind(
        "split_ignored",
        "warning",
        "The data set names training and test images, and a cross-validation draws folds of its own over all.",
        "Score on the given test split instead: `featstore compare DATA --folds split`",
    ),
    "FS115": FindingKind(
        "covariates_missing",
        "note",
        "Cells of covariates are empty, or hold a value that the model has never met. The mean of the training images"
        " stands for them (for a category, how often each value occurred), in each fold anew.",
        "Fill in the cells where the value is known; leave the column out where one class lacks it more often.",
    ),
    "FS116": FindingKind(
        "group_rounded",
        "warning",
        "Groups such as 1.23E+11 are long numbers as a spreadsheet shows them, rounded: different patients may have"
        " become one.",
        "Format that column as text in the spreadsheet, and save the table again from the original.",
    ),
    "FS117": FindingKind(
        "site_spelling",
        "warning",
        "Names of sites differ in capitals, encoding and spaces alone, and were taken for one site (those that differ"
        " in punctuation or zeros were not). Taken apart, a site would be learned from while it is left out.",
        "Spell each site in one way; two sites of one name need names that differ.",
    ),
    "FS118": FindingKind(
        "site_placeholder",
        "warning",
        "A site is called like a missing value (NA, nan, unknown, -): its images may be of any hospital, and were"
        " taken to name none.",
        "Fill in the site of these images; a site that is called so needs another name.",
    ),
    # FS2xx, layouts and cells that may be meant otherwise
    "FS201": FindingKind(
        "folders_as_classes",
        "warning",
        "Folders that look like parts of a data set (training, test, unlabelled) are read as classes.",
        "Rename the folders to train, val and test, move others away, or give a CSV file: path,label.",
    ),
    "FS202": FindingKind(
        "class_spelling",
        "warning",
        "Names of classes differ only in capitals, accents' encoding, spaces or punctuation, and count as several.",
        "Spell each class in one way.",
    ),
    "FS203": FindingKind(
        "label_placeholder",
        "warning",
        "A class is called like a missing value (NA, nan, unknown).",
        "Give these images their class, or take them out of the data set.",
    ),
    "FS204": FindingKind(
        "label_combination",
        "warning",
        "Labels look like several findings in one cell (A|B); each combination counts as a class of its own.",
        "Write a CSV file whose label column answers one question, such as Effusion against no Effusion.",
    ),
    "FS205": FindingKind(
        "columns_ignored",
        "note",
        "The CSV file has columns that mean nothing to featstore.",
        "Nothing needs to be done; to use one: --columns NAME=COLUMN",
    ),
    "FS206": FindingKind(
        "lines_repeated",
        "note",
        "Lines of the CSV file repeat a path with the same meaning; each image is kept once.",
        "Nothing needs to be done.",
    ),
    "FS207": FindingKind(
        "paths_mended",
        "note",
        "Paths of the CSV file name their files nearly, not exactly (suffix, capitals, spaces, backslashes), and were"
        " taken for the only file that they can mean.",
        "Look at the example; correct the CSV file where it is wrong.",
    ),
    "FS208": FindingKind(
        "name_encoding",
        "warning",
        "Names of files differ only in how accents are encoded (NFC, NFD): often one file copied by two systems.",
        "Delete one of each pair if they are copies.",
    ),
    "FS209": FindingKind(
        "split_folder_ignored",
        "warning",
        "Images that belong to no class or to no split were left out: a folder beside training and test, or a test"
        " folder without class folders.",
        "Nothing needs to be done if they are not meant; else sort them into class folders of train, val or test.",
    ),
    "FS210": FindingKind(
        "layout_found",
        "note",
        "Folders are not arranged as class/... or split/class/..., and could be understood in one way only: the data"
        " set lies in a folder inside, or each class folder holds splits.",
        "Look at the counts of classes and splits; nothing needs to be done if they are right.",
    ),
    "FS211": FindingKind(
        "labels_from_columns",
        "note",
        "The CSV file has no label column, but columns of zeros and ones with a single one in each line: the name of"
        " that column was taken for the label.",
        "Nothing needs to be done if that is meant; else name the right column: --columns label=COLUMN",
    ),
    "FS212": FindingKind(
        "labels_missing",
        "warning",
        "Images of the folder have no label in the table of --labels: no row names their patient, study, series or"
        " file, or its label is empty. They were left out.",
        "Nothing needs to be done if they are not meant (localizers, other examinations); else add their rows.",
    ),
    "FS213": FindingKind(
        "labels_unmatched",
        "warning",
        "Rows of the table of --labels name a patient, study, series or file of which the folder holds no image.",
        "Check that the folder is complete and the ids are those of the images; else delete the rows.",
    ),
    "FS214": FindingKind(
        "masks_as_images",
        "warning",
        "Beside a picture lies one of the same name with mask, seg, gt or the like behind it: drawings of what is to"
        " be seen, which give the answer away, are images of the class.",
        "Move the masks to another folder, or leave their lines out of the table.",
    ),
    # FS3xx is about files and pixels
    "FS301": FindingKind(
        "quarantined",
        "warning",
        "Files cannot be decoded and are left out. Where one class loses more of them than another, that alone can"
        " bias a score.",
        "See the reason of each file in docs/inputs.md; mend or delete the files.",
    ),
    "FS302": FindingKind(
        "copies",
        "note",
        "Files repeat the bytes of another one; each picture is kept once.",
        "Nothing needs to be done.",
    ),
    "FS303": FindingKind(
        "misnamed",
        "note",
        "Files are of another format than their suffix says, and are decoded by content.",
        "Nothing needs to be done.",
    ),
    "FS304": FindingKind(
        "first_frame_only",
        "warning",
        "Files hold several pictures of which only the first was taken (animations, multi-picture files).",
        "Save the pictures one by one, or as pages of a TIFF.",
    ),
    "FS305": FindingKind(
        "transparency",
        "note",
        "Transparent pixels were put on black.",
        "Save the images without transparency if that is not meant.",
    ),
    "FS306": FindingKind(
        "cmyk",
        "note",
        "CMYK was converted to RGB without a colour profile.",
        "Save the images as RGB if colours matter.",
    ),
    "FS307": FindingKind(
        "constant",
        "warning",
        "All pixels of an image are equal: it shows nothing.",
        "Look at the files; delete what is empty.",
    ),
    "FS308": FindingKind(
        "orientation_unread",
        "note",
        "The orientation tag could not be read; the image was taken as stored.",
        "Look at the example.",
    ),
    "FS309": FindingKind(
        "slices_of_one_file",
        "note",
        "A file holds several slices or pages; each is an image, and all of one file belong to one group.",
        "Nothing needs to be done.",
    ),
    "FS310": FindingKind(
        "reduced_pages_skipped",
        "note",
        "Pages that repeat a picture in a smaller size (pyramids, thumbnails, masks) were skipped.",
        "Nothing needs to be done.",
    ),
    "FS311": FindingKind(
        "channels_as_images",
        "warning",
        "Pages of a file are colour or stain channels of one picture, and each is taken for an image.",
        "Merge the channels into RGB files first if one picture is meant.",
    ),
    "FS312": FindingKind(
        "slices_missing",
        "warning",
        "A file announces more slices than it holds: it was cut short, or saved by a program that keeps only the"
        " first slice. The slices that are there were taken.",
        "Export the stack again, as a TIFF with all its slices.",
    ),
    "FS313": FindingKind(
        "pages_of_different_sizes",
        "warning",
        "Pages of one file differ in size and are not marked as smaller copies. Levels of a pyramid, labels or"
        " overview pictures may be among the images.",
        "Look at the example; save the wanted pages as files of their own.",
    ),
    "FS314": FindingKind(
        "channels_left_out",
        "warning",
        "Files have channels beyond grey, or red, green and blue, without saying what they are, as microscopy with"
        " several stains has; these were left out.",
        "Nothing needs to be done for RGB with a padding channel; otherwise merge the channels into RGB files first.",
    ),
    "FS315": FindingKind(
        "copies_partly_sought",
        "note",
        "So many pictures look alike that each was compared closely with the likest of them only, which keeps time"
        " and memory in bounds. Among these a copy that was mirrored, turned or cropped may have gone unseen; copies"
        " that are equal pixel by pixel are all found.",
        "Check a part of the data set by itself where it matters, such as one source or one class.",
    ),
    "FS316": FindingKind(
        "slices_of_a_volume",
        "note",
        "A file holds a volume (NIfTI); slices of it are images: those that were asked for, by default all"
        " axial ones. All of one file belong to one group, unless a table or a pattern says more.",
        "Nothing needs to be done.",
    ),
    "FS317": FindingKind(
        "volume_not_placed",
        "warning",
        "The header of a volume (NIfTI) does not say how it lies in space: neither sform nor qform is set. It was"
        " taken to run from right to left, from back to front and from the feet to the head, as nibabel does.",
        "Set its affine with nibabel, or look at the example; where sides do not matter, nothing needs to be done.",
    ),
    "FS318": FindingKind(
        "localizer",
        "warning",
        "Localizers (scouts, topograms) are among the images: overviews that a scanner takes to plan its slices by."
        " They show something else than the slices do, at another scale.",
        "Take them out of the folder or the table, unless every image is one.",
    ),
    "FS319": FindingKind(
        "slices_repeated",
        "warning",
        "Slices of a DICOM series lie at one place twice or more, by ImagePositionPatient: a series that was sent or"
        " reconstructed twice, or phases that the header does not tell apart. Such slices nearly repeat each other,"
        " and their patient counts for more.",
        "Keep one of each where they are copies; phases of a study that is meant to have them need nothing.",
    ),
    "FS320": FindingKind(
        "slices_gap",
        "warning",
        "Slices of a DICOM series are missing between others, by ImagePositionPatient and the usual spacing of that"
        " series: the transfer was not complete, or some were chosen by hand.",
        "Fetch the series again, unless slices were chosen on purpose; what is there is used.",
    ),
    "FS321": FindingKind(
        "window_of_another_unit",
        "warning",
        "A window by name (lung, mediastinal, bone, brain) is in Hounsfield units, which CT has; the values of these"
        " DICOM files of another modality are in another unit, so that most of them may have become black or white.",
        "Extract them with the range of their own values: featstore extract DATA --range LOW,HIGH",
    ),
    "FS322": FindingKind(
        "range_without_effect",
        "note",
        "A window or range says which values become black and white. Pictures of 8 bits (PNG, JPEG) have their grey"
        " levels already, as somebody chose them, and are taken as they are. A window of CT values needs DICOM,"
        " NIfTI or 16 bits.",
        "Nothing needs to be done, unless another window was wanted: that takes the original images.",
    ),
    # FS4xx, what a result can be used for
    "FS401": FindingKind(
        "not_above_shortcut",
        "warning",
        "The score is not shown to be above that of guessing without a network: the data allow no statement about the"
        " pictures.",
        "Mend the shortcut (FS101) first.",
    ),
    "FS402": FindingKind(
        "one_answer",
        "warning",
        "The model gives every image the same answer, or nearly so: of one class 5 % or less is found, so sensitivity"
        " or specificity is (nearly) zero.",
        "If the AUC is well above 0.5, choose an operating point with `featstore fuse` or `featstore compare`,"
        " --sensitivity 0.9, or calibrate, --calibrate platt; if it is not, the model has learned nothing that tells"
        " the classes apart.",
    ),
    "FS403": FindingKind(
        "few_patients",
        "warning",
        "Fewer than ten patients of a class were scored: intervals say next to nothing, and with a single patient"
        " there is none.",
        "Collect more patients of that class before drawing a conclusion.",
    ),
    "FS404": FindingKind(
        "imported_features",
        "warning",
        "Vectors were computed by another program: featstore cannot tell whether they contain the label or were tuned"
        " on these images.",
        "Say in the paper where they come from, and compare without them: --backbones A,B",
    ),
    "FS405": FindingKind(
        "backbones_left_out",
        "note",
        "Networks in the store lack vectors of this data set, and took no part.",
        "Compute the missing ones with featstore extract, or name those that are wanted: --backbones A,B",
    ),
    "FS406": FindingKind(
        "positive_guessed",
        "warning",
        "Nobody said which of two classes is the positive one, so featstore chose: the one that is not called normal,"
        " healthy, negative, control, 0 or the like; the last in sorted order where the names do not tell."
        " Sensitivity, specificity, F1, average precision and the calibration curve are about that class.",
        "Say which: --positive NAME",
    ),
    "FS407": FindingKind(
        "seen_in_training",
        "warning",
        "Images, or images of the same patient, were learned from: an answer on them says nothing about new ones.",
        "Leave them out of every count.",
    ),
    "FS408": FindingKind(
        "shortcut_unknown",
        "note",
        "How well the label is guessed without a network could not be computed on these images.",
        "Add patients: three of each class are needed.",
    ),
    "FS409": FindingKind(
        "training_unknown",
        "note",
        "The run, or the one that it went on from, comes from an earlier featstore, or is a model of several"
        " hospitals, and does not tell which images its model has learned from.",
        "Make these runs again, `featstore fuse DATA --out RUN --overwrite`: then images in training are marked.",
    ),
    "FS410": FindingKind(
        "label_unknown",
        "warning",
        "Labels of images are not classes of the model, so no answer on them can be right; they are not counted.",
        "Spell the labels as the model's classes, or take them out of the CSV file.",
    ),
    "FS411": FindingKind(
        "strategies_not_fitted",
        "warning",
        "Strategies that were named took no part: they fuse several networks, and every subset that was compared has"
        " a single one, for which the linear probe stands.",
        "Compare two networks or more, or fit the strategy on the single one with `featstore fuse`, --strategy NAME",
    ),
    "FS412": FindingKind(
        "mixed_engines",
        "note",
        "Vectors of one matrix were computed by several engines (TensorFlow, JAX). In float32 they agree to 1e-5 of"
        " the largest feature; in fewer bits the engines round differently, and where a class or a hospital was"
        " computed by one engine alone, a classifier could learn which.",
        "Measure the difference with featstore cache drift, or compute all anew in a fresh cache: --cache DIR",
    ),
    "FS413": FindingKind(
        "chosen_at_edge",
        "note",
        "A parameter that was chosen from a grid (C, or the penalty) is the smallest or the largest of it, so the"
        " best may lie beyond. The strongest penalty is also what is chosen where the features tell the classes apart"
        " hardly or not at all.",
        "Fit with a value beyond it, featstore fuse --set NAME=VALUE, and compare the scores.",
    ),
    "FS414": FindingKind(
        "not_above_negative_control",
        "warning",
        "A negative control, which sees the file, the border or the background and no lung, is better than guessing,"
        " and the best model is not clearly above it (95 % interval of the paired difference). The score may come"
        " from a scanner, a marker or the way of cropping, and not from the disease.",
        "Look at images of both classes side by side: mask or crop what differs outside the body, or take all from"
        " one source, and run featstore extract and featstore compare again.",
    ),
    "FS430": FindingKind(
        "dearer_no_better",
        "note",
        "Strategies take at least twice the computing time of concat_logreg, and their paired differences from it, on"
        " the same networks, are not better by the test that the comparison prints. The time is the price in the"
        " table of strategies, measured once, and not that of this run. Not better does not mean equal: few patients"
        " tell little apart.",
        "Nothing needs to be done; a later one is faster without them: featstore compare DATA --strategies A,B",
    ),
}  # fmt: skip
"""Code to its row; the order is that of the documentation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reader of the answer must know.

    Attributes
    ----------
    code
        Code of `CATALOGUE`, such as ``FS101``.
    message
        One line with the numbers, without any path or name of a patient: it may leave the run folder.
    count
        How many images, groups, files or lines it is about; 0 where nothing is counted.
    examples
        The first few cases, one line each. They name paths and patients: for terminal and ``--json``.
    value, interval
        The number that it is about, such as an AUC, and its 95 % interval, if any.
    accepted
        Whether the user said that it is known (``--accept``).
    """

    code: str
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()
    value: float | None = None
    interval: tuple[float, float] | None = None
    accepted: bool = False
    remedy: str = ""
    """What to do; the catalogue's where the finding itself knows nothing better."""

    def __post_init__(self) -> None:
        """Take the catalogue's remedy where none is given, and keep the first few examples."""
        if self.code not in CATALOGUE or self.count < 0:
            raise ValueError(f"{self.code[:40]!r} is no code of a finding, or {self.count} no count")
        if not self.remedy:
            object.__setattr__(self, "remedy", CATALOGUE[self.code].remedy)
        object.__setattr__(self, "examples", tuple(islice(self.examples, EXAMPLES)))

    @property
    def name(self) -> str:
        """Short name, such as ``shortcut``."""
        return CATALOGUE[self.code].name

    @property
    def severity(self) -> Severity:
        """``error``, ``warning`` or ``note``."""
        return CATALOGUE[self.code].severity

    @property
    def title(self) -> str:
        """Code and name, such as ``FS101 shortcut``."""
        return f"{self.code} {self.name}"

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict; without `examples` it names no path and no patient, and may be kept in ``run.json``."""
        document = {"name": self.name, "severity": self.severity, **asdict(self)}
        document["examples"] = list(self.examples) if examples else []
        document["interval"] = None if self.interval is None else list(self.interval)
        return document


def ordered(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes, each by code; a finding that was met twice is kept once."""
    once = dict.fromkeys(found)
    return tuple(sorted(once, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code)))


def mark_accepted(found: Iterable[Finding], codes: Collection[str]) -> tuple[Finding, ...]:
    """Mark the findings that the user knows of; they stay in the list.

    Parameters
    ----------
    found
        Findings of any kind.
    codes
        Codes or names, such as ``FS101`` or ``shortcut``.

    Raises
    ------
    UsageError
        If a code does not exist, or is that of an error, under which no score would be true.
    """
    wanted = {resolve(code) for code in codes}
    if wrong := sorted(code for code in wanted if CATALOGUE[code].severity == "error"):
        kind = CATALOGUE[wrong[0]]
        raise UsageError(
            f"{wrong[0]} {kind.name} cannot be accepted: every score would be false.", kind.remedy
        )
    return tuple(replace(finding, accepted=finding.code in wanted) for finding in found)


def resolve(code: str) -> str:
    """Code of a code or a name in any spelling.

    Raises
    ------
    UsageError
        If there is none like it.
    """
    wanted = re.sub(r"[\s-]+", "_", code.strip()).casefold()
    for known, kind in CATALOGUE.items():
        if wanted in {known.casefold(), kind.name}:
            return known
    close = nearest(code, [name for known, kind in CATALOGUE.items() for name in (known, kind.name)])
    question = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"There is no finding {code!r}.", f"{question}docs/findings.md lists all.")


def counted(count: int, one: str, many: str = "") -> str:
    """Count and noun, with its verb if there is one: ``1 file is``, ``2 files are``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def quoted(names: Sequence[str], most: int = 3) -> str:
    """Quote the first few names, on one line whatever is in them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def with_reasons(reasons: Mapping[str, str], most: int = 10) -> str:
    """Name the first few, each with its reason in brackets."""
    named = [f"{name} ({why})" if why else name for name, why in [*reasons.items()][:most]]
    more = [f"{len(reasons) - most} more"] if len(reasons) > most else []
    return ", ".join([*named, *more]) or "none"
