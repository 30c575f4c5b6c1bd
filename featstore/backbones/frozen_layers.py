"""Layers for inference alone: a convolution with everything folded in, and a ReLU of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


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
            x = tf.nn.depthwise_conv2d(x, self.depthwise, [1, *strides, 1], self.padding, dilations=dilations)
            strides, dilations = [1, 1], [1, 1]
        if self.kernel is None:
            return self.activation(tf.nn.bias_add(x, self.bias))

        def convolve(kernel: keras.Variable, bias: keras.Variable) -> tf.Tensor:
            return tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides, self.padding, dilations=dilations), bias)

        y = convolve(self.kernel, self.bias)
        if self.kernel_remainder is not None:
            # Compiled, oneDNN adds it before it rounds; beside a rounded sum it would be too small to count.
            y += convolve(self.kernel_remainder, self.bias_remainder)
        return self.activation(y)

    def compute_output_spec(self, _: Any) -> keras.KerasTensor:  # noqa: ANN401
        """Shape of the output, known without tracing."""
        return keras.KerasTensor(self.shape, self.compute_dtype)

    def _remainder(self, value: Any) -> NDArray[np.float64]:  # noqa: ANN401
        rounded: NDArray[np.float64] = tf.cast(tf.cast(value, self.variable_dtype), tf.float64).numpy()
        return np.asarray(value - rounded)

    def _variable(self, name: str, value: NDArray[Any] | None) -> keras.Variable | None:
        # No constant: those are copied into every compiled graph, at twice the memory.
        if value is None:
            return None
        return self.add_weight(
            value.shape, lambda *_, **__: value, self.variable_dtype, trainable=False, name=name
        )


class Rectifier(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """ReLU that TensorFlow's graph optimiser does not recognise, in bfloat16 several times faster than its own.

    Where a sum is needed both as it is and rectified (Xception, NASNet), the remapper of TensorFlow 2.21 fails on
    the whole graph, and then no convolution gets its bias and ReLU fused.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Negative numbers become zero; in bfloat16 some NaN too, as in oneDNN's fused ReLU."""
        if x.dtype != tf.bfloat16:
            return tf.maximum(x, tf.zeros((), x.dtype))
        # The bits of bfloat16, read as an integer, have the same sign and order; TensorFlow's ReLU unpacks them.
        return tf.bitcast(tf.maximum(tf.bitcast(x, tf.int16), tf.zeros((), tf.int16)), tf.bfloat16)

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Shape of the input."""
        return keras.KerasTensor(x.shape, self.compute_dtype)
