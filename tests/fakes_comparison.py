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
        pairs=[PairwiseDifference(a, b, "auc", 0.02, (-0.1, 0.1), 0.5, verdict, 900, {})],
        selection_bias=SelectionBias(a, 2, "auc", 0.9, 0.86, (0.8, 0.91), 0.04, 0.3),
        operating_point_request=OperatingPointRequest(None, None, 1),
        curves={},
        selected_backbones=(),
        view_curve=(),
        backbone_value=None,
        own_split=False,
        shortcuts=(),
        findings=(),
    )
