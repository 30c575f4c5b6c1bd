"""Whether the weights of one network mean the same in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.errors import UsageError

if TYPE_CHECKING:
    from featstore.fusion.strategy import FusionStrategy


def require_kin(earlier: FusionStrategy, now: FusionStrategy) -> None:
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
