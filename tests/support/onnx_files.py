"""ONNX files for tests: networks made by hand, one of the catalogue written out, and forged ones."""

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

SETTINGS = {"mean": 0.5, "std": 0.25}


def tensor(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def model(nodes, weights=(), sizes=(None, 3, 16, 16), outputs=("vector",), **more):
    """A model with one input ``pixels``; `more` goes to the graph."""
    takes = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, sizes)]
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "network", takes, gives, [*weights], **more)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def small(channels=8, seed=0, **more):
    """A convolution, a ReLU (``map``) and a global average pooling, flattened: vectors of `channels` numbers."""
    kernel = np.random.default_rng(seed).normal(size=(channels, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["vector"]),
    ]
    return model(nodes, [tensor("kernel", kernel)], **more)


def write(path, made, settings=SETTINGS):
    """Save a model and, unless None, the settings beside it."""
    path.write_bytes(made.SerializeToString()) if hasattr(made, "SerializeToString") else path.write_bytes(
        made
    )
    if settings is not None:
        path.with_name(f"{path.name}.json").write_text(json.dumps(settings))
    return path


def write_external(path, made):
    """Save a model whose weights lie in a file beside it."""
    save_model(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    path.with_name(f"{path.name}.json").write_text(json.dumps(SETTINGS))
    return path


def of_keras(network):
    """Write a chain of Keras layers, such as MobileNet, as a model in NHWC; weights are copied, nothing is folded."""
    nodes, weights, name = [], [], "turned"
    nodes.append(helper.make_node("Transpose", ["pixels"], [name], perm=[0, 3, 1, 2]))
    for layer in network.layers[1:]:
        kind, values = type(layer).__name__, [np.asarray(v) for v in layer.get_weights()]
        names = [f"{layer.name}/{at}" for at in range(len(values))]
        given, name = name, layer.name
        match kind:
            case "Conv2D":
                values = [values[0].transpose(3, 2, 0, 1)]
                padding = "SAME_UPPER" if layer.padding == "same" else "VALID"
                node = helper.make_node(
                    "Conv", [given, *names], [name], strides=layer.strides, auto_pad=padding
                )
            case "DepthwiseConv2D":
                values = [values[0].transpose(2, 3, 0, 1)]
                padding = "SAME_UPPER" if layer.padding == "same" else "VALID"
                node = helper.make_node(
                    "Conv",
                    [given, *names],
                    [name],
                    strides=layer.strides,
                    auto_pad=padding,
                    group=len(values[0]),
                )
            case "BatchNormalization":
                node = helper.make_node("BatchNormalization", [given, *names], [name], epsilon=layer.epsilon)
            case "ReLU":
                values, names = [np.float32(0), np.float32(layer.max_value)], [f"{name}/low", f"{name}/high"]
                node = helper.make_node("Clip", [given, *names], [name])
            case "ZeroPadding2D":
                (top, bottom), (left, right) = layer.padding
                values, names = [np.array([0, 0, top, left, 0, 0, bottom, right])], [f"{name}/pads"]
                node = helper.make_node("Pad", [given, *names], [name])
            case "GlobalAveragePooling2D":
                values, names = [np.array([2, 3])], []
                node = helper.make_node("ReduceMean", [given], [name], axes=[2, 3], keepdims=0)
        nodes.append(node)
        weights += [tensor(called, value) for called, value in zip(names, values, strict=False)]
    return model(nodes, weights, (None, *network.input_shape[1:]), (name,))
