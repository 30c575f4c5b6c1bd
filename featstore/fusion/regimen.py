"""How a network is trained: the settings in force, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from sklearn.utils import check_random_state

from featstore.errors import UsageError, did_you_mean
from featstore.fusion.optimisers import RULES
from featstore.fusion.schedules import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from featstore.fusion.neural import NeuralStrategy

GENTLER = 0.1
"""Factor on the learning rate of earlier weights, where none is given."""

RANGES: dict[str, Callable[[Any], bool]] = {
    "dropout": lambda rate: 0 <= rate < 1,
    "learning_rate": lambda rate: rate is None or 0 < rate < np.inf,
    "batch_size": lambda size: size is None or size >= 1,
    "epochs": lambda count: count >= 1,
    "validation_fraction": lambda share: 0 <= share < 1,
    "patience": lambda count: count is None or count >= 1,
    "optimizer": lambda name: name in RULES,
    "schedule": lambda name: name in SCHEDULES,
}


WORDS: dict[str, Iterable[str]] = {"optimizer": RULES, "schedule": SCHEDULES}
"""Settings that are one of several names."""


class Settings(Protocol):
    """Parameters of a strategy as the user set them: see `featstore.fusion.neural.NeuralStrategy`."""

    dropout: float
    batch_size: int | None
    epochs: int
    patience: int | None
    optimizer: str
    schedule: str


@dataclass(frozen=True, slots=True)
class Regimen:
    """How a network is trained.

    Attributes
    ----------
    learning_rate
        The optimiser's.
    batch_size
        Rows per step; the last batch of an epoch is smaller, as in Keras.
    epochs
        Passes over the training rows, at most.
    dropout
        Probability that an input is zeroed, 0 to below 1; the others are scaled up.
    patience
        Stop after so many epochs without a lower validation loss and go back to the best one; None trains to the end.
    optimizer
        Key of `featstore.fusion.optimisers.RULES`.
    schedule
        Key of `featstore.fusion.schedules.SCHEDULES`.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    dropout: float = 0.0
    patience: int | None = None
    optimizer: str = "adam"
    schedule: str = "constant"

    @classmethod
    def of(cls, settings: Settings, learning_rate: float, n_rows: int) -> Self:
        """Regimen for epochs of `n_rows` rows.

        Raises
        ------
        UsageError
            If a setting is out of range: fit, not the constructor, is where scikit-learn wants it.
        """
        for name, in_range in RANGES.items():
            value = getattr(settings, name)
            try:
                fine = in_range(value)
            except TypeError:
                fine = False
            if not fine:
                words = WORDS.get(name)
                raise UsageError(
                    f"{name}={value} is out of range.",
                    did_you_mean(str(value), words) if words else f"Set {name} as documented.",
                )
        return cls(
            learning_rate,
            min(settings.batch_size or n_rows, n_rows),
            settings.epochs,
            settings.dropout,
            settings.patience,
            settings.optimizer,
            settings.schedule,
        )


def settled_rate(strategy: NeuralStrategy, n_columns: int, earlier: NeuralStrategy | None) -> float:
    """Learning rate: the one given, else a tenth of the earlier strategy's, else one that suits the width."""
    if strategy.learning_rate is not None:
        return strategy.learning_rate
    if earlier is not None:
        return GENTLER * (earlier.learning_rate or _own_rate(n_columns))
    return _own_rate(n_columns)


def streams(random_state: int | np.random.RandomState | None) -> list[np.random.Generator]:
    """Four independent generators, so that a longer training does not change who is held out."""
    seed = check_random_state(random_state).randint(2**31 - 1) if random_state is not None else None
    return [np.random.Generator(np.random.PCG64(part)) for part in np.random.SeedSequence(seed).spawn(4)]


def _own_rate(n_columns: int) -> float:
    return 0.1 / float(np.sqrt(n_columns))
