"""Which layers of a network bear bfloat16, chosen by the shape of the computation.

A weight in bfloat16 is off by up to 1/512 of itself. A full convolution averages over its input channels; a depthwise
one sums nine products, and a network of them averages over nothing but its width. So a depthwise convolution with
fewer than 256 channels, and all that comes before it, stays float32; behind, kernels and biases are kept as two
numbers of bfloat16, rounded value and remainder. Measured in docs/decisions/014-where-bfloat16-rounds.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import keras

from featstore.backbones.precision import BFLOAT16, FLOAT32

WIDE: Final = 256


@dataclass(frozen=True, slots=True)
class Allocation:
    """The dtype policy of each layer.

    Attributes
    ----------
    policy
        Of every layer but those in `exact`.
    exact
        Names of the layers that stay float32.
    splits
        Whether full convolutions that do not stay float32 carry the remainder of their weights.
    """

    policy: str
    exact: frozenset[str] = frozenset()
    splits: bool = False

    def of(self, layer: Any) -> str:  # noqa: ANN401
        """Keras' dtype policy for `layer`."""
        return FLOAT32 if layer.name in self.exact else self.policy


def is_depthwise(layer: Any) -> bool:  # noqa: ANN401
    """Whether every output channel sees one input channel; ConvNeXt spells that as a convolution in groups of one."""
    if type(layer) is keras.layers.Conv2D:
        return bool(layer.groups > 1 and layer.kernel.shape[-2] == 1)
    return type(layer) is keras.layers.DepthwiseConv2D


def allocate(network: keras.Model, policy: str) -> Allocation:
    """Choose the arithmetic of each layer of a functional network.

    Parameters
    ----------
    network
        Any functional Keras network.
    policy
        Keras' dtype policy that is asked for. Only ``bfloat16`` is not given to every layer of every network.
    """
    if policy != BFLOAT16:
        return Allocation(policy)
    by_depth = network._nodes_by_depth  # noqa: SLF001 - Keras has no public word for the edges of its graph
    exact: set[str] = set()
    upstream: set[int] = set()
    splits = False
    for depth in sorted(by_depth):  # from the outputs to the inputs
        for node in by_depth[depth]:
            layer = node.operation
            depthwise = is_depthwise(layer)
            splits |= depthwise
            narrow = depthwise and layer.output.shape[-1] < WIDE
            if narrow or not upstream.isdisjoint(map(id, node.output_tensors)):
                exact.add(layer.name)
                upstream.update(map(id, node.input_tensors))
    return Allocation(policy, frozenset(exact), splits)
