"""A frozen network made cheaper: batch norms folded into convolutions, in the arithmetic that is asked for.

At inference a batch norm is one multiplication and one addition per channel. Behind a convolution both go into its
kernel and bias (Jacob et al., "Quantization and Training of Neural Networks", CVPR 2018, section 3.2); elsewhere, as in
DenseNet, they become one fused operation. What is not understood here stays the layer that it was.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32: Final = "float32"

# Pixels of 0..255 have more bits than bfloat16, and a mean of thousands needs them.
_ALWAYS_FLOAT32: Final = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Softmax,
)


def fold(network: keras.Model, policy: str = FLOAT32) -> keras.Model:
    """Rebuild a functional network for inference, cheaper and otherwise the same.

    Parameters
    ----------
    network
        Any functional Keras network, with its weights. Layers without a cheaper form are shared with the result
        where `policy` is ``float32``, so `network` should not be used any more.
    policy
        Keras' dtype policy of everything but the door (rescaling, normalisation) and global average pooling.

    Returns
    -------
    keras.Model
        In ``float32`` its output differs from that of `network` by rounding alone (about 1e-6 relative).
    """
    workshop = _Workshop(_examine(network), policy)
    folded = keras.models.clone_model(network, clone_function=workshop.replace, call_function=_call)
    workshop.fill()
    folded.trainable = False
    return folded


class Convolution(keras.layers.Layer):
    """Depthwise convolution, full convolution, or both in this order; then bias and activation.

    Parameters
    ----------
    depthwise, kernel
        ``(rows, columns, channels, multiplier)`` and ``(rows, columns, channels, filters)`` float32, or None.
    bias
        ``(filters,)`` float32.
    like
        The layer whose strides, padding, dilation, activation and output shape this one has.
    """

    def __init__(
        self,
        depthwise: NDArray[np.float32] | None,
        kernel: NDArray[np.float32] | None,
        bias: NDArray[np.float32],
        like: keras.Layer,
        policy: str,
    ) -> None:
        super().__init__(name=like.name, dtype=policy, trainable=False)
        self.depthwise = _variable(self, "depthwise", depthwise)
        self.kernel = _variable(self, "kernel", kernel)
        self.bias = _variable(self, "bias", bias)
        self.strides, self.dilations = list(like.strides), list(like.dilation_rate)
        self.padding, self.activation = like.padding.upper(), like.activation
        self.shape = like.output.shape
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve, add the bias, activate."""
        strides, dilations = self.strides, self.dilations
        if self.depthwise is not None:
            x = tf.nn.depthwise_conv2d(x, self.depthwise, [1, *strides, 1], self.padding, dilations=dilations)
            strides, dilations = [1, 1], [1, 1]
        if self.kernel is not None:
            x = tf.nn.conv2d(x, self.kernel, strides, self.padding, dilations=dilations)
        return self.activation(tf.nn.bias_add(x, self.bias))

    def compute_output_spec(self, _: Any) -> keras.KerasTensor:  # noqa: ANN401
        """Shape of the original layer, known without tracing."""
        return keras.KerasTensor(self.shape, self.compute_dtype)


class FusedBatchNormalization(keras.layers.Layer):
    """A batch norm that no convolution can take in, as one operation with float32 statistics."""

    def __init__(self, like: keras.layers.BatchNormalization, policy: str) -> None:
        super().__init__(name=like.name, dtype=policy, trainable=False)
        scale, offset, mean, variance = _statistics(like)
        self.scale = _variable(self, "scale", scale, FLOAT32)
        self.offset = _variable(self, "offset", offset, FLOAT32)
        self.mean = _variable(self, "mean", mean, FLOAT32)
        self.variance = _variable(self, "variance", variance, FLOAT32)
        self.epsilon = like.epsilon
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalise with the moving statistics."""
        parameters = (tf.convert_to_tensor(v) for v in (self.scale, self.offset, self.mean, self.variance))
        scale, offset, mean, variance = (tf.cast(p, FLOAT32) for p in parameters)
        y, _, _ = tf.compat.v1.nn.fused_batch_norm(
            x, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False
        )
        return y

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Shape of the input."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


class Rectifier(keras.layers.Layer):
    """ReLU that TensorFlow's remapper does not recognise, in bfloat16 three to eight times faster than its own.

    Where a sum is needed both as it is and rectified (Xception), the remapper of TensorFlow 2.21 fails on the whole
    graph, and no convolution gets its ReLU fused. As in oneDNN's fused ReLU, a NaN becomes zero in bfloat16.
    """

    def __init__(self, like: keras.Layer, policy: str) -> None:
        super().__init__(name=like.name, dtype=policy, trainable=False)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Negative numbers become zero."""
        if x.dtype != tf.bfloat16:
            return tf.maximum(x, tf.zeros((), x.dtype))
        # As integers, bfloat16 numbers have the same sign and order.
        bits = tf.maximum(tf.bitcast(x, tf.int16), tf.zeros((), tf.int16))
        return tf.bitcast(bits, tf.bfloat16)

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Shape of the input."""
        return keras.KerasTensor(x.shape, self.compute_dtype)


@dataclass(slots=True)
class _Findings:
    """What can be made cheaper, by layer name.

    Attributes
    ----------
    norms
        Batch norm that a convolution takes in.
    scales
        Factor on the residual that a convolution takes in.
    plain_sums
        Scaled sums whose factor has gone into the convolution before them.
    lone_norms, rectifiers
        Batch norms and ReLUs that stand on their own.
    """

    norms: dict[str, keras.layers.BatchNormalization] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    plain_sums: set[str] = field(default_factory=set)
    lone_norms: set[str] = field(default_factory=set)
    rectifiers: set[str] = field(default_factory=set)


class _Workshop:
    """Makes the new layers, and remembers which copies still want the weights of their originals."""

    def __init__(self, findings: _Findings, policy: str) -> None:
        self._findings = findings
        self._policy = policy
        self._folded = {norm.name for norm in findings.norms.values()}
        self._copies: list[tuple[keras.Layer, keras.Layer]] = []

    def replace(self, layer: Any) -> Any:  # noqa: ANN401
        """Layer or operation that does the work of `layer` in the new network."""
        if isinstance(layer, keras.Model):
            return fold(keras.Model(layer.inputs, layer.outputs, name=layer.name), self._policy)
        if _is_convolution(layer):
            return self._convolution(layer)
        if layer.name in self._folded:
            return keras.layers.Identity(name=layer.name, dtype=self._policy)
        if layer.name in self._findings.plain_sums:
            return keras.layers.Add(name=layer.name, dtype=self._policy)
        if layer.name in self._findings.lone_norms:
            return FusedBatchNormalization(layer, self._policy)
        if layer.name in self._findings.rectifiers:
            return Rectifier(layer, self._policy)
        return self._copy(layer)

    def fill(self) -> None:
        """Give the copies, which Keras has built by now, their weights."""
        for original, copy in self._copies:
            copy.set_weights(original.get_weights())

    def _copy(self, layer: Any) -> Any:  # noqa: ANN401
        # An operation that is no layer, such as `x + 3`, computes in the type that it is given.
        as_it_is = isinstance(layer, _ALWAYS_FLOAT32) or not isinstance(layer, keras.Layer)
        if self._policy == FLOAT32 or as_it_is:
            return layer
        copy = type(layer).from_config({**layer.get_config(), "dtype": self._policy})
        self._copies.append((layer, copy))
        return copy

    def _convolution(self, layer: keras.Layer) -> Convolution:
        depthwise, kernel, bias = _weights(layer)
        norm = self._findings.norms.get(layer.name)
        scale, shift = (np.array(1.0), np.array(0.0)) if norm is None else _affine(norm)
        residual = self._findings.scales.get(layer.name, 1.0)
        scale, bias = residual * scale, residual * (scale * bias + shift)
        if kernel is None:
            # Output channels are the last two axes of a depthwise kernel: channel and multiplier.
            depthwise = depthwise * (scale.reshape(depthwise.shape[2:]) if scale.ndim else scale)
        else:
            kernel = kernel * scale
        return Convolution(depthwise, kernel, bias, layer, self._policy)


def _call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    # A batch norm is called with a mask and a training flag, for which its replacement has no use.
    plain = isinstance(layer, (keras.layers.Identity, FusedBatchNormalization))
    return layer(args[0]) if plain else layer(*args, **kwargs)


def _examine(network: keras.Model) -> _Findings:
    by_depth = network._nodes_by_depth  # noqa: SLF001 - Keras has no public word for the edges of its graph
    nodes = [node for level in by_depth.values() for node in level if not node.is_input]
    calls = Counter(node.operation.name for node in nodes)
    uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    uses.update(map(id, network.outputs))
    makers = {id(tensor): node.operation for node in nodes for tensor in node.output_tensors}
    findings = _Findings()
    for node in nodes:
        layer, source = node.operation, node.input_tensors[-1]
        if calls[layer.name] > 1:
            continue
        maker = makers.get(id(source))
        private = maker is not None and uses[id(source)] == 1 and calls[maker.name] == 1
        if _is_batch_norm(layer):
            if private and _is_linear(maker):
                findings.norms[maker.name] = layer
            else:
                findings.lone_norms.add(layer.name)
        elif type(layer) is CustomScaleLayer and private and _is_linear(maker):
            findings.scales[maker.name] = layer.scale
            findings.plain_sums.add(layer.name)
        elif _is_relu(layer) and not (private and _feeds_relu(maker)):
            findings.rectifiers.add(layer.name)
    return findings


def _is_relu(layer: Any) -> bool:  # noqa: ANN401
    if type(layer) is keras.layers.Activation:
        return layer.activation is keras.activations.relu
    plain = (None, 0, 0)
    return (
        type(layer) is keras.layers.ReLU and (layer.max_value, layer.negative_slope, layer.threshold) == plain
    )


def _feeds_relu(maker: object) -> bool:
    """Whether TensorFlow fuses a ReLU behind this layer with it."""
    return _is_convolution(maker) or type(maker) in {
        keras.layers.BatchNormalization,
        keras.layers.Add,
        CustomScaleLayer,
    }


def _is_batch_norm(layer: object) -> bool:
    if type(layer) is not keras.layers.BatchNormalization:
        return False
    return len(layer.input.shape) == 4 and layer.axis in {-1, 3}  # noqa: PLR2004 - images, channels last


def _is_convolution(layer: object) -> bool:
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    if type(layer) not in kinds or layer.data_format != "channels_last" or getattr(layer, "groups", 1) > 1:
        return False
    depthwise = type(layer) is not keras.layers.Conv2D
    # TensorFlow's depthwise kernels know neither uneven strides nor strides together with dilation.
    even = len({*layer.strides}) == 1 and 1 in {max(layer.strides), max(layer.dilation_rate)}
    return layer.padding in {"same", "valid"} and (even or not depthwise)


def _is_linear(maker: object) -> bool:
    return _is_convolution(maker) and maker.activation is keras.activations.linear


def _weights(layer: keras.Layer) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any]]:
    """Depthwise kernel, full kernel, bias, in double precision so that folding adds no error of its own."""
    weights = [w.astype(np.float64) for w in layer.get_weights()]
    bias = weights.pop() if layer.use_bias else np.zeros(layer.output.shape[-1])
    if type(layer) is keras.layers.Conv2D:
        return None, weights[0], bias
    return weights[0], weights[1] if len(weights) > 1 else None, bias


def _affine(norm: keras.layers.BatchNormalization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift per channel, in double precision so that folding adds no error of its own."""
    gamma, beta, mean, variance = (p.astype(np.float64) for p in _statistics(norm))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _statistics(norm: keras.layers.BatchNormalization) -> tuple[NDArray[np.float32], ...]:
    mean = keras.ops.convert_to_numpy(norm.moving_mean)
    variance = keras.ops.convert_to_numpy(norm.moving_variance)
    gamma = keras.ops.convert_to_numpy(norm.gamma) if norm.scale else np.ones_like(mean)
    beta = keras.ops.convert_to_numpy(norm.beta) if norm.center else np.zeros_like(mean)
    return gamma, beta, mean, variance


def _variable(
    layer: keras.Layer, name: str, value: NDArray[np.float32] | None, dtype: str | None = None
) -> keras.Variable | None:
    """Variable and no constant: constants are copied into every compiled graph."""
    if value is None:
        return None
    return layer.add_weight(
        value.shape, lambda *_, **__: value, dtype or layer.variable_dtype, trainable=False, name=name
    )
