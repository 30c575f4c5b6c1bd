"""A reproduction of the paper read back: its numbers beside the paper's, and its figures by their numbers."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featstore import run
from featstore.report.page.sheet import DASH, Sheet, figure, whole, words
from featstore.report.plain import short_weights
from featstore.report.records.schema import REPRODUCTION
from featstore.report.records.shape import ShapeError
from featstore.report.verdict import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

URI = "data:image/svg+xml;base64,"
PROTOCOLS = {"by_image": "split by image", "by_patient": "patients kept together"}
SPOKEN = {
    "by_image": "under the paper's protocol, which splits by image,",
    "honest": "under an honest one, which keeps patients together,",
}
STEPS = {"head": "fusion head", "tuned": "fusion head, fine-tuned", "vote": "majority vote over networks"}


@dataclass(frozen=True, slots=True)
class Twin:
    """A figure that a run keeps as a file.

    Attributes
    ----------
    number
        Of its twin in the paper; None where the paper has none.
    title, alt, caption
        As the run has them.
    shows_images
        Whether it holds images of the data set.
    source
        The drawing as a data URI: an image can neither run code nor load anything.
    """

    number: int | None
    title: str
    alt: str
    caption: str
    shows_images: bool
    source: str


def twins(folder: Path, about: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[Twin, ...]:
    """Figures of a reproduction, each checked against the digest in ``run.json``.

    Raises
    ------
    RunError
        If a figure is absent or damaged.
    """
    REPRODUCTION(document, "the reproduction")
    found = []
    for plate in document["figures"]:
        name = plate["file"]
        if name.count("/") != 1 or not name.startswith(f"{run.FIGURES}/") or not name.endswith(".svg"):
            raise ShapeError("a figure lies elsewhere than in its folder")
        data = run.read_own(folder, about, name)
        source = URI + base64.b64encode(data).decode()
        known = {key: plate[key] for key in ("number", "title", "alt", "caption", "shows_images")}
        found.append(Twin(**known, source=source))
    return tuple(found)


def verdict(document: Mapping[str, Any]) -> Iterator[str]:
    """The paper's accuracy and this run's in one sentence, then why they differ."""
    scores = {claim["name"]: claim["accuracy"] for claim in document["claims"]}
    told = [
        f"{words} {spoken(*_score(scores[name]))}"
        for name, words in SPOKEN.items()
        if name in scores and scores[name]["value"] is not None
    ]
    claimed = scores.get("paper", {}).get("value")
    paper = "" if claimed is None else f"The paper claims an accuracy of {claimed:.2f}; "
    yield f"{paper}this run reaches {', and '.join(told) or 'none'}."
    yield from document["reasons"]


def sheets(document: Mapping[str, Any]) -> list[Sheet]:
    """The claims, the networks, the fusions under both protocols, and the sides of the splits."""
    claims = tuple(
        (
            words(c["title"], c["basis"]),
            figure(c["accuracy"]["value"], c["accuracy"]["interval"]),
            *(words(DASH) if c[key] is None else whole(c[key]) for key in ("images", "patients")),
        )
        for c in document["claims"]
    )
    heads = document["heads"]
    networks = tuple(
        (
            words(n["label"], n["reason"] or short_weights(n["digest"] or "")),
            words("yes" if n["in_paper"] else "extra"),
            whole(n["input_size"]),
            whole(n["dimension"]),
            figure(*_score(heads.get(n["name"]))),
        )
        for n in document["networks"]
    )
    fusions = tuple(
        (words(STEPS.get(step, step)), words(PROTOCOLS.get(protocol, protocol)), figure(*_score(score)))
        for protocol, steps in document["fusions"].items()
        for step, score in steps.items()
    )
    sides = tuple(
        (words(PROTOCOLS.get(protocol, protocol)), words(split), words(label), whole(count))
        for protocol, splits in document["sides"].items()
        for split, labels in splits.items()
        for label, count in labels.items()
    )
    return [
        Sheet("The paper's accuracy and this run's", ("Accuracy of", "Accuracy", "Images", "Patients"), claims,
              f"Always answering the most frequent class is right in {document['floor']:.3f} of the test images."),
        Sheet("Networks", ("Network", "In the paper", "Input, px", "Values", "Accuracy of its own head"), networks,
              "Under the paper's protocol: split by image."),
        Sheet("Fusions", ("Fusion", "Protocol", "Accuracy"), fusions, "On test images."),
        Sheet("Sides of the splits", ("Protocol", "Side", "Class", "Images"), sides),
    ]  # fmt: skip


def _score(document: Mapping[str, Any] | None) -> tuple[float | None, tuple[float, float] | None]:
    if document is None:
        return None, None
    interval = document["interval"]
    return document["value"], None if interval is None else (interval[0], interval[1])
