"""A comparison that nobody has made, with as much of it as a text about it looks at."""

from types import SimpleNamespace

from featstore.evaluation.metrics import METRICS
from featstore.results.comparison import (
    PairwiseDifference,
    PlannedDifference,
    PrimaryQuestion,
    Protocol,
    SelectionBias,
)
from featstore.results.scores import MetricEstimate


def estimate(mean, interval):
    return MetricEstimate(mean=mean, deviation=0.1, interval=interval, folds=(mean, mean))


def difference(a, b, verdict, p=0.5, delta=0.02):
    reach = (delta - 0.1, delta + 0.1)
    return PairwiseDifference(
        a=a,
        b=b,
        metric="auc",
        delta=delta,
        interval=reach,
        simultaneous=reach,
        p=p,
        verdict=verdict,
        tests={},
    )


def planned(name, delta=0.02, p=0.018, interval=(-0.01, 0.05)):
    return PlannedDifference(name=name, delta=delta, interval=interval, p=p)


def question(verdict, primary="fused", against="A", **changed):
    known = {
        "singles": (planned(against), planned("B", 0.1)),
        "margin": 0.01,
        "patients": 24,
        "detectable": 0.0512,
    }
    return PrimaryQuestion(
        **{"primary": primary, "metric": "auc", "verdict": verdict, "against": against, **known, **changed}
    )


def bias(name, **changed):
    known = {"of": 2, "apparent": 0.9, "corrected": 0.86, "interval": (0.8, 0.91), "optimism": 0.04}
    return SelectionBias(**{"name": name, "metric": "auc", "selection_frequency": 0.3, **known, **changed})


def scored(label, auc, interval, backbones=("A", "B")):
    plain = estimate(0.7, (0.6, 0.8))
    estimates = {**dict.fromkeys(METRICS, plain), "auc": estimate(auc, interval)}
    return SimpleNamespace(
        candidate=SimpleNamespace(label=label, backbones=backbones, strategy="concat_logreg"),
        primary=auc or 0.0,
        variance_components=SimpleNamespace(patients=0.03, folds=None, training=None),
        estimates=estimates,
    )


def result(scored, verdict="cannot_tell", **changed):
    """A comparison whose first candidate is the primary fusion, and whose second is the single network."""
    a, b = scored[0].candidate.label, scored[1].candidate.label
    matrix = {
        "images": 96,
        "groups": 24,
        "groups_set_aside": False,
        "has_groups": True,
        "quarantined": 0,
        "tuned": [],
        "set_apart": 0,
        "positive": "ill",
        "classes": {"ill": 48, "well": 48},
        "backbones": [{"name": "A"}, {"name": "B"}],
        "views": [{"recipe": "identity", "seed": 0}],
    }
    known = {
        "matrix": matrix,
        "folds": 5,
        "repeats": 1,
        "candidates": scored,
        "primary_question": question(verdict, a, b),
        "pairs": [difference(a, b, "cannot_tell")],
        "selection_bias": bias(a),
        "planning": None,
        "protocol": Protocol(
            folds=5, repeats=1, fold_seed=0, calibrate=None, sensitivity=None, adjustment="max-T"
        ),
        "curves": {},
        "selected_backbones": (),
        "view_curve": (),
        "backbone_value": None,
        "own_split": False,
        "shortcuts": (),
        "findings": (),
        "by_image": None,
        "sites": None,
    }
    return SimpleNamespace(**{**known, **changed})
