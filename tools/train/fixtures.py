#!/usr/bin/env python3
"""Write the importers' fixtures: networks saved by the frameworks, with their answers.

    fixtures.py --models models/ --output tests/data/

For each network that can be converted, also writes an .npz of the same name:

    images         uint8 NHWC, 4 images
    input          float32, the network's input: the normalized images
    logits         float32, ONNX Runtime's scores before the softmax
    probabilities  float32, after the softmax, if the graph ends in one

Networks that the converter must reject have none.
"""

import argparse
import io
import logging
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

import digits
import graphs
import networks
from resnet import ResNet, load, save

OPSET = 17
LARGEST_FILE = 100_000


def torchscript(model, shape, folded=True, dynamic=None):
    """Export with the TorchScript exporter; keeps batch norm unless `folded`."""
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(shape),),
        buffer,
        dynamo=False,
        opset_version=OPSET,
        training=mode,
        do_constant_folding=folded,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes=dynamic,
    )
    return onnx.load_from_string(buffer.getvalue())


def dynamo(model, shape):
    """Export with the torch.export-based exporter, weights inside the file."""
    program = torch.onnx.export(model, (torch.zeros(shape),), dynamo=True, verbose=False)
    exported = program.model_proto
    # The exporter records the source file and line of each node, which must not be published.
    for item in [*exported.graph.node, *exported.graph.value_info]:
        for index in reversed(range(len(item.metadata_props))):
            if "stack_trace" in item.metadata_props[index].key:
                del item.metadata_props[index]
    return exported


def infer(model, inputs):
    """The graph's outputs for each input, one at a time."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row[None]}) for row in inputs]
    return [np.concatenate(outputs) for outputs in zip(*rows)]


def answers(model, inputs):
    """`logits`, and `probabilities` if the graph ends in a softmax."""
    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        return {"logits": infer(model, inputs)[0]}
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(last.input[0]))
    probabilities, logits = infer(opened, inputs)
    return {"logits": logits, "probabilities": probabilities}


def random_images(shape, seed):
    """Four random uint8 images of (height, width, channels), smooth in part."""
    random = np.random.default_rng(seed)
    height, width, channels = shape
    coarse = random.integers(0, 256, (4, -(-height // 4), -(-width // 4), channels))
    fine = random.integers(-60, 61, (4, height, width, channels))
    images = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width] + fine
    return images.clip(0, 255).astype(np.uint8)


def unit(images):
    """uint8 NHWC to float32 NCHW in 0..1."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)


class Folder:
    """The folder that the fixtures go to."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def done(self, name, note):
        """Report a file that was written; stop at one too large for the repository."""
        size = (self.path / name).stat().st_size
        if size > LARGEST_FILE:
            raise SystemExit(f"{name} has {size:,} bytes")
        print(f"{name:34} {size:7,} bytes  {note}")

    def model(self, name, model):
        """Write a graph and list its operators."""
        onnx.checker.check_model(model)
        onnx.save(model, self.path / f"{name}.onnx")
        operators = sorted({node.op_type for node in model.graph.node})
        self.done(f"{name}.onnx", " ".join(operators))

    def arrays(self, name, **arrays):
        """Write the .npz that belongs to a network."""
        np.savez_compressed(self.path / f"{name}.npz", **arrays)
        deviation = arrays["logits"].std()
        self.done(f"{name}.npz", f"logits' standard deviation {deviation:.2f}")

    def network(self, name, model, images, inputs):
        """Write a graph that can be converted and its answers."""
        self.model(name, model)
        self.arrays(name, images=images, input=inputs, **answers(model, inputs))

    def checkpoint(self, name, state, dtype, metadata):
        """Write a safetensors file."""
        save(self.path / f"{name}.safetensors", state, dtype, metadata)
        self.done(f"{name}.safetensors", str(dtype))


def good(folder, models):
    """The networks that convert."""
    model = digits.network()
    model.load_state_dict(load(models / "digits.safetensors"))
    model.eval()
    images = np.load(models / "digits-test.npz")["images"][:4]
    shape = (1, 1, 8, 8)
    for name, graph in [
        ("digits-torchscript", torchscript(model, shape, folded=False)),
        ("digits-torchscript-folded", torchscript(model, shape)),
        ("digits-dynamo", dynamo(model, shape)),
    ]:
        folder.network(name, graph, images, unit(images))

    shape = (1, 3, 8, 8)
    torch.manual_seed(3)
    model = networks.randomise(networks.OptionA(), shape, 3)
    images = random_images((8, 8, 3), 3)
    folder.network("resnet-option-a", torchscript(model, shape), images, unit(images))
    folder.network("resnet-option-a-dynamo", dynamo(model, shape), images, unit(images))

    shape = (1, 3, 16, 16)
    batch = {"input": {0: "batch"}, "output": {0: "batch"}}
    images = random_images((16, 16, 3), 4)
    torch.manual_seed(4)
    model = networks.randomise(networks.Bottlenecks(), shape, 4)
    identity = model.layer1[1]
    for norm in [model.bn1, identity.bn1, identity.bn2]:
        norm.weight.data.mul_(4.0)  # so that ReLU6 clips
    graph = torchscript(model, shape, dynamic=batch)
    folder.network("bottleneck", graph, images, unit(images))

    torch.manual_seed(5)
    model = networks.randomise(networks.depthwise(), shape, 5, gain=6.0)
    graph = torchscript(model, shape, dynamic=batch)
    folder.network("depthwise", graph, images, unit(images))

    torch.manual_seed(9)
    for name, model, shape in [
        ("keywords", networks.keywords(), (1, 1, 49, 10)),
        ("autoencoder-torch", networks.autoencoder(), (1, 40)),
        ("inverted-torch", networks.inverted(), (1, 3, 8, 8)),
    ]:
        model = networks.randomise(model, shape, 9, gain=4.0)
        if len(shape) == 4:
            pictures = random_images((*shape[2:], shape[1]), 9)
            inputs = unit(pictures)
        else:
            pictures = np.random.default_rng(9).integers(0, 256, (4, *shape[1:])).astype(np.uint8)
            inputs = pictures.astype(np.float32) / np.float32(255.0)
        folder.network(name, torchscript(model, shape), pictures, inputs)

    folder.network("keras-like", graphs.keras_like(), images, images.astype(np.float32))


def refused(folder):
    """The networks that the converter must reject, each for one reason."""
    shape = (1, 3, 8, 8)
    torch.manual_seed(6)
    folder.model("unsupported-lstm", torchscript(networks.Recurrent().eval(), shape))
    folder.model("concat", torchscript(networks.Concat().eval(), shape))
    folder.model("grouped", torchscript(networks.Plain(groups=2).eval(), shape))
    plain = networks.Plain().eval()
    size = {"input": {2: "height", 3: "width"}}
    folder.model("dynamic-shape", torchscript(plain, shape, dynamic=size))

    graph = torchscript(plain, shape)
    weight = next(item for item in graph.graph.initializer if item.name == "conv2.weight")
    values = numpy_helper.to_array(weight).copy()
    values[1, 2, 0, 1] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    folder.model("nan-weight", graph)

    graph = torchscript(plain, shape)
    weight = next(item for item in graph.graph.initializer if item.name == "conv2.weight")
    onnx.external_data_helper.set_external_data(weight, "external-data.bin")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    onnx.save(graph, folder.path / "external-data.onnx")
    folder.done("external-data.onnx", "one weight in a file that is missing")


def checkpoints(folder):
    """One network as f32, bf16 and f16, with values that all three types represent exactly."""
    torch.manual_seed(8)
    shape = (1, 3, 8, 8)
    model = networks.randomise(ResNet(3, 4, [(4, 1, 1)], 3), shape, 8)
    state = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.copy_(value.bfloat16().float())
            value[value.abs() < 2.0**-10] = 0.0
            assert torch.equal(value, value.half().float())
    mean, std = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
    metadata = {
        "mean": ",".join(map(str, mean)),
        "std": ",".join(map(str, std)),
        "labels": "stone,scissors,paper",
        "input": "8,8,3",
    }
    for name, dtype in [("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)]:
        folder.checkpoint(f"tiny-{name}", state, dtype, metadata)
    images = random_images((8, 8, 3), 8)
    mean, std = np.array([mean, std], np.float32)[:, :, None, None]
    inputs = (unit(images) - mean) / std
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).numpy()
    folder.arrays("tiny", images=images, input=inputs, logits=logits)


def main():
    """Parse the command line and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("models"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    folder = Folder(arguments.output)
    good(folder, arguments.models)
    refused(folder)
    checkpoints(folder)


if __name__ == "__main__":
    main()
