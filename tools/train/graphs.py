"""An ONNX graph, built by hand as tf2onnx writes it for a Keras network."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MEAN = [120.0, 115.0, 105.0]
SCALE = [1.0 / 60.0, 1.0 / 58.0, 1.0 / 62.0]


class Graph:
    """Nodes and initializers, in order."""

    def __init__(self, seed):
        self.nodes = []
        self.initializers = []
        self.random = np.random.default_rng(seed)

    def node(self, operator, inputs, **attributes):
        """Add a node with one output and return the output's name."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def initializer(self, values):
        """Add a weight as an initializer."""
        name = f"weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, values):
        """Add a weight as a Constant node."""
        return self.node("Constant", [], value=numpy_helper.from_array(np.asarray(values)))

    def identity(self, values):
        """Add a weight as an initializer, followed by an Identity node."""
        return self.node("Identity", [self.initializer(values)])

    def normal(self, *shape):
        """Random weights with He's standard deviation; the first dimension is not part of the fan-in."""
        deviation = np.sqrt(2.0 / np.prod(shape[1:]))
        return (self.random.standard_normal(shape) * deviation).astype(np.float32)

    def uniform(self, count, low, high):
        """A vector of uniform random numbers."""
        return self.random.uniform(low, high, count).astype(np.float32)

    def convolution(self, x, inputs, outputs, kernel, stride, store):
        """Pad as Keras's SAME does for even sizes, then convolve, then batch norm.

        With stride 1, the padding is an attribute of the convolution; with stride 2, a Pad
        node before it that pads below and to the right only."""
        pads = [0, 0, 0, 0]
        if kernel == 3 and stride == 1:
            pads = [1, 1, 1, 1]
        if kernel == 3 and stride == 2:
            border = self.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
            x = self.node("Pad", [x, border, self.constant(np.float32(0.0))], mode="constant")
        weight = store(self.normal(outputs, inputs, kernel, kernel))
        bias = store(self.uniform(outputs, -0.1, 0.1))
        x = self.node(
            "Conv", [x, weight, bias], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads
        )
        scale = store(self.uniform(outputs, 0.6, 1.4))
        shift = store(self.uniform(outputs, -0.3, 0.3))
        mean = store(self.uniform(outputs, -0.2, 0.2))
        variance = store(self.uniform(outputs, 0.8, 1.6))
        return self.node("BatchNormalization", [x, scale, shift, mean, variance], epsilon=1e-3)


def keras_like():
    """The graph: NHWC input of 16x16 RGB pixels 0..255, normalised in the graph."""
    graph = Graph(7)
    x = graph.node("Sub", ["input_1", graph.constant(np.array(MEAN, np.float32))])
    x = graph.node("Mul", [x, graph.initializer(np.array(SCALE, np.float32))])
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.convolution(x, 3, 8, 3, 2, graph.initializer)
    x = graph.node("Relu", [x])

    y = graph.convolution(x, 8, 8, 3, 1, graph.constant)
    y = graph.node("Relu", [y])
    y = graph.convolution(y, 8, 8, 3, 1, graph.identity)
    x = graph.node("Relu", [graph.node("Add", [x, y])])
    x = graph.node("Identity", [x])

    y = graph.convolution(x, 8, 16, 3, 2, graph.initializer)
    y = graph.node("Relu", [y])
    y = graph.convolution(y, 16, 16, 3, 1, graph.initializer)
    shortcut = graph.convolution(x, 8, 16, 1, 2, graph.identity)
    x = graph.node("Relu", [graph.node("Add", [y, shortcut])])

    x = graph.node("ReduceMean", [x], axes=[2, 3], keepdims=1)
    x = graph.node("Reshape", [x, graph.constant(np.array([-1, 16], np.int64))])
    x = graph.node("MatMul", [x, graph.initializer(graph.normal(10, 16).T.copy())])
    logits = graph.node("Add", [x, graph.constant(graph.uniform(10, -0.5, 0.5))])
    graph.nodes.append(helper.make_node("Softmax", [logits], ["dense"], "dense", axis=-1))

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "tf2onnx",
            [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["unk__1", 16, 16, 3])],
            [helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["unk__1", 10])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 15)],
        ir_version=8,
    )
    return model
