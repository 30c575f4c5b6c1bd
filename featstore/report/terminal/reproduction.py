"""What `featstore paper` found, as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.report.plain import counts, printable, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.evaluation.scores import Score
    from featstore.reproduction.outcome import Claim, Conversion, Member, Reproduction

FUSIONS = {"head": "fusion head", "tuned": "fusion head, fine-tuned", "vote": "majority vote over networks"}
PROTOCOLS = {"by_image": "split by image", "by_patient": "patients kept together"}


def reproduction_text(result: Reproduction) -> str:
    """Formats, networks, sides, the numbers beside each other, and why they differ."""
    parts = [
        _conversion(result.conversion),
        _networks(result),
        _sides(result.sides),
        _fusions(result),
        _claims(result.claims, result.floor),
        "Why they differ:\n" + "\n".join(f"  {printable(reason)}" for reason in result.reasons),
        _place(result),
        "Research only: not a medical device.",
    ]
    return "\n\n".join(part for part in parts if part)


def _place(result: Reproduction) -> str:
    numbered = sum(plate.number is not None for plate in result.figures)
    extra = len(result.figures) - numbered
    more = f" and {extra} more" if extra else ""
    return (
        f"The run is in {result.run}: a run for each of {len(result.steps)} steps, and figures/ with"
        f" {numbered} figures by the paper's numbers{more}."
        f" {result.computed} vectors were computed, {result.stored} were there.\n"
        f"All of it on one page, for you alone, since it shows images: {result.run}/report.html."
    )


def _conversion(found: Conversion) -> str:
    what = [
        f"{counts(found.formats)}; {counts(found.channels)}; sides {found.smallest} to {found.largest} px"
    ]
    if found.notes:
        what.append(f"met on the way: {counts(found.notes)}")
    if found.unread:
        what.append(f"in quarantine: {counts(found.unread)}")
    return f"Formats, all read as 8-bit grey or RGB: {'; '.join(what)}."


def _networks(result: Reproduction) -> str:
    rows = [
        [
            member.name,
            "yes" if member.in_paper else "extra",
            _weights(member),
            member.input_size,
            member.dimension,
            _score(result.heads.get(member.name)),
        ]
        for member in result.networks
    ]
    head = ["network", "in the paper", "weights", "input", "vector", "own head, accuracy [95 %]"]
    return f"Networks, each with a head of its own, split by image:\n{table(head, rows)}"


def _weights(member: Member) -> str:
    return {"absent": "weights absent", "random": f"RANDOM WEIGHTS ({member.digest})"}.get(
        member.weights, member.weights
    )


def _sides(sides: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    rows = [
        [PROTOCOLS[protocol], side, counts(classes)]
        for protocol, mine in sides.items()
        for side, classes in mine.items()
    ]
    return f"Sides of the split:\n{table(['protocol', 'side', 'images'], rows)}"


def _fusions(result: Reproduction) -> str:
    protocols = list(result.fusions)
    rows = [
        [name, *(_score(result.fusions[protocol].get(step)) for protocol in protocols)]
        for step, name in FUSIONS.items()
        if any(step in mine for mine in result.fusions.values())
    ]
    head = ["the paper's fusions, accuracy [95 %]", *(PROTOCOLS[protocol] for protocol in protocols)]
    return table(head, rows)


def _claims(claims: tuple[Claim, ...], floor: float) -> str:
    rows = [[claim.title, _score(claim.accuracy), claim.basis] for claim in claims]
    lowest = f"Always the most frequent class: {floor:.3f} on the test images of the split by image."
    return f"{table(['accuracy', '[95 %]', 'the interval'], rows)}\n{lowest}"


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    bounds = "" if score.interval is None else f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
    return f"{score.value:.3f}{bounds}"
