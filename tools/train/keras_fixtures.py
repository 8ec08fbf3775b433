#!/usr/bin/env python3
"""Write the Keras and tf2onnx fixtures: small untrained networks with their answers.

    pip install -r tools/train/keras-requirements.txt       # in a separate virtual environment
    keras_fixtures.py --output tests/data/

Each network is saved by Keras 3 (.keras, .h5), by Keras 2 (the package tf_keras) or by tf2onnx, with an
.npz as fixtures.py writes it, which contains Keras's answers. With --full, writes the networks of MLPerf
Tiny that are not residual in their original size, for measurements; these do not belong in the
repository.
"""

import argparse
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras as keras3
import numpy as np
import tensorflow as tf
import tf2onnx
import tf_keras as keras2

OPSET = 15
LARGEST_FILE = 100_000


def convolution(keras, x, filters, kernel, stride=1, activation="relu", bias=True):
    """Convolution, batch norm and an activation, as MLPerf Tiny's networks have them."""
    layers = keras.layers
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=bias)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def depthwise(keras, x, filters, stride=1):
    """A depthwise separable convolution as MobileNet has it."""
    layers = keras.layers
    x = layers.DepthwiseConv2D(3, stride, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    return convolution(keras, x, filters, 1)


def residual(keras):
    """Identity block, projection block, and layers that only Keras has.

    Its input is pixels of 0..255; one activation layer is called twice."""
    layers = keras.layers
    image = x = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.ReLU(max_value=6.0)(x)
    relu = layers.Activation("relu")
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(4, 3, padding="same")(y)
    x = relu(layers.Add()([x, y]))
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    y = layers.Conv2D(6, 3, 2, padding="valid", activation="relu")(y)
    y = layers.Conv2D(6, 3, padding="same")(y)
    x = relu(layers.Add()([layers.Conv2D(6, 1, 2)(x), y]))
    x = layers.SeparableConv2D(5, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return image, layers.Dense(5, activation="softmax")(x)


def sequential(keras):
    """A chain with pooling, an adapted normalization, and an activation as a layer."""
    layers = keras.layers
    normalisation = layers.Normalization()
    normalisation.adapt(np.random.default_rng(1).uniform(0, 255, (64, 3)).astype(np.float32))
    return keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            normalisation,
            layers.Conv2D(4, (3, 2), activation="relu"),
            layers.MaxPooling2D((2, 3), 2, padding="same"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(4, activation="relu"),
            layers.Dense(3),
            layers.Softmax(),
        ]
    )


WIDTHS = [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2)] + [(16, 1)] * 5 + [(32, 2), (32, 1)]


def mobilenet(keras, size=16, filters=4, widths=WIDTHS[:3]):
    """MLPerf Tiny's MobileNetV1 0.25 for visual wake words: 96, 8 and all widths are the original's."""
    layers = keras.layers
    image = x = keras.Input((size, size, 3))
    x = convolution(keras, x, filters, 3, 2)
    for width, stride in widths:
        x = depthwise(keras, x, width * filters, stride)
    x = layers.AveragePooling2D(tuple(x.shape[1:3]))(x)
    return image, layers.Dense(2, activation="softmax")(layers.Flatten()(x))


def ds_cnn(keras, filters=8, blocks=1):
    """MLPerf Tiny's DS-CNN for keyword spotting: 64 and 4 are the original's.

    Its pooling leaves out the last of 25 rows."""
    layers = keras.layers
    image = x = keras.Input((49, 10, 1))
    x = layers.Dropout(0.2)(convolution(keras, x, filters, (10, 4), 2))
    for _ in range(blocks):
        x = depthwise(keras, x, filters)
    x = layers.AveragePooling2D((24, 5))(layers.Dropout(0.4)(x))
    return image, layers.Dense(12, activation="softmax")(layers.Flatten()(x))


def autoencoder(keras, inputs=40, width=16, narrow=4, depth=2):
    """MLPerf Tiny's autoencoder for anomaly detection: 640, 128, 8 and 4 are the original's."""
    layers = keras.layers
    features = x = keras.Input((inputs,))
    for units in [width] * depth + [narrow] + [width] * depth:
        x = layers.Dense(units)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    return features, layers.Dense(inputs)(x)


def inverted_residual(keras):
    """Blocks as MobileNetV2 has them: expanded, depthwise, projected without an activation."""
    layers = keras.layers
    image = x = keras.Input((8, 8, 3))
    x = convolution(keras, x, 4, 3, 2, "relu6")
    for filters in (4, 6):
        y = convolution(keras, x, 8, 1, 1, "relu6", bias=False)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.Activation("relu6")(layers.BatchNormalization()(y))
        y = convolution(keras, y, filters, 1, 1, None, bias=False)
        x = layers.Add()([x, y]) if y.shape[-1] == x.shape[-1] else y
    x = layers.GlobalAveragePooling2D()(x)
    return image, layers.Dense(3)(x)


def randomise(model, seed):
    """Random weights that keep activations in range; the same in Keras 2 and 3."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if "Normalization" == type(layer).__name__:
            continue
        values = []
        for weight in layer.weights:
            name = re.sub(r":0$", "", weight.name).rsplit("/", 1)[-1]
            shape = tuple(weight.shape)
            low, high = {
                "gamma": (0.6, 1.4),
                "beta": (-0.3, 0.3),
                "moving_mean": (-0.2, 0.2),
                "moving_variance": (0.8, 1.6),
                "bias": (-0.1, 0.1),
            }.get(name, (None, None))
            if low is None:
                one_each = "depthwise" in type(layer).__name__.lower() or name == "depthwise_kernel"
                fan_in = np.prod(shape[:2] if one_each else shape[:-1])
                values.append(random.standard_normal(shape) * np.sqrt(2.0 / fan_in))
            else:
                values.append(random.uniform(low, high, shape))
        layer.set_weights([value.astype(np.float32) for value in values])
    return model


def build(keras, network, seed, **options):
    """A network with random weights."""
    made = network(keras, **options)
    model = made if isinstance(made, keras.Model) else keras.Model(*made)
    return randomise(model, seed)


def random_images(shape, seed, count=4):
    """Random uint8 tensors; images are partly smooth."""
    random = np.random.default_rng(seed)
    if len(shape) == 1:
        return random.integers(0, 256, (count, 1, 1, *shape)).astype(np.uint8)
    height, width, channels = shape
    coarse = random.integers(0, 256, (count, height // 4 + 1, width // 4 + 1, channels))
    coarse = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width]
    fine = random.integers(-60, 61, (count, height, width, channels))
    return (coarse + fine).clip(0, 255).astype(np.uint8)


def answers(keras, model, inputs):
    """`logits`, and `probabilities` if the model ends in a softmax."""
    last = model.layers[-1]
    outputs = np.asarray(model(inputs, training=False))
    if type(last).__name__ == "Softmax":
        return {"logits": np.asarray(keras.Model(model.inputs[0], last.input)(inputs)), "probabilities": outputs}
    if last.get_config()["activation"] != "softmax":
        return {"logits": outputs}
    last.activation = None
    logits = np.asarray(last(keras.Model(model.inputs[0], last.input)(inputs)))
    last.activation = keras.activations.softmax
    return {"logits": logits, "probabilities": outputs}


class Folder:
    """The folder that the fixtures go to."""

    def __init__(self, path, largest):
        self.path = path
        self.largest = largest
        path.mkdir(parents=True, exist_ok=True)

    def done(self, name):
        """Report a file that was written; stop at one too large for the repository."""
        size = (self.path / name).stat().st_size
        if size > self.largest:
            raise SystemExit(f"{name} has {size:,} bytes")
        print(f"{name:34} {size:9,} bytes")

    def save(self, name, model):
        """Write a model as Keras does."""
        model.save(self.path / name)
        self.done(name)

    def onnx(self, name, model):
        """Write a model as tf2onnx does."""
        shape = model.inputs[0].shape
        signature = [tf.TensorSpec(shape, tf.float32, name="input")]
        function = tf.function(lambda x: model(x, training=False), input_signature=signature)
        graph, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
        (self.path / name).write_bytes(graph.SerializeToString())
        self.done(name)

    def answers(self, name, keras, model, seed, pixels=False):
        """Write a model's answers to random images, or to pixels / 255."""
        shape = tuple(model.inputs[0].shape[1:])
        images = random_images(shape, seed)
        inputs = images.reshape(-1, *shape).astype(np.float32)
        if not pixels:
            inputs = inputs / np.float32(255.0)
        arrays = answers(keras, model, inputs)
        np.savez_compressed(self.path / f"{name}.npz", images=images, input=inputs, **arrays)
        self.done(f"{name}.npz")
        print(f"{'':34} logits' standard deviation {arrays['logits'].std():.2f}")


def small(folder):
    """The fixtures of the repository."""
    folder.save("residual-keras2.h5", build(keras2, residual, 11))
    model = build(keras3, residual, 11)
    folder.save("residual-keras3.keras", model)
    folder.onnx("residual-tf2onnx.onnx", model)
    folder.answers("residual-keras", keras3, model, 11, pixels=True)
    folder.save("sequential-keras2.keras", build(keras2, sequential, 12))
    model = build(keras3, sequential, 12)
    folder.save("sequential-keras3.h5", model)
    folder.answers("sequential-keras", keras3, model, 12, pixels=True)

    model = build(keras3, ds_cnn, 13)
    folder.save("ds-cnn.keras", model)
    folder.onnx("ds-cnn-tf2onnx.onnx", model)
    folder.answers("ds-cnn", keras3, model, 13)
    model = build(keras3, mobilenet, 14)
    folder.save("mobilenet.h5", model)
    folder.onnx("mobilenet-tf2onnx.onnx", model)
    folder.answers("mobilenet", keras3, model, 14)
    model = build(keras2, autoencoder, 15)
    folder.save("autoencoder.h5", model)
    folder.onnx("autoencoder-tf2onnx.onnx", model)
    folder.answers("autoencoder", keras2, model, 15)
    model = build(keras3, inverted_residual, 16)
    folder.save("inverted-residual.keras", model)
    folder.onnx("inverted-residual-tf2onnx.onnx", model)
    folder.answers("inverted-residual", keras3, model, 16)


def full(folder):
    """The networks in their original size."""
    networks = [
        ("mobilenet-full", mobilenet, {"size": 96, "filters": 8, "widths": WIDTHS}),
        ("ds-cnn-full", ds_cnn, {"filters": 64, "blocks": 4}),
        ("autoencoder-full", autoencoder, {"inputs": 640, "width": 128, "narrow": 8, "depth": 4}),
    ]
    for name, network, options in networks:
        model = build(keras3, network, 20, **options)
        folder.save(f"{name}.h5", model)
        folder.save(f"{name}.keras", model)
        folder.onnx(f"{name}.onnx", model)
        folder.answers(name, keras3, model, 20)
        images = random_images(tuple(model.inputs[0].shape[1:]), 21, 200)
        np.savez_compressed(folder.path / f"{name}-calibration.npz", images=images)


def main():
    """Parse the command line and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tests/data"))
    parser.add_argument("--full", type=pathlib.Path, help="folder for the networks in real size")
    arguments = parser.parse_args()
    small(Folder(arguments.output, LARGEST_FILE))
    if arguments.full:
        full(Folder(arguments.full, 1 << 30))


if __name__ == "__main__":
    main()
