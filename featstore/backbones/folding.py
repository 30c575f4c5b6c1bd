"""Frozen networks made cheaper: batch norms folded into convolutions, in the precision that is asked for.

At inference a batch norm is one multiplication and one addition per channel. Behind a convolution both go into kernel
and bias (Jacob et al., "Quantization and Training of Neural Networks", CVPR 2018, section 3.2). Elsewhere, as in
DenseNet, it becomes a depthwise convolution of 1 x 1, which takes in the ReLU behind it: 10 % faster than
`tf.nn.fused_batch_norm` for the whole network. A layer that is not understood here stays as it was.

Which layers bear bfloat16 is chosen by the shape of the computation. A weight in bfloat16 is off by up to 1/512 of
itself. A full convolution averages over its input channels; a depthwise one sums nine products, and a network of them
averages over nothing but its width. So a depthwise convolution with fewer than 256 channels, and all that comes
before it, stays float32; behind, kernels and biases are kept as two numbers of bfloat16, rounded value and remainder.
Measured in docs/decisions/014-where-bfloat16-rounds.md.

Functions that a CPU approximates (exponential, reciprocal root) are computed in whole packets, because TensorFlow
takes another formula for the numbers left over at the end of a tensor: docs/decisions/019-rows-and-kernels.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from featstore.backbones.precision import BFLOAT16, FLOAT32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import tensorflow as tf
    from numpy.typing import NDArray


# Folding

_CONVOLUTIONS: Final = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
# TensorFlow fuses a ReLU with these, if nobody else looks at what stands between.
_BEFORE_RELU: Final = (*_CONVOLUTIONS, keras.layers.BatchNormalization, keras.layers.Add, CustomScaleLayer)
# Pixels of 0..255 have more bits than bfloat16, and a mean of many numbers needs more still.
_ALWAYS_FLOAT32: Final = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.GlobalAveragePooling2D,
)


def fold(network: keras.Model, policy: str = FLOAT32) -> keras.Model:
    """Rebuild a functional network for inference, cheaper and otherwise the same.

    Parameters
    ----------
    network
        Any functional Keras network, with its weights. Layers without a cheaper form are shared with the result
        where `policy` is ``float32``.
    policy
        Keras' dtype policy of everything but rescaling, normalisation and global average pooling, and of what
        `featstore.backbones.folding` exempts.

    Returns
    -------
    keras.Model
        In ``float32`` its output differs from that of `network` by rounding alone (less than 1e-6 relative).
    """
    rebuilder = _LayerRebuilder(_find_foldable(network), choose_policies(network, policy))
    folded = keras.models.clone_model(network, clone_function=rebuilder.replace, call_function=_call)
    rebuilder.copy_weights()
    folded.trainable = False
    return folded


@dataclass(slots=True)
class _Foldable:
    """What can be made cheaper, by layer name.

    Attributes
    ----------
    norms
        Batch norm that a convolution takes in.
    scales
        Factor on its branch of a sum that a convolution takes in.
    bare_sums
        Sums whose factor has gone into a convolution.
    lone_norms, lone_relus
        Batch norms that no convolution takes in; ReLUs that TensorFlow cannot or must not fuse.
    """

    norms: dict[str, keras.layers.BatchNormalization] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    bare_sums: set[str] = field(default_factory=set)
    lone_norms: set[str] = field(default_factory=set)
    lone_relus: set[str] = field(default_factory=set)


def _find_foldable(network: keras.Model) -> _Foldable:
    by_depth = network._nodes_by_depth  # noqa: SLF001 - Keras has no public word for the edges of its graph
    nodes = [node for level in by_depth.values() for node in level if not node.is_input]
    calls = Counter(node.operation.name for node in nodes)
    uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    uses.update(map(id, network.outputs))
    makers = {id(tensor): node.operation for node in nodes for tensor in node.output_tensors}
    findings = _Foldable()
    for node in nodes:
        if calls[node.operation.name] == 1:
            source = id(node.input_tensors[-1])
            maker = makers.get(source)
            private = maker is not None and uses[source] == 1 and calls[maker.name] == 1
            _examine_layer(findings, node.operation, maker if private else None)
    return findings


def _examine_layer(findings: _Foldable, layer: Any, maker: Any) -> None:  # noqa: ANN401
    """Look at one layer; `maker` is what feeds it, and it alone, or None."""
    linear = _is_convolution(maker) and maker.activation is keras.activations.linear
    if _is_batch_norm(layer):
        if linear:
            findings.norms[maker.name] = layer
        else:
            findings.lone_norms.add(layer.name)
    elif type(layer) is CustomScaleLayer and linear:
        findings.scales[maker.name] = layer.scale
        findings.bare_sums.add(layer.name)
    elif _is_relu(layer) and type(maker) not in _BEFORE_RELU:
        findings.lone_relus.add(layer.name)


class _LayerRebuilder:
    """Makes the new layers, and remembers which copies still want the weights of their originals."""

    def __init__(self, findings: _Foldable, allocation: LayerPolicies) -> None:
        self._findings = findings
        self._allocation = allocation
        self._taken_in = {norm.name for norm in findings.norms.values()}
        self._copies: list[tuple[keras.Layer, keras.Layer]] = []

    def replace(self, layer: Any) -> Any:  # noqa: ANN401
        """Layer or operation that does the work of `layer` in the new network."""
        name = {"name": layer.name, "dtype": self._allocation.policy_of(layer)}
        match layer:
            case keras.Model():
                return fold(
                    keras.Model(layer.inputs, layer.outputs, name=layer.name),
                    self._allocation.policy_of(layer),
                )
            case _ if _is_convolution(layer):
                return self._convolution(layer)
            case _ if _is_pixelwise(layer):
                return self._pixelwise(layer)
            case _ if layer.name in self._taken_in:
                new: Any = keras.layers.Identity(**name)
            case _ if layer.name in self._findings.bare_sums:
                new = keras.layers.Add(**name)
            case _ if layer.name in self._findings.lone_norms:
                scale, bias = _affine(layer)
                depthwise = scale[None, None, :, None]
                new = Convolution(
                    **name, depthwise=depthwise, kernel=None, bias=bias, shape=layer.output.shape
                )
            case _ if layer.name in self._findings.lone_relus:
                new = Rectifier(**name)
            case _:
                new = self._copy(layer)
        return new

    def copy_weights(self) -> None:
        """Give the copies, which Keras has built by now, their weights."""
        for original, copy in self._copies:
            copy.set_weights([values_of(weight) for weight in original.weights])

    def _copy(self, layer: Any) -> Any:  # noqa: ANN401
        # An operation that is no layer, such as `x + 3`, computes in the type that it is given.
        as_it_is = isinstance(layer, _ALWAYS_FLOAT32) or not isinstance(layer, keras.Layer)
        policy = self._allocation.policy_of(layer)
        if type(layer) is keras.layers.Activation and layer.activation in _APPROXIMATED:
            return keras.layers.Activation(in_whole_packets(layer.activation), name=layer.name, dtype=policy)
        kind = LayerNormalization if _is_layer_norm(layer) else type(layer)
        if kind is type(layer) and (policy == FLOAT32 or as_it_is):
            return layer
        copy = kind.from_config({**layer.get_config(), "dtype": policy})
        self._copies.append((layer, copy))
        return copy

    def _convolution(self, layer: keras.Layer) -> Convolution:
        depthwise, kernel, bias = _weights(layer)
        norm = self._findings.norms.get(layer.name)
        scale, shift = _affine(norm) if norm is not None else (np.ones_like(bias), np.zeros_like(bias))
        factor = self._findings.scales.get(layer.name, 1.0)
        scale, bias = factor * scale, factor * (scale * bias + shift)
        if kernel is not None:
            kernel = kernel * scale
        elif depthwise is not None:
            # Output channels are the last two axes of a depthwise kernel: channel and multiplier.
            depthwise = depthwise * scale.reshape(depthwise.shape[2:])
        return Convolution(
            layer.name,
            self._allocation.policy_of(layer),
            splits=self._allocation.keeps_remainder,
            depthwise=depthwise,
            kernel=kernel,
            bias=bias,
            shape=layer.output.shape,
            strides=layer.strides,
            dilations=layer.dilation_rate,
            padding=layer.padding,
            activation=in_whole_packets(layer.activation),
        )

    def _pixelwise(self, layer: keras.layers.Dense) -> Convolution:
        """Compute a dense layer over the channels as a convolution of 1 x 1, image by image.

        Its product of matrices would run over all pixels of the batch, and sum those at the end of a tile otherwise.
        """
        return Convolution(
            layer.name,
            self._allocation.policy_of(layer),
            depthwise=None,
            kernel=_double(layer.kernel)[None, None],
            bias=_double(layer.bias) if layer.use_bias else np.zeros(layer.units),
            shape=layer.output.shape,
            activation=in_whole_packets(layer.activation),
        )


def _call(layer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    # A batch norm is called with a mask and a training flag, for which its replacement has no use.
    return (
        layer(args[0]) if isinstance(layer, (keras.layers.Identity, Convolution)) else layer(*args, **kwargs)
    )


def _is_batch_norm(layer: Any) -> bool:  # noqa: ANN401
    if type(layer) is not keras.layers.BatchNormalization:
        return False
    return len(layer.input.shape) == 4 and layer.axis in {-1, 3}  # noqa: PLR2004 - images, channels last


def _is_layer_norm(layer: Any) -> bool:  # noqa: ANN401
    if type(layer) is not keras.layers.LayerNormalization or layer.rms_scaling or not _on_tensorflow():
        return False
    return layer.axis in (-1, [-1], [len(layer.output.shape) - 1])


def _is_pixelwise(layer: Any) -> bool:  # noqa: ANN401
    """Whether it is a dense layer over the channels of a map, on TensorFlow."""
    return type(layer) is keras.layers.Dense and len(layer.input.shape) == 4 and _on_tensorflow()  # noqa: PLR2004


def _is_relu(layer: Any) -> bool:  # noqa: ANN401
    if type(layer) is keras.layers.Activation:
        return layer.activation is keras.activations.relu
    bare = (None, 0, 0)
    return (
        type(layer) is keras.layers.ReLU and (layer.max_value, layer.negative_slope, layer.threshold) == bare
    )


def _is_convolution(layer: Any) -> bool:  # noqa: ANN401
    if (
        type(layer) not in _CONVOLUTIONS
        or layer.data_format != "channels_last"
        or (getattr(layer, "groups", 1) > 1 and not is_depthwise(layer))
    ):
        return False
    # TensorFlow's depthwise kernels know neither uneven strides nor strides together with dilation.
    even = len({*layer.strides}) == 1 and 1 in {max(layer.strides), max(layer.dilation_rate)}
    plain = type(layer) is keras.layers.Conv2D and not is_depthwise(layer)
    return layer.padding in {"same", "valid"} and (even or plain)


def _weights(layer: keras.Layer) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any]]:
    """Depthwise kernel, full kernel, bias, in double precision so that folding adds no error of its own."""
    weights = [_double(weight) for weight in layer.weights]
    bias = weights.pop() if layer.use_bias else np.zeros(layer.output.shape[-1])
    if type(layer) is keras.layers.Conv2D:
        kernel = weights[0]
        if is_depthwise(
            layer
        ):  # Keras computes it with XLA, ten times slower than TensorFlow's depthwise kernel
            return kernel.reshape(*kernel.shape[:2], layer.groups, -1), None, bias
        return None, kernel, bias
    return weights[0], weights[1] if len(weights) > 1 else None, bias


def _affine(norm: keras.layers.BatchNormalization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift per channel, in double precision."""
    mean, variance = _double(norm.moving_mean), _double(norm.moving_variance)
    gamma = _double(norm.gamma) if norm.scale else np.ones_like(mean)
    beta = _double(norm.beta) if norm.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def values_of(variable: keras.Variable) -> NDArray[Any]:
    """Values of a variable, whatever Keras runs on."""
    return _on_host(variable.value)


def _on_host(tensor: Any) -> NDArray[Any]:  # noqa: ANN401
    return tensor.numpy() if hasattr(tensor, "numpy") else np.asarray(tensor)


def _double(variable: keras.Variable) -> NDArray[np.float64]:
    return np.asarray(values_of(variable), np.float64)


# Layers for inference alone: a convolution with everything folded in, and a ReLU of its own


class Convolution(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Depthwise convolution, full convolution, or both in this order; then bias and activation.

    Parameters
    ----------
    name, dtype
        As of any Keras layer.
    depthwise, kernel
        ``(rows, columns, channels, multiplier)`` and ``(rows, columns, channels, filters)``, or None.
    bias
        ``(filters,)``.
    shape
        Of the output.
    strides, dilations, padding, activation
        As of a Keras convolution.
    splits
        Whether what rounding to `dtype` takes from a full kernel and its bias is kept as numbers of that type, too,
        and convolved beside them. Without effect in ``float32``.
    """

    def __init__(
        self,
        name: str,
        dtype: str,
        *,
        depthwise: NDArray[Any] | None,
        kernel: NDArray[Any] | None,
        bias: NDArray[Any],
        shape: Sequence[int | None],
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        padding: str = "valid",
        activation: Callable[[tf.Tensor], tf.Tensor] = keras.activations.linear,
        splits: bool = False,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=False)
        self.depthwise = self._variable("depthwise", depthwise)
        self.kernel = self._variable("kernel", kernel)
        self.bias = self._variable("bias", bias)
        splits = splits and kernel is not None and self.variable_dtype != "float32"
        rests = (self._remainder(kernel), self._remainder(bias)) if splits else (None, None)
        self.kernel_remainder = self._variable("kernel_remainder", rests[0])
        self.bias_remainder = self._variable("bias_remainder", rests[1])
        self.shape, self.strides, self.dilations = tuple(shape), list(strides), list(dilations)
        self.padding, self.activation = padding.upper(), activation
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve, add the bias, activate."""
        strides, dilations = self.strides, self.dilations
        if self.depthwise is not None:
            x = _depthwise(x, self.depthwise, strides, self.padding, dilations)
            strides, dilations = [1, 1], [1, 1]
        if self.kernel is None:
            return self.activation(_add_bias(x, self.bias))

        def convolve(kernel: keras.Variable, bias: keras.Variable) -> Any:  # noqa: ANN401
            return _add_bias(_convolve(x, kernel, strides, self.padding, dilations), bias)

        y = convolve(self.kernel, self.bias)
        if self.kernel_remainder is not None:
            # Compiled, oneDNN adds it before it rounds; beside a rounded sum it would be too small to count.
            y += convolve(self.kernel_remainder, self.bias_remainder)
        return self.activation(y)

    def compute_output_spec(self, _: Any) -> keras.KerasTensor:  # noqa: ANN401
        """Shape of the output, known without tracing."""
        return keras.KerasTensor(self.shape, self.compute_dtype)

    def _remainder(self, value: Any) -> NDArray[np.float64]:  # noqa: ANN401
        rounded = _on_host(keras.ops.cast(np.asarray(value), self.variable_dtype))
        return np.asarray(value - np.asarray(rounded, np.float64))

    def _variable(self, name: str, value: NDArray[Any] | None) -> keras.Variable | None:
        # No constant: those are copied into every compiled graph, at twice the memory.
        if value is None:
            return None
        return self.add_weight(
            value.shape, lambda *_, **__: value, self.variable_dtype, trainable=False, name=name
        )


# The operations of a convolution: TensorFlow's own, which its graph optimiser fuses; elsewhere Keras'


def _on_tensorflow() -> bool:
    return bool(keras.backend.backend() == "tensorflow")


def _depthwise(x: Any, kernel: Any, strides: Sequence[int], padding: str, dilations: Sequence[int]) -> Any:  # noqa: ANN401
    if _on_tensorflow():
        import tensorflow as tf

        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding, dilations=dilations)
    return keras.ops.depthwise_conv(
        x, kernel, tuple(strides), padding.lower(), "channels_last", tuple(dilations)
    )


def _convolve(x: Any, kernel: Any, strides: Sequence[int], padding: str, dilations: Sequence[int]) -> Any:  # noqa: ANN401
    if _on_tensorflow():
        import tensorflow as tf

        return tf.nn.conv2d(x, kernel, strides, padding, dilations=dilations)
    return keras.ops.conv(x, kernel, tuple(strides), padding.lower(), "channels_last", tuple(dilations))


def _add_bias(x: Any, bias: Any) -> Any:  # noqa: ANN401
    if _on_tensorflow():
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias


class Rectifier(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """ReLU that TensorFlow's graph optimiser does not recognise, in bfloat16 several times faster than its own.

    Where a sum is needed both as it is and rectified (Xception, NASNet), the remapper of TensorFlow 2.21 fails on
    the whole graph, and then no convolution gets its bias and ReLU fused.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Negative numbers become zero; in bfloat16 some NaN too, as in oneDNN's fused ReLU."""
        if not _on_tensorflow():
            return keras.ops.maximum(x, keras.ops.zeros((), x.dtype))
        import tensorflow as tf

        if x.dtype != tf.bfloat16:
            return tf.maximum(x, tf.zeros((), x.dtype))
        # The bits of bfloat16, read as an integer, have the same sign and order; TensorFlow's ReLU unpacks them.
        return tf.bitcast(tf.maximum(tf.bitcast(x, tf.int16), tf.zeros((), tf.int16)), tf.bfloat16)

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Shape of the input."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


# Functions of single numbers, the same at every place of a tensor

PACKET: Final = 16
"""Numbers that one instruction takes at most: float32 in AVX-512. With AVX2 it is 8, with NEON 4."""

_APPROXIMATED: Final = (
    keras.activations.elu,
    keras.activations.exponential,
    keras.activations.gelu,
    keras.activations.mish,
    keras.activations.selu,
    keras.activations.sigmoid,
    keras.activations.silu,
    keras.activations.softplus,
    keras.activations.tanh,
)


def in_whole_packets(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make a function of single numbers give the same bits at every place of a tensor.

    What does not fill a packet at the end of a tensor, Eigen computes number by number and by another formula where
    packets have an approximation: the last pixels of the last image would depend on their place in the batch.

    Parameters
    ----------
    function
        From a tensor to one of its shape, number by number. One that is exact is returned as it is.

    Returns
    -------
    callable
        The same function. It fills the last packet up with ones where the number of elements is known and no multiple
        of `PACKET`; else, as in every batch that is a multiple of 16, it adds nothing to the graph.
    """
    if not _on_tensorflow():
        return function
    import tensorflow as tf

    if function not in _APPROXIMATED and function is not tf.math.rsqrt:
        return function

    def filled(x: tf.Tensor) -> tf.Tensor:
        count = x.shape.num_elements()
        if count is None or count % PACKET == 0:
            return function(x)
        whole = tf.pad(tf.reshape(x, [-1]), [[0, -count % PACKET]], constant_values=1)
        return tf.reshape(function(whole)[:count], x.shape)

    return filled


class LayerNormalization(keras.layers.LayerNormalization):  # type: ignore[misc]  # Keras has no types
    """Keras' layer norm over the last axis, its arithmetic step by step, with reciprocal roots in whole packets."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise each pixel over its channels, in float32 or wider."""
        import tensorflow as tf

        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = keras.ops.moments(x, axes=-1, keepdims=True)
        inverse = in_whole_packets(tf.math.rsqrt)(variance + self.epsilon)
        if self.gamma is not None:
            inverse = inverse * keras.ops.cast(self.gamma, x.dtype)
        shift = -mean * inverse
        if self.beta is not None:
            shift = shift + keras.ops.cast(self.beta, x.dtype)
        return keras.ops.cast(x * inverse + shift, self.compute_dtype)


# Precision of each layer

WIDE_CHANNELS: Final = 256


@dataclass(frozen=True, slots=True)
class LayerPolicies:
    """The dtype policy of each layer.

    Attributes
    ----------
    policy
        Of every layer but those in `exact`.
    exact
        Names of the layers that stay float32.
    keeps_remainder
        Whether full convolutions that do not stay float32 carry the remainder of their weights.
    """

    policy: str
    exact: frozenset[str] = frozenset()
    keeps_remainder: bool = False

    def policy_of(self, layer: Any) -> str:  # noqa: ANN401
        """Keras' dtype policy for `layer`."""
        return FLOAT32 if layer.name in self.exact else self.policy


def is_depthwise(layer: Any) -> bool:  # noqa: ANN401
    """Whether every output channel sees one input channel; ConvNeXt spells that as a convolution in groups of one."""
    if type(layer) is keras.layers.Conv2D:
        return bool(layer.groups > 1 and layer.kernel.shape[-2] == 1)
    return type(layer) is keras.layers.DepthwiseConv2D


def choose_policies(network: keras.Model, policy: str) -> LayerPolicies:
    """Choose the arithmetic of each layer of a functional network.

    Parameters
    ----------
    network
        Any functional Keras network.
    policy
        Keras' dtype policy that is asked for. Only ``bfloat16`` is not given to every layer of every network.
    """
    if policy != BFLOAT16:
        return LayerPolicies(policy)
    by_depth = network._nodes_by_depth  # noqa: SLF001 - Keras has no public word for the edges of its graph
    exact: set[str] = set()
    upstream: set[int] = set()
    splits = False
    for depth in sorted(by_depth):  # from the outputs to the inputs
        for node in by_depth[depth]:
            layer = node.operation
            depthwise = is_depthwise(layer)
            splits |= depthwise
            narrow = depthwise and layer.output.shape[-1] < WIDE_CHANNELS
            if narrow or not upstream.isdisjoint(map(id, node.output_tensors)):
                exact.add(layer.name)
                upstream.update(map(id, node.input_tensors))
    return LayerPolicies(policy, frozenset(exact), splits)
