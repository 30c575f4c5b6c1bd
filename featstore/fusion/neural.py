"""Strategies that are small networks: one trainer, and one way to go on from earlier weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import validate_data

from featstore.errors import UsageError, did_you_mean, nearest
from featstore.fusion.linear import ROWS_AT_ONCE, probabilities, rescale, standardise
from featstore.fusion.strategy import FLOATS, FusionStrategy, number_rows
from featstore.fusion.training import Network, TrainingConfig, TrainingRows, as_targets, rng_streams, train
from featstore.splits import validation_mask

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from featstore.types import Block

    ValidationSet = tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp] | None]


class NeuralStrategy(FusionStrategy):
    """Base of the networks: subclasses say in `_network` which.

    Validation rows are whole groups, drawn at random and stratified by class, never the last.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    dropout
        Probability that an input is zeroed in training, 0 to below 1.
    learning_rate
        Of the optimiser; None means ``0.1 / sqrt(columns)``: on standardised blocks a step of Adam then moves a logit
        by about as much whether there are 50 columns or 10,000.
    batch_size, epochs
        Rows per step (None: all of them) and passes over the rows.
    validation_fraction
        Part of the rows held out for the curves and for early stopping, 0 to below 1.
    patience
        Stop after so many epochs without a lower validation loss and return to the best one; None trains on.
    standardize
        Standardise columns and weigh blocks as `featstore.fusion.linear.standardise` does.
    random_state
        Seed of weights, order, masks and held-out rows. The default 0 makes two fits the same bytes.
    optimizer
        ``sgd``, ``momentum``, ``nag``, ``adagrad``, ``adadelta``, ``rmsprop`` or ``adam``.
    schedule
        ``constant``, ``piecewise_constant``, ``cosine``, ``exponential`` or ``reduce_on_plateau``: see
        `featstore.fusion.training`.
    class_weight
        ``balanced``, or a factor on the loss by label (or its text); None weighs every row alike.

    Attributes
    ----------
    parameters_
        ``(size,)`` float32, all weights and biases.
    mean_, scale_
        ``(d,)`` each: what the columns are standardised with.
    history_
        ``loss, accuracy, val_loss, val_accuracy``, each a list with one number per epoch; the last two are empty
        where no row could be held out.
    held_out_
        ``(n,)`` mask of the validation rows.
    COMPARISON_OPTIONS
        Parameters for a comparison: rows held out for the learning curves alone would be a handicap there.
    """

    COMPARISON_OPTIONS: ClassVar[Mapping[str, Any]] = {"validation_fraction": 0.0}
    parameters_: NDArray[np.float32]
    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        dropout: float = 0.5,
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
        self.blocks = blocks
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state
        self.optimizer = optimizer
        self.schedule = schedule
        self.class_weight = class_weight

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        validation: Sequence[ArrayLike] | None = None,
    ) -> Self:
        """Learn as `FusionStrategy.fit` says, from image-views.

        Parameters
        ----------
        X, y, groups
            As there.
        validation
            Features ``(m, d)`` and labels ``(m,)`` to validate on, as Keras' ``validation_data``, and where there are
            such, groups ``(m,)``; no row of `X` is held out then. So curves can be those of plain images.
        """
        self._train(*self._validate(X, y, groups), read_validation(self, validation))
        return self

    def fine_tune(
        self,
        earlier: NeuralStrategy,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        freeze: Sequence[str] = (),
        validation: Sequence[ArrayLike] | None = None,
    ) -> Self:
        """Learn as `fit` does, but go on from the weights and the scaling of a fitted strategy.

        Parameters
        ----------
        earlier
            Fitted, of the same kind, with the same blocks and classes. Where `learning_rate` is None, a tenth of the
            earlier rate is taken.
        X, y, groups, validation
            As for `fit`.
        freeze
            Names of blocks whose input weights stay as they are.

        Raises
        ------
        UsageError
            If the two do not match, a block to freeze does not exist, or `fit` would refuse.
        """
        admitted = self._validate(X, y, groups)
        check_compatible(earlier, self)
        unknown = sorted(set(freeze) - {block.name for block in self.blocks_})
        if unknown:
            raise UsageError(
                f"There is no block {', '.join(unknown)} to freeze.",
                did_you_mean(unknown[0], [block.name for block in self.blocks_]),
            )
        self._train(*admitted, read_validation(self, validation), earlier, freeze)
        return self

    def fit_views(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None,
        images: ArrayLike,
        validation: Sequence[ArrayLike] | None = None,
    ) -> Self:
        """Learn as `fit` does, but from one view of each image in every epoch, drawn anew.

        Parameters
        ----------
        X, y, groups, validation
            As for `fit`, one row of X for each view of each image. The columns are standardised over all of them.
        images
            ``(n,)`` which image each row is a view of.

        Raises UsageError if there is not one image per row, or `fit` would refuse.
        """
        admitted = self._validate(X, y, groups)
        numbers = number_rows(images, len(admitted[0]), "image")
        self._train(*admitted, read_validation(self, validation), images=numbers)
        return self

    def _train(
        self,
        X: NDArray[Any],
        y: NDArray[np.intp],
        groups: NDArray[np.intp] | None,
        given: ValidationSet | None = None,
        earlier: NeuralStrategy | None = None,
        freeze: Sequence[str] = (),
        images: NDArray[np.intp] | None = None,
    ) -> None:
        bags = self._bags(y, groups)
        answered = images if bags is None else bags
        per_epoch = len(X) if answered is None else len(np.unique(answered))
        config = TrainingConfig.from_options(
            self, resolve_learning_rate(self, X.shape[1], earlier), per_epoch
        )
        split_rng, init_rng, shuffle_rng, dropout_rng = rng_streams(self.random_state)
        share = 0.0 if given else self.validation_fraction
        held = self.held_out_ = validation_mask(y, groups, share, split_rng)
        scaling = self._scaling(X[~held]) if earlier is None else (earlier.mean_, earlier.scale_)
        self.mean_, self.scale_ = scaling
        targets = as_targets(y, len(self.classes_))
        kept = None if bags is None else bags[~held]
        training = TrainingRows(
            rescale(X[~held], *scaling),
            targets[~held],
            self._row_weights(y[~held], kept),
            None if images is None else images[~held],
            kept,
        )
        validation = self._validation_rows(
            given or (X[held], y[held], None if groups is None else groups[held])
        )
        network = self._network(targets.shape[1], np.float32)
        network.initialise(init_rng)
        if earlier is not None:
            network.parameters[:] = earlier.parameters_
        frozen = [slice(block.start, block.stop) for block in self.blocks_ if block.name in freeze]
        self.history_ = train(network, config, training, validation, shuffle_rng, dropout_rng, frozen)
        self.parameters_ = network.parameters

    def _bags(self, y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> NDArray[np.intp] | None:  # noqa: ARG002
        """Bag of each row ``(n,)`` for a `BagNetwork`; None where every row has an answer of its own, as here."""
        return None

    def _row_weights(self, y: NDArray[np.intp], bags: NDArray[np.intp] | None) -> NDArray[np.float32] | None:
        """Factors ``(n,)`` on the loss of each row, where bags count, not rows, if there are such."""
        if bags is None:
            return row_weights(self.class_weight, self.classes_, y)
        _, first, whose = np.unique(bags, return_index=True, return_inverse=True)
        weights = row_weights(self.class_weight, self.classes_, y[first])
        return None if weights is None else weights[whose]

    def _validation_rows(self, shown: ValidationSet) -> TrainingRows:
        """Rows to validate on, scaled, those of a bag side by side."""
        X, y, groups = shown
        bags = self._bags(y, groups)
        if bags is not None:
            order = np.argsort(bags, kind="stable")
            X, y, bags = X[order], y[order], bags[order]
        return TrainingRows(rescale(X, self.mean_, self.scale_), as_targets(y, len(self.classes_)), bags=bags)

    def _predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        network = self._restored()
        parts = [network.forward(part) for part in self._scaled(X)]
        proba: NDArray[np.float64] = probabilities(np.concatenate(parts))
        return proba

    def _network(self, n_logits: int, dtype: type[np.floating[Any]]) -> Network:
        """Make the untrained network for `blocks_`."""
        raise NotImplementedError

    def _restored(self) -> Any:  # noqa: ANN401
        """Trained network in float64."""
        network = self._network(1 if len(self.classes_) == 2 else len(self.classes_), np.float64)  # noqa: PLR2004
        width = (self.n_features_in_,)
        if (self.parameters_.shape, self.mean_.shape, self.scale_.shape) != (
            network.parameters.shape,
            width,
            width,
        ):
            raise ValueError("parameters, mean or scale do not fit the network")
        network.parameters[:] = self.parameters_
        return network

    def _scaled(self, X: NDArray[Any]) -> list[NDArray[np.float64]]:
        starts = range(0, len(X), ROWS_AT_ONCE)
        return [(X[start : start + ROWS_AT_ONCE] - self.mean_) * self.scale_ for start in starts]

    def _scaling(self, X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.standardize:
            return standardise(X, self.blocks_)
        return np.zeros(X.shape[1]), np.ones(X.shape[1])


# Networks with hidden units


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


# Whether the weights of one network mean the same in another


def check_compatible(earlier: FusionStrategy, now: FusionStrategy) -> None:
    """Make sure that both are the same strategy, over the same blocks and classes.

    Raises
    ------
    UsageError
        If they are not.
    """
    if type(earlier) is not type(now):
        raise UsageError(
            f"The earlier model is {type(earlier).__name__}, this one {type(now).__name__}.",
            "Use the same strategy.",
        )
    if earlier.blocks_ != now.blocks_:
        raise UsageError(
            f"The earlier model reads the blocks {_blocks(earlier)}, this one {_blocks(now)}.",
            "Give the same backbones, in the same order.",
        )
    theirs, ours = earlier.classes_.tolist(), now.classes_.tolist()
    if theirs != ours:
        raise UsageError(
            f"The earlier model knows the classes {theirs}, these rows {ours}.",
            "Fine-tune with the same classes.",
        )
    if getattr(earlier, "units", None) != getattr(now, "units", None):
        raise UsageError("The earlier model has another number of units.", "Give the same units.")


def _blocks(strategy: FusionStrategy) -> str:
    return "+".join(f"{block.name}({block.width})" for block in strategy.blocks_)


# Rows that a caller wants a network to be validated on


def read_validation(strategy: FusionStrategy, validation: Sequence[ArrayLike] | None) -> ValidationSet | None:
    """Check rows to validate on, and number their classes as the training rows of `strategy` are numbered.

    Parameters
    ----------
    strategy
        It has seen its training rows, but has not been trained.
    validation
        Features ``(m, d)``, labels ``(m,)``, and groups ``(m,)`` where there are such; None stays None.

    Raises
    ------
    UsageError
        If they hold a class without a training row, or there is not one group per row.
    """
    if validation is None:
        return None
    features, given, *groups = validation
    labels = np.asarray(given)
    unknown = sorted(set(labels.tolist()) - set(strategy.classes_.tolist()))
    if unknown:
        raise UsageError(
            f"There are validation rows of {unknown[0]!r}, and no training row.",
            "Train on images of every class.",
        )
    X: NDArray[Any] = validate_data(
        strategy,
        features,
        dtype=FLOATS,
        reset=False,
        ensure_all_finite=not hasattr(strategy, "covariates_"),
    )
    return (
        strategy.with_covariates(X),
        np.searchsorted(strategy.classes_, labels),
        number_rows(groups[0], len(labels), "group") if groups else None,
    )


# Factors on the loss of each row, by its class


def row_weights(
    class_weight: str | Mapping[Any, float] | None, classes: NDArray[Any], y: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """Factors ``(n,)`` of rows with class numbers ``y (n,)``; None where every row counts alike.

    Parameters
    ----------
    class_weight
        ``balanced`` (n / (number of classes * rows of the class), as in scikit-learn), or a factor by label or by its
        text, 1 for a label that is not there.
    classes
        ``(n_classes,)`` labels.

    Raises
    ------
    UsageError
        If it is another word, a label does not exist, or a factor is negative.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, Mapping):
        factors = _by_label(class_weight, [str(label) for label in classes.tolist()])
    elif class_weight == "balanced":
        factors = compute_class_weight("balanced", classes=np.arange(len(classes)), y=y)
    else:
        raise UsageError(
            f"class_weight={class_weight} is out of range.", did_you_mean(str(class_weight), ["balanced"])
        )
    weights: NDArray[np.float32] = factors[y].astype(np.float32)
    return weights


def _by_label(given: Mapping[Any, float], labels: list[str]) -> NDArray[np.float64]:
    factors = {str(label): float(factor) for label, factor in given.items()}
    strange = sorted(set(factors) - set(labels))
    close = nearest(strange[0], labels) if strange else []
    question = f"Did you mean {close[0]}? " if close else ""
    if strange or min(factors.values(), default=0.0) < 0:
        raise UsageError(
            f"class_weight={dict(given)} is out of range.",
            f"{question}Name labels ({', '.join(labels)}), none below 0.",
        )
    return np.array([factors.get(label, 1.0) for label in labels])


# Learning rates

FINE_TUNE_FACTOR = 0.1
"""Factor on the learning rate of earlier weights, where none is given."""


def resolve_learning_rate(strategy: NeuralStrategy, n_columns: int, earlier: NeuralStrategy | None) -> float:
    """Learning rate: the one given, else a tenth of the earlier strategy's, else one that suits the width."""
    if strategy.learning_rate is not None:
        return strategy.learning_rate
    if earlier is not None:
        return FINE_TUNE_FACTOR * (earlier.learning_rate or _own_rate(n_columns))
    return _own_rate(n_columns)


def _own_rate(n_columns: int) -> float:
    return 0.1 / float(np.sqrt(n_columns))
