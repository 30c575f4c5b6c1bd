"""A comparison that nobody has made, with as much of it as a text about it looks at."""

from types import SimpleNamespace

from featstore.evaluation.calibration import OperatingPointRequest
from featstore.evaluation.estimates import MetricEstimate
from featstore.evaluation.metrics import METRICS
from featstore.evaluation.pairwise_tests import PairwiseDifference
from featstore.evaluation.selection_bias import SelectionBias


def standing(label, auc, interval, backbones=("A", "B")):
    plain = MetricEstimate(0.7, 0.1, (0.6, 0.8), (0.7, 0.7))
    estimates = {**dict.fromkeys(METRICS, plain), "auc": MetricEstimate(auc, 0.1, interval, (auc, auc))}
    return SimpleNamespace(
        contestant=SimpleNamespace(label=label, backbones=backbones),
        primary=auc or 0.0,
        spread=SimpleNamespace(patients=0.03, folds=None, training=None),
        estimates=estimates,
    )


def result(standings, verdict="cannot_tell"):
    a, b = standings[0].contestant.label, standings[1].contestant.label
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
        standings=standings,
        duels=[PairwiseDifference(a, b, "auc", 0.02, (-0.1, 0.1), 0.5, verdict, 900, {})],
        winner=SelectionBias(a, 2, "auc", 0.9, 0.86, (0.8, 0.91), 0.04, 0.3),
        wish=OperatingPointRequest(None, None, 1),
        curves={},
        drafts=(),
        view_curve=(),
        economics=None,
        own_split=False,
        shortcuts=(),
        findings=(),
    )
