"""Outcome of `plan`: a question that was sealed before any score; and the looks that were taken at a data set."""

from __future__ import annotations

from typing import Any, Literal

from featstore.results.document import Count, Result

SPLIT = "split"


class Looks(Result, frozen=True, kw_only=True):
    """How often scores of these images were computed, as far as one cache knows.

    Attributes
    ----------
    compare, fuse
        By command.
    first, last
        When, ISO 8601, UTC; empty where there was none.
    """

    compare: Count = 0
    fuse: Count = 0
    first: str = ""
    last: str = ""

    @property
    def count(self) -> int:
        """All of them."""
        return self.compare + self.fuse


class Plan(Result, frozen=True, kw_only=True):
    """A question, and how it will be answered: what `featstore.compare` runs with ``plan``.

    Attributes
    ----------
    kind
        ``plan``.
    created
        When it was sealed, ISO 8601, UTC.
    primary, margin, metric
        The question: is this fusion better than every single network, in this metric, and what is too small a gain.
    positive
        The positive class; None for averages over the classes.
    folds, repeats, fold_seed
        The cross-validation; ``split`` in place of a number for the data set's own test images.
    calibrate
        Calibration, fitted within the training images of each fold.
    views, test_views
        View policies, as for `featstore.compare`.
    data_sha256, images, groups
        The data set: digest of ids, labels, groups, splits and sites; its images and patients.
    features_sha256, backbones
        The features: digest of networks, views and decoding; names of the networks.
    looks
        Looks at these images before it was sealed.
    unit, pool
        What is scored, images or patients (``group``), and how the images of one become one answer.
    """

    kind: Literal["plan"] = "plan"
    created: str
    primary: str
    margin: float
    metric: str
    positive: str | None
    folds: Count | Literal["split"]
    repeats: Count
    fold_seed: Count
    calibrate: str | None
    views: tuple[str, ...]
    test_views: str
    data_sha256: str
    images: Count
    groups: Count
    features_sha256: str
    backbones: tuple[str, ...]
    looks: Looks
    unit: Literal["image", "group"] = "image"
    pool: str | None = None

    def headline(self) -> str:
        """The question, and when it was sealed."""
        late = f", after {self.looks.count} looks at these images" if self.looks.count else ""
        return (
            f"is {self.primary} better than every single network ({', '.join(self.backbones)})? Sealed on"
            f" {self.created[:10]}{late}"
        )

    def table(self) -> list[dict[str, Any]]:
        """A row for each thing that is settled, with its value."""
        return [{"settled": name, "value": value} for name, value in self.to_json().items() if name != "kind"]


class Planning(Result, frozen=True, kw_only=True):
    """Whether a comparison was planned.

    Attributes
    ----------
    plan
        Digest of the plan that was run; None for an exploration.
    created
        When it was sealed; empty without a plan.
    before_plan
        Looks at these images before it was sealed.
    looks
        All looks at these images before this one.
    """

    plan: str | None
    created: str = ""
    before_plan: Count = 0
    looks: Looks
