"""A comparison that nobody has made, with as much of it as a text about it looks at."""

from types import SimpleNamespace

from featstore.evaluation.metrics import METRICS
from featstore.results.comparison import PairwiseDifference, Protocol, SelectionBias
from featstore.results.scores import MetricEstimate


def estimate(mean, interval):
    return MetricEstimate(mean=mean, deviation=0.1, interval=interval, folds=(mean, mean))


def difference(a, b, verdict):
    return PairwiseDifference(
        a=a, b=b, metric="auc", delta=0.02, interval=(-0.1, 0.1), p=0.5, verdict=verdict, needed=900, tests={}
    )


def bias(name, **changed):
    known = {"of": 2, "apparent": 0.9, "corrected": 0.86, "interval": (0.8, 0.91), "optimism": 0.04}
    return SelectionBias(**{"name": name, "metric": "auc", "selection_frequency": 0.3, **known, **changed})


def standing(label, auc, interval, backbones=("A", "B")):
    plain = estimate(0.7, (0.6, 0.8))
    estimates = {**dict.fromkeys(METRICS, plain), "auc": estimate(auc, interval)}
    return SimpleNamespace(
        candidate=SimpleNamespace(label=label, backbones=backbones),
        primary=auc or 0.0,
        variance_components=SimpleNamespace(patients=0.03, folds=None, training=None),
        estimates=estimates,
    )


def result(scored, verdict="cannot_tell"):
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
    return SimpleNamespace(
        matrix=matrix,
        folds=5,
        repeats=1,
        candidates=scored,
        pairs=[difference(a, b, verdict)],
        selection_bias=bias(a),
        protocol=Protocol(folds=5, repeats=1, fold_seed=0, calibrate=None, sensitivity=None),
        curves={},
        selected_backbones=(),
        view_curve=(),
        backbone_value=None,
        own_split=False,
        shortcuts=(),
        findings=(),
    )
