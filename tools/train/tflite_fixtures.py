#!/usr/bin/env python3
"""Write the TensorFlow Lite importer's fixtures: small converted untrained Keras networks with their
answers.

    tflite_fixtures.py --output tests/data/

Needs tensorflow-cpu 2.21.0 and ai-edge-litert 2.3.0. For each network that can be converted, also
writes an .npz of the same name:

    images         uint8 NHWC, 4 images
    logits         float32, scores of LiteRT's reference kernels before the softmax
    probabilities  float32, after the softmax, if the network ends in one

and, for networks with int8 activations,

    scores         int8, the bytes of the last layer's output before the softmax
    output         int8 (or uint8, float32), the bytes of the network's output
"""

import argparse
import os
import pathlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import flatbuffers

LARGEST_FILE = 40_000
IMAGES = 4


def block(x, width, stride):
    """A basic block; with a projection where it changes the shape."""
    y = layers.Conv2D(width, 3, stride, "same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(width, 3, 1, "same", use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    if stride != 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, stride, "same")(x)
    return layers.ReLU()(layers.Add()([x, y]))


def residual():
    """A residual network like MLPerf Tiny's: pixels of 0..255, pooling over the whole image."""
    x = inputs = keras.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(4, 3, 1, "same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = block(block(block(x, 4, 1), 8, 2), 12, 1)
    x = layers.AveragePooling2D(4)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(5)(x)
    return keras.Model(inputs, layers.Softmax()(x))


def mobile(rescaled):
    """Depthwise convolutions with ReLU6, both kinds of pooling, two dense layers, an open batch; pixels are
    scaled by the network or by the caller."""
    x = inputs = keras.Input((12, 12, 3))
    if rescaled:
        x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, 2, "valid", use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, 1, "same", use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.Conv2D(12, 1, use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, 2, "same")(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10, "relu")(x)
    return keras.Model(inputs, layers.Dense(4)(x))


def option_a():
    """A padded shortcut, and a dense layer over a flattened image."""
    x = inputs = keras.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(4, 3, 1, "same", activation="relu")(x)
    y = layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
    y = layers.Conv2D(8, 3, 1, "same")(y)
    x = keras.ops.pad(x[:, ::2, ::2, :], ((0, 0), (0, 0), (0, 0), (2, 2)))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.AveragePooling2D(2)(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(5)(x))


def gated():
    """Rejected: squeeze-and-excitation."""
    x = inputs = keras.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="sigmoid")(y)
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(x))


def randomise(model, seed):
    """Random weights and batch norms that keep activations in a similar range."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        weights = []
        for weight in layer.weights:
            shape = weight.shape
            if len(shape) > 1:
                products = int(np.prod(shape[:-1])) // (shape[-2] if "depthwise" in layer.name else 1)
                values = random.normal(0, (2 / products) ** 0.5, shape)
                # filters of different sizes, so that scales per channel differ
                values *= random.uniform(0.3, 1.5, shape[-1:])
            elif weight.name in ("gamma", "moving_variance"):
                values = random.uniform(0.5, 1.5, shape)
            else:
                values = random.normal(0, 0.3, shape)
            weights.append(values.astype(np.float32))
        layer.set_weights(weights)
    return model


def random_images(shape, seed, count=IMAGES):
    """Random uint8 images of (height, width, channels), partly smooth."""
    random = np.random.default_rng(seed)
    height, width, channels = shape
    coarse = random.integers(0, 256, (count, height // 4, width // 4, channels))
    fine = random.integers(-60, 61, (count, height, width, channels))
    return (coarse.repeat(4, 1).repeat(4, 2) + fine).clip(0, 255).astype(np.uint8)


def convert(model, scale=1.0, **settings):
    """The network as a .tflite file; activations are calibrated on random images times scale."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in settings.items():
        setattr(converter, name, value)
    if "supported_ops" in settings:
        del converter.supported_ops
        converter.target_spec.supported_ops = settings["supported_ops"]
    if "supported_types" in settings:
        del converter.supported_types
        converter.target_spec.supported_types = settings["supported_types"]
    if settings.pop("calibrated", False):
        images = random_images(model.inputs[0].shape[1:], 99, 40).astype(np.float32) * scale

        def representative():
            for image in images:
                yield [image[None]]

        converter.representative_dataset = representative
    return converter.convert()


INT8 = {
    "calibrated": True,
    "optimizations": [tf.lite.Optimize.DEFAULT],
    "supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
}


def run(file, images, unit=1.0):
    """Every tensor of the graph, computed by LiteRT's reference kernels for each image times `unit`."""
    interpreter = Interpreter(
        model_content=file,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    scale, zero = given["quantization"]
    tensors = []
    for image in images:
        real = image.astype(np.float64) * unit
        if given["dtype"] != np.float32:
            real = np.round(real / scale) + zero
        interpreter.set_tensor(given["index"], real.astype(given["dtype"])[None])
        interpreter.invoke()
        tensors.append([op_tensor(interpreter, op) for op in interpreter._get_ops_details()])
    return tensors


def op_tensor(interpreter, operator):
    """An operator's name, and its first result with its scale and zero point."""
    index = operator["outputs"][0]
    detail = next(item for item in interpreter.get_tensor_details() if item["index"] == index)
    return operator["op_name"], interpreter.get_tensor(index)[0], *detail["quantization"]


def reals(values, scale, zero):
    """The real values of quantized values."""
    if scale == 0:
        return values.astype(np.float32)
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32)


def answers(file, images, unit):
    """The arrays of a network's .npz."""
    tensors = run(file, images, unit)
    rows = [[item for item in row if item[0] not in ("QUANTIZE", "DEQUANTIZE")] for row in tensors]
    softmax = rows[0][-1][0] == "SOFTMAX"
    scores = [row[-2 if softmax else -1] for row in rows]
    arrays = {"images": images, "logits": np.stack([reals(*item[1:]) for item in scores])}
    if softmax:
        arrays["probabilities"] = np.stack([reals(*row[-1][1:]) for row in rows])
    if scores[0][1].dtype == np.int8:
        arrays["scores"] = np.stack([item[1] for item in scores])
        arrays["output"] = np.stack([row[-1][1] for row in tensors])
    return arrays


class Folder:
    """The folder that the fixtures go to."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def model(self, name, file, note=""):
        """Write a file; stop at one too large for the repository."""
        if len(file) > LARGEST_FILE:
            raise SystemExit(f"{name} has {len(file):,} bytes")
        (self.path / f"{name}.tflite").write_bytes(file)
        print(f"{name + '.tflite':34} {len(file):7,} bytes  {note}")

    def network(self, name, file, images, unit=1.0):
        """Write a network that can be converted and its answers."""
        arrays = answers(file, images, unit)
        np.savez_compressed(self.path / f"{name}.npz", **arrays)
        kinds = [item[0] for item in run(file, images[:1])[0]]
        spread = arrays["logits"].std()
        self.model(name, file, f"{' '.join(sorted(set(kinds)))}; logits' deviation {spread:.2f}")


def edited(file, edit):
    """A file with changed tables."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file, 0))
    edit(model)
    builder = flatbuffers.Builder(len(file))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def not_finite(model):
    """Set a weight of the first convolution to NaN."""
    graph = model.subgraphs[0]
    weights = graph.tensors[graph.operators[0].inputs[1]]
    buffer = model.buffers[weights.buffer]
    values = np.array(buffer.data, np.uint8).view(np.float32).copy()
    values[7] = np.nan
    buffer.data = values.view(np.uint8)


def main():
    """Parse the command line and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/data"))
    folder = Folder(parser.parse_args().output)

    model = randomise(residual(), 1)
    # pixels go up to 255, activations are about 1
    model.layers[1].set_weights([model.layers[1].get_weights()[0] / 128])
    images = random_images((8, 8, 3), 1)
    floats = convert(model)
    folder.network("tflite-residual", floats, images)
    int8 = convert(model, **INT8, inference_input_type=tf.int8, inference_output_type=tf.int8)
    folder.network("tflite-residual-int8", int8, images)
    small = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    folder.network("tflite-residual-f16", convert(model, **small, supported_types=[tf.float16]), images)
    folder.network("tflite-residual-weights", convert(model, **small), images)
    sixteen = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    folder.model("tflite-int16", convert(model, **{**INT8, "supported_ops": [sixteen]}), "refused")
    folder.model("tflite-nan-weight", edited(floats, not_finite), "refused")

    model = randomise(mobile(rescaled=True), 2)
    images = random_images((12, 12, 3), 2)
    folder.network("tflite-mobile", convert(model), images)
    folder.network("tflite-mobile-int8", convert(model, **INT8), images)
    model = randomise(mobile(rescaled=False), 5)
    uint8 = {"inference_input_type": tf.uint8, "inference_output_type": tf.uint8}
    folder.network("tflite-mean-int8", convert(model, 1 / 255, **INT8, **uint8), images, 1 / 255)

    model = randomise(option_a(), 3)
    model.layers[1].set_weights([model.layers[1].get_weights()[0] / 128, model.layers[1].get_weights()[1]])
    images = random_images((8, 8, 3), 3)
    folder.network("tflite-option-a", convert(model), images)
    folder.network("tflite-option-a-int8", convert(model, **INT8, inference_input_type=tf.int8), images)

    folder.model("tflite-gated", convert(randomise(gated(), 4)), "refused")


if __name__ == "__main__":
    main()
