"""Neural strategies with hidden units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featstore.errors import UsageError
from featstore.fusion.neural import NeuralStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block


class HiddenStrategy(NeuralStrategy):
    """Base of the networks with a hidden layer; the parameters are those of `NeuralStrategy`, and one more.

    Dropout is of the inputs, of which a hidden layer needs more at a time than a single sum does: 0.2, as Srivastava
    et al. 2014 advise for inputs.

    Parameters
    ----------
    units
        Width of the hidden layer, 1 or more.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        units: int = 32,
        dropout: float = 0.2,
        learning_rate: float | None = None,
        batch_size: int | None = 16,
        epochs: int = 40,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        standardize: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        optimizer: str = "adam",
        schedule: str = "constant",
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> None:
        super().__init__(
            blocks=blocks,
            dropout=dropout,
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            validation_fraction=validation_fraction,
            patience=patience,
            standardize=standardize,
            random_state=random_state,
            optimizer=optimizer,
            schedule=schedule,
            class_weight=class_weight,
        )
        self.units = units

    def _train(self, X: NDArray[Any], y: NDArray[np.intp], *more: Any, **named: Any) -> None:  # noqa: ANN401
        if self.units < 1:
            raise UsageError(f"units={self.units} is out of range.", "Set units as documented.")
        super()._train(X, y, *more, **named)
