#!/usr/bin/env python3
"""Write the ONNX importer's quantized fixtures: a small untrained residual network with its answers,
exported by PyTorch and quantized by ONNX Runtime.

    quantized_fixtures.py --output tests/data/

For each network that can be converted, also writes an .npz of the same name:

    images            uint8 NHWC, 4 images
    logits            float32, ONNX Runtime's answers
    LAYER.weights     int8, the layer's weights in the file, OHWI
    LAYER.scales      float32, their scales
    LAYER.bias        int32, its biases in the file
    LAYER.output      float32, scale and int8 zero point of the layer's output

Networks that the converter must reject have none.
"""

import argparse
import logging
import pathlib
import tempfile
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import networks
from fixtures import Folder, infer, random_images, torchscript, unit
from resnet import ResNet

INT8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
UINT8 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}


class Images(CalibrationDataReader):
    """Calibration images, one at a time."""

    def __init__(self, inputs):
        self.rows = iter([{"input": row[None]} for row in inputs])

    def get_next(self):
        return next(self.rows, None)


def static(model, inputs, **settings):
    """The model, quantized with ranges from the inputs."""
    settings.setdefault("quant_format", QuantFormat.QDQ)
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "float.onnx", pathlib.Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(source, target, Images(inputs), **settings)
        return onnx.load(target)


def dynamic(model):
    """The model with int8 weights and activations that are quantized at run time."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "float.onnx", pathlib.Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return onnx.load(target)


def parameters(model):
    """Weights, biases and output scale of each layer in the file."""
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weights, bias = (makers[name].input for name in node.input[1:3])
        # /layer1/layer1.0/conv1/Conv: the full path of each module, then the operator
        modules = []
        for module in node.name.strip("/").split("/")[:-1]:
            if modules and module.startswith(f"{modules[-1]}."):
                modules.pop()
            modules.append(module)
        name = ".".join(modules)
        output = node.output[0]
        while True:
            reader = next(item for item in model.graph.node if output in item.input)
            if reader.op_type == "QuantizeLinear":
                break
            output = reader.output[0]
        zero = constants[reader.input[2]]
        stored = constants[weights[0]].astype(np.int64)
        stored -= constants[weights[2]].astype(np.int64).flat[0]
        order = (0, 2, 3, 1) if stored.ndim == 4 else (0, 1)
        found[f"{name}.weights"] = np.ascontiguousarray(stored.transpose(order)).astype(np.int8)
        found[f"{name}.scales"] = np.atleast_1d(constants[weights[1]])
        found[f"{name}.bias"] = constants[bias[0]]
        shift = 128.0 if zero.dtype == np.uint8 else 0.0
        found[f"{name}.output"] = np.array([constants[reader.input[1]], zero - shift], np.float32)
    return found


def main():
    """Parse the command line and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder = Folder(arguments.output)

    shape = (1, 3, 8, 8)
    torch.manual_seed(11)
    model = networks.randomise(ResNet(3, 4, [(4, 1, 1), (8, 1, 2)], 5), shape, 11)
    exported = torchscript(model, shape)
    images = random_images((8, 8, 3), 11)
    inputs = unit(images)
    many = np.concatenate([unit(random_images((8, 8, 3), seed)) for seed in range(20, 30)])
    for name, settings in [
        ("qdq-int8", INT8 | {"per_channel": True}),
        ("qdq-uint8", UINT8),
        ("qdq-symmetric", INT8 | {"extra_options": {"ActivationSymmetric": True}}),
        (
            "qdq-uint8-weights",
            UINT8
            | {"weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": True}},
        ),
    ]:
        graph = static(exported, many, **settings)
        folder.model(name, graph)
        folder.arrays(name, images=images, logits=infer(graph, inputs)[0], **parameters(graph))

    asymmetric = UINT8 | {"weight_type": QuantType.QUInt8}
    folder.model("qdq-asymmetric", static(exported, many, **asymmetric))
    sixteen = INT8 | {"activation_type": QuantType.QInt16}
    folder.model("qdq-16-bit", static(exported, many, **sixteen))
    folder.model("qoperator", static(exported, many, quant_format=QuantFormat.QOperator, **INT8))
    folder.model("quantized-dynamically", dynamic(exported))

    # PyTorch's exporter with default settings: the weights are in a second file
    name = "dynamo-default"
    torch.onnx.export(model, (torch.zeros(shape),), folder.path / f"{name}.onnx")
    graph = onnx.load(folder.path / f"{name}.onnx", load_external_data=False)
    # it records the source file and line of each node, which must not be published
    for item in [*graph.graph.node, *graph.graph.value_info]:
        for index in reversed(range(len(item.metadata_props))):
            if "stack_trace" in item.metadata_props[index].key:
                del item.metadata_props[index]
    onnx.save(graph, folder.path / f"{name}.onnx")
    assert any(item.data_location == TensorProto.EXTERNAL for item in graph.graph.initializer)
    folder.done(f"{name}.onnx", "its weights are in another file")
    folder.done(f"{name}.onnx.data", "weights")
    logits = infer(onnx.load(folder.path / f"{name}.onnx"), inputs)[0]
    folder.arrays(name, images=images, input=inputs, logits=logits)


if __name__ == "__main__":
    main()
