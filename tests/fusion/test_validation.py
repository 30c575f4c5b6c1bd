"""A network validated on rows of the caller's choice, as Keras does with ``validation_data``."""

import numpy as np
import pytest

from featstore.errors import UsageError
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.strategies.concat_mlp import ConcatMlp


def problem(n, seed):
    rng = np.random.default_rng(seed)
    y = np.array(["ill", "well"])[np.arange(n) % 2]
    return rng.normal(size=(n, 6)) + (y == "well")[:, None], y


def test_given_rows_are_validated_on_and_every_training_row_is_learnt_from():
    X, y = problem(40, 0)
    seen, truth = problem(30, 1)
    head = ConcatHead(epochs=3).fit(X, y, validation=(seen, truth))
    alone = ConcatHead(epochs=3, validation_fraction=0.0).fit(X, y)
    assert head.parameters_.tobytes() == alone.parameters_.tobytes(), "validation teaches nothing"
    assert not head.held_out_.any()
    assert head.history_["val_accuracy"][-1] == (head.predict(seen) == truth).mean()
    p = head.predict_proba(seen)[np.arange(30), np.searchsorted(head.classes_, truth)]
    assert head.history_["val_loss"][-1] == pytest.approx(-np.log(p).mean(), rel=1e-5)
    assert head.history_["val_loss"] != ConcatHead(epochs=3).fit(X, y).history_["val_loss"]


def test_patience_watches_the_given_rows_and_fine_tuning_takes_them_too():
    X, y = problem(40, 0)
    seen, truth = problem(30, 1)
    head = ConcatHead(epochs=60, learning_rate=0.1, patience=2).fit(X, y, validation=(seen, truth))
    assert len(head.history_["val_loss"]) < 60
    tuned = ConcatHead(epochs=2).fine_tune(head, X, y, validation=(seen, truth))
    assert len(tuned.history_["val_loss"]) == 2


def test_a_class_that_was_never_trained_on_cannot_be_validated():
    X, y = problem(20, 0)
    with pytest.raises(UsageError, match="unknown"):
        ConcatHead(epochs=1).fit(X, y, validation=(X[:2], ["ill", "unknown"]))


def test_a_parameter_out_of_range_is_refused_with_and_without_validation_rows():
    X, y = problem(20, 0)
    for more in ({}, {"validation": (X, y)}):
        with pytest.raises(UsageError, match="units"):
            ConcatMlp(units=0).fit(X, y, **more)
