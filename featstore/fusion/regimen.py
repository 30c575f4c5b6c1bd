"""How a network is trained, read off the parameters of its strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.optimisers import RULES
from featstore.fusion.schedules import SCHEDULES
from featstore.fusion.training import Regimen

if TYPE_CHECKING:
    from featstore.fusion.neural import NeuralStrategy

GENTLER = 0.1
"""Factor on the learning rate of earlier weights, where none is given."""


def regimen_of(
    strategy: NeuralStrategy, n_rows: int, n_columns: int, earlier: NeuralStrategy | None = None
) -> Regimen:
    """Check the parameters of a strategy, and settle the open ones: fit, not the constructor, is where this belongs.

    Parameters
    ----------
    strategy
        What is to be trained.
    n_rows, n_columns
        What on.
    earlier
        Strategy whose weights it goes on from.

    Raises
    ------
    UsageError
        If a parameter is out of range.
    """
    learning_rate = strategy.learning_rate
    if learning_rate is None and earlier is not None:
        learning_rate = GENTLER * (earlier.learning_rate or _own_rate(n_columns))
    elif learning_rate is None:
        learning_rate = _own_rate(n_columns)
    in_range = {
        "dropout": 0 <= strategy.dropout < 1,
        "learning_rate": 0 < learning_rate < np.inf,
        "batch_size": strategy.batch_size is None or strategy.batch_size >= 1,
        "epochs": strategy.epochs >= 1,
        "validation_fraction": 0 <= strategy.validation_fraction < 1,
        "patience": strategy.patience is None or strategy.patience >= 1,
        "optimizer": strategy.optimizer in RULES,
        "schedule": strategy.schedule in SCHEDULES,
    }
    for name, fine in in_range.items():
        if not fine:
            raise UsageError(
                f"{name}={getattr(strategy, name)} is out of range.", f"Set {name} as documented."
            )
    batch_size = min(strategy.batch_size or n_rows, n_rows)
    return Regimen(
        learning_rate,
        batch_size,
        strategy.epochs,
        strategy.dropout,
        strategy.patience,
        strategy.optimizer,
        strategy.schedule,
    )


def _own_rate(n_columns: int) -> float:
    return 0.1 / float(np.sqrt(n_columns))
