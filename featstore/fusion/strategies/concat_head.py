"""Concatenate the backbones' vectors, then Dropout and one Dense layer trained by Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from featstore.errors import UsageError
from featstore.fusion.head import Head, Regimen, encode, train
from featstore.fusion.holdout import hold_out
from featstore.fusion.linear import LinearModel, rescale, standardise
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block


class ConcatHead(FusionStrategy):
    """Feature-level fusion by a neural head: concatenate, Dropout, Dense with sigmoid (two classes) or softmax.

    The same mathematics as ``keras.Model.fit`` with ``keras.optimizers.Adam`` in float32 (tests compare the
    weights), in NumPy. Validation rows are whole groups, drawn at random and stratified by class, never the last.

    The defaults come from frozen ImageNet features of 746 chest-CT slices (group 5-fold) and synthetic blocks of
    1024 to 9408 columns. Trained on every row the head equals `ConcatLogreg` (AUC 0.785 and 0.801 for one and two
    backbones) anywhere between 20 and 80 epochs. Early stopping gained nothing, and what 20 % of held-out patients
    cost, 0.02, was more than any other knob moved: hence no patience, and 10 % for the curves only. Set 0 for the
    best model.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    dropout
        Probability that an input is zeroed in training, 0 to below 1.
    learning_rate
        Of Adam; None means ``0.1 / sqrt(columns)``: on standardised blocks a step then moves a logit by about as much
        whether there are 50 columns or 10,000.
    batch_size, epochs
        Rows per step and passes over the rows.
    validation_fraction
        Part of the rows held out for the curves and for early stopping, 0 to below 1.
    patience
        Stop after so many epochs without a lower validation loss and return to the best one; None trains on.
    standardize
        Standardise columns and weigh blocks as `featstore.fusion.linear.standardise` does.
    random_state
        Seed of weights, order, masks and held-out rows. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    model_
        The fitted `LinearModel` over all columns.
    history_
        ``loss, accuracy, val_loss, val_accuracy``, each a list with one number per epoch; the last two are empty
        where no row could be held out.
    held_out_
        ``(n,)`` mask of the validation rows.
    PRESETS
        Named parameters; ``paper`` is the head of Ji et al. 2020, which leaves the dropout rate open.
    COMPETING
        Parameters for a comparison: rows held out for the learning curves alone would be a handicap there.

    References
    ----------
    Ji et al. 2020, medRxiv 10.1101/2020.12.09.20246371; Adam: Kingma & Ba 2015; dropout: Srivastava et al. 2014;
    initial weights: Glorot & Bengio 2010.
    """

    level: ClassVar[str] = "feature"
    min_blocks: ClassVar[int] = 1
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dropout": 0.5,
            "learning_rate": 1e-5,
            "batch_size": 2,
            "epochs": 100,
            "validation_fraction": 0.4,
            "patience": None,
            "standardize": False,
        }
    }
    COMPETING: ClassVar[Mapping[str, Any]] = {"validation_fraction": 0.0}

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        dropout: float = 0.5,
        learning_rate: float | None = None,
        batch_size: int = 16,
        epochs: int = 40,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        standardize: bool = True,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state

    def _learn(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        regimen = self._regimen(*X.shape)
        split_rng, init_rng, shuffle_rng, dropout_rng = _streams(self.random_state)
        held = self.held_out_ = hold_out(y, groups, self.validation_fraction, split_rng)
        mean, scale = self._scaling(X[~held])
        targets = encode(y, len(self.classes_))
        training, validation = ((rescale(X[side], mean, scale), targets[side]) for side in (~held, held))
        head = Head.draw(targets.shape[1], X.shape[1], init_rng)
        self.history_ = train(head, regimen, training, validation, shuffle_rng, dropout_rng)
        self.model_ = LinearModel(head.weights.astype(np.float64), head.bias.astype(np.float64), mean, scale)

    def _fuse(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return self.model_.proba(X)

    def _scaling(self, X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.standardize:
            return standardise(X, self.blocks_)
        return np.zeros(X.shape[1]), np.ones(X.shape[1])

    def _regimen(self, n_rows: int, n_columns: int) -> Regimen:
        """Check the parameters: fit, not the constructor, is where scikit-learn wants it."""
        learning_rate = 0.1 / np.sqrt(n_columns) if self.learning_rate is None else self.learning_rate
        in_range = {
            "dropout": 0 <= self.dropout < 1,
            "learning_rate": 0 < learning_rate < np.inf,
            "batch_size": self.batch_size >= 1,
            "epochs": self.epochs >= 1,
            "validation_fraction": 0 <= self.validation_fraction < 1,
            "patience": self.patience is None or self.patience >= 1,
        }
        for name, fine in in_range.items():
            if not fine:
                raise UsageError(
                    f"{name}={getattr(self, name)} is out of range.", f"Set {name} as documented."
                )
        batch_size = min(self.batch_size, n_rows)
        return Regimen(learning_rate, batch_size, self.epochs, self.dropout, self.patience)


def _streams(random_state: int | np.random.RandomState | None) -> list[np.random.Generator]:
    """Four independent generators, so that a longer training does not change who is held out."""
    seed = check_random_state(random_state).randint(2**31 - 1) if random_state is not None else None
    return [np.random.Generator(np.random.PCG64(part)) for part in np.random.SeedSequence(seed).spawn(4)]
