"""Strategies inside scikit-learn, as the documentation shows it."""

import re
from pathlib import Path

from fakes_matrix import make_matrix

import featstore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"


def test_the_documented_grid_search_runs_and_keeps_patients_together(monkeypatch):
    matrix = make_matrix(signal=(3.0, 1.0), patients=30, views=1)
    monkeypatch.setattr(featstore, "load_matrix", lambda *_, **__: matrix, raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102 - the page is ours
    search = names["search"]
    assert search.best_score_ > 0.9
    assert search.best_estimator_.predict_proba(matrix.X).shape == (90, 2)
    for train, test in names["search"].cv.split(matrix.X, matrix.y, matrix.groups):
        assert not set(matrix.groups[train]) & set(matrix.groups[test])
