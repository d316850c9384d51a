# SPDX-License-Identifier: Apache-2.0
"""The same networks with stock tools: TFLite converter, full int8, tflite-micro wheel, no custom op.

    pip install tensorflow-cpu==2.21.0 tflite-micro        # the `bench` extra
    python benchmarks/stock_network.py --json stock.json A B C

TFLM has no GELU and no LayerNorm, so no stock route runs the real network: in every route GELU is
x * sigmoid(1.702 x) and LayerNorm is made of primitive ops. From a plain port to the best arrangement found:

    keras            Keras layers as they are; converter with its defaults
    lean             the graph arranged by hand for TFLM (see `_lean_network`); converter with its defaults
    lean_per_tensor  `lean`, with the converter's private switch for one scale per matrix, not per channel

The smallest is the fairest baseline. More is possible by hand: with the MLP cut into two slices of hidden
channels, lean_per_tensor needs 74,096 bytes for A and 457,664 for B (441,152 with four), but 241,280 for C.

The cosines compare the logits with a float32 run of the network with the same GELU: they show what
quantisation costs, not what replacing GELU does. Weights are random; the arena does not depend on them. Times
are on the host, on one thread, with TFLM's reference kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mcuformer import SubnetConfig
from mcuformer.converter.estimate.stock import ROUTES, stock_arena_bytes

EPSILON = 1e-6
SIGMOID_SCALE = 1.702  # GELU(x) ~ x * sigmoid(1.702 x)


def network(*dimensions) -> SubnetConfig:
    """A plain dense network. dimensions: in the order of FIELDS; those of layers are one value, or one per layer."""
    return SubnetConfig(**dict(zip(FIELDS, dimensions, strict=True)))


def layer_dims(config: SubnetConfig) -> list[tuple[int, int, int]]:
    """(num_heads, head_dim, hidden width) of each layer."""
    return [(layer.num_heads, layer.head_dim, layer.mlp_dim) for layer in config.layers]


FIELDS = (
    "image_size", "in_channels", "patch_size", "embed_dim", "depth", "num_heads", "head_dim", "mlp_ratio",
    "num_classes",
)  # fmt: skip
NETWORKS = {
    "A": network(96, 3, 16, 96, 6, 3, 32, 4.0, 10),
    "B": network(224, 3, 16, 192, 12, 3, 64, 4.0, 1000),
    "C": network(224, 3, 32, 192, 12, 3, 64, 4.0, 1000),
    # Small ones, to check the formula in converter/estimate/stock.py away from the shapes it was derived on.
    "narrow": network(32, 1, 8, 64, 4, 2, 32, 2.0, 10),
    "attention": network(64, 3, 8, 64, 4, 4, 16, 2.0, 10),
    "mixed": network(64, 3, 16, 96, 3, (2, 3, 4), (32, 16, 32), (4.0, 2.0, 3.0), 100),
    "wide": network(64, 3, 8, 64, 2, 4, 24, 1.0, 5),
    "camera": network((60, 80), 3, (12, 16), 64, 2, 4, 16, 2.0, 5),
    "sound": network((98, 40), 1, (2, 40), 64, 2, 2, 32, 2.0, 12),
}


def random_weights(config, seed: int) -> dict[str, np.ndarray]:
    """float32 arrays under the names and in the layouts of the float network's state_dict (PyTorch's)."""
    rng = np.random.default_rng(seed)
    weights = {}

    def linear(name, outputs, *inputs):
        weights[f"{name}.weight"] = rng.normal(0, np.prod(inputs) ** -0.5, (outputs, *inputs))
        weights[f"{name}.bias"] = rng.normal(0, 0.02, outputs)

    def norm(name):
        weights[f"{name}.weight"] = rng.normal(1, 0.1, config.embed_dim)
        weights[f"{name}.bias"] = rng.normal(0, 0.05, config.embed_dim)

    d = config.embed_dim
    linear("stem", d, config.in_channels, *config.patch_shape)
    weights["position"] = rng.normal(0, 0.1, (1, config.tokens, d))
    for i, (heads, head_dim, hidden) in enumerate(layer_dims(config)):
        norm(f"layers.{i}.norm1")
        linear(f"layers.{i}.attention.qkv", 3 * heads * head_dim, d)
        linear(f"layers.{i}.attention.proj", d, heads * head_dim)
        norm(f"layers.{i}.norm2")
        linear(f"layers.{i}.mlp.fc1", hidden, d)
        linear(f"layers.{i}.mlp.fc2", d, hidden)
    norm("norm")
    linear("head", config.num_classes, d)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def structured_images(config, count: int, seed: int) -> np.ndarray:
    """uint8 NHWC: channels are sums of slow waves and blobs, so neighbouring pixels agree as in photos."""
    rng = np.random.default_rng(seed)
    height, width, channels = config.image_shape
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    images = np.zeros((count, height, width, channels))
    for image in images:
        for channel in range(channels):
            for _ in range(4):
                fx, fy = rng.uniform(-4, 4, 2)
                wave = np.sin(2 * np.pi * (fx * x + fy * y + rng.uniform()))
                image[..., channel] += rng.normal() * wave
            for _ in range(3):
                cx, cy = rng.uniform(size=2)
                blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * rng.uniform(0.05, 0.25) ** 2))
                image[..., channel] += 2 * rng.normal() * blob
        image -= image.min()
        image *= 255 / image.max()
    return np.round(images).astype(np.uint8)


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 pixels as the network takes them: float32 in [-1, 1]."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def float_logits(config, weights, image: np.ndarray) -> np.ndarray:
    """Logits [num_classes] of one float32 image [H, W, C], in numpy: what every route is compared with."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    d, (ph, pw), (rows, columns) = config.embed_dim, config.patch_shape, config.grid_shape
    patches = image[: rows * ph, : columns * pw].reshape(rows, ph, columns, pw, -1).transpose(0, 2, 4, 1, 3)
    x = patches.reshape(config.tokens, -1) @ weights["stem.weight"].reshape(d, -1).T + weights["stem.bias"]
    x = x + weights["position"][0]
    for i, (heads, head_dim, _) in enumerate(layer_dims(config)):
        qkv = linear(norm(x, f"layers.{i}.norm1"), f"layers.{i}.attention.qkv")
        q, k, v = qkv.reshape(-1, 3, heads, head_dim).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) * head_dim**-0.5
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        x = x + linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"layers.{i}.attention.proj")
        y = linear(norm(x, f"layers.{i}.norm2"), f"layers.{i}.mlp.fc1")
        x = x + linear(y / (1 + np.exp(-SIGMOID_SCALE * y)), f"layers.{i}.mlp.fc2")
    return linear(norm(x, "norm").mean(0), "head")


def _keras_network(tf, config, weights):
    """A Keras model of plain layers. Dense kernels are [in, out]; MultiHeadAttention's are split by head."""
    keras = tf.keras
    pending = []  # (layer, arrays), set once the layers are built

    def add(layer, *arrays):
        pending.append((layer, arrays))
        return layer

    def dense(name):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return add(keras.layers.Dense(len(bias)), weight.T, bias)

    def norm(name):
        layer = keras.layers.LayerNormalization(epsilon=EPSILON)
        return add(layer, weights[f"{name}.weight"], weights[f"{name}.bias"])

    d, p = config.embed_dim, config.patch_shape
    image = keras.Input(config.image_shape, batch_size=1)
    kernel = weights["stem.weight"].transpose(2, 3, 1, 0)
    stem = add(keras.layers.Conv2D(d, p, p), kernel, weights["stem.bias"])
    x = keras.layers.Reshape((config.tokens, d))(stem(image)) + weights["position"]
    for i, (heads, head_dim, _) in enumerate(layer_dims(config)):
        name = f"layers.{i}.attention"
        qkv = weights[f"{name}.qkv.weight"].reshape(3, heads, head_dim, d).transpose(0, 3, 1, 2)
        qkv_bias = weights[f"{name}.qkv.bias"].reshape(3, heads, head_dim)
        projection = weights[f"{name}.proj.weight"].reshape(d, heads, head_dim).transpose(1, 2, 0)
        attention = add(
            keras.layers.MultiHeadAttention(heads, head_dim),
            *(array for pair in zip(qkv, qkv_bias, strict=True) for array in pair),
            projection,
            weights[f"{name}.proj.bias"],
        )
        y = norm(f"layers.{i}.norm1")(x)
        x = x + attention(y, y)
        y = dense(f"layers.{i}.mlp.fc1")(norm(f"layers.{i}.norm2")(x))
        y = y * keras.ops.sigmoid(SIGMOID_SCALE * y)
        x = x + dense(f"layers.{i}.mlp.fc2")(y)
    x = keras.layers.GlobalAveragePooling1D()(norm("norm")(x))
    model = keras.Model(image, dense("head")(x))
    for layer, arrays in pending:
        layer.set_weights(list(arrays))
    return lambda x: model(x, training=False)


def _lean_network(tf, config, weights):
    """The same network in primitive ops, arranged for a small arena.

    - Tokens are rows of a matrix, without a batch dimension: no reshapes around matrix products.
    - Gain and bias of a LayerNorm, head_dim**-0.5 and the GELU's 1.702 are folded into the matrices.
    - BATCH_MATMUL keeps a transposed copy of a right operand that is not marked as transposed, permanently, in
      every layer. So keys stay as they are (q k^T), and an op transposes the values, in reused memory.
    """

    def linear(x, weight, bias):
        return tf.matmul(x, tf.constant(weight), transpose_b=True) + tf.constant(bias)

    def folded(name, norm):
        """Weight and bias of the matrix `name` applied to a LayerNorm without its gain and bias."""
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return weight * weights[f"{norm}.weight"], bias + weight @ weights[f"{norm}.bias"]

    def normalise(x):
        x = x - tf.reduce_mean(x, -1, keepdims=True)
        return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + EPSILON)

    def network(image):
        d, p, n = config.embed_dim, config.patch_shape, config.tokens
        x = tf.nn.conv2d(image, tf.constant(weights["stem.weight"].transpose(2, 3, 1, 0)), p, "VALID")
        x = tf.reshape(x + tf.constant(weights["stem.bias"]), (n, d)) + tf.constant(weights["position"][0])
        for i, (heads, head_dim, _) in enumerate(layer_dims(config)):
            name = f"layers.{i}"
            weight, bias = folded(f"{name}.attention.qkv", f"{name}.norm1")
            (wq, wk, wv), (bq, bk, bv) = np.split(weight, 3), np.split(bias, 3)
            by_head = (n, heads, head_dim)
            y = normalise(x)
            wq, bq = wq * head_dim**-0.5, bq * head_dim**-0.5
            q = tf.transpose(tf.reshape(linear(y, wq, bq), by_head), (1, 0, 2))
            k = tf.transpose(tf.reshape(linear(y, wk, bk), by_head), (1, 0, 2))
            scores = tf.nn.softmax(tf.matmul(q, k, transpose_b=True))
            v = tf.transpose(tf.reshape(linear(y, wv, bv), by_head), (1, 2, 0))
            y = tf.matmul(scores, v, transpose_b=True)
            y = tf.reshape(tf.transpose(y, (1, 0, 2)), (n, heads * head_dim))
            weight, bias = weights[f"{name}.attention.proj.weight"], weights[f"{name}.attention.proj.bias"]
            x = x + linear(y, weight, bias)
            weight, bias = folded(f"{name}.mlp.fc1", f"{name}.norm2")
            y = linear(normalise(x), weight * SIGMOID_SCALE, bias * SIGMOID_SCALE)
            y = y * tf.sigmoid(y)
            weight, bias = weights[f"{name}.mlp.fc2.weight"], weights[f"{name}.mlp.fc2.bias"]
            x = x + linear(y, weight / SIGMOID_SCALE, bias)
        return linear(tf.reduce_mean(normalise(x), 0, keepdims=True), *folded("head", "norm"))

    return network


def convert(config, weights, route: str, calibration: np.ndarray) -> bytes:
    """The int8 .tflite, input and output int8. `calibration`: uint8 NHWC, the representative data set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    build = _keras_network if route == "keras" else _lean_network
    return quantise(build(tf, config, weights), calibration, per_channel_dense=route != "lean_per_tensor")


def quantise(network, calibration: np.ndarray, per_channel_dense: bool = True) -> bytes:
    """The int8 .tflite of `network`: a function of a float NHWC tensor with a batch of one. The rest as for convert();
    per_channel_dense: a scale per output of fully connected layers, the converter's default."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((1, *calibration.shape[1:]), tf.float32)
    function = tf.function(network, input_signature=[spec], autograph=False)
    # Frozen first: the calibrator cannot run Keras variables.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([to_float(image)[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    if not per_channel_dense:
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter.convert()


class StockInterpreter:
    """The official tflite-micro interpreter, with float images in and float logits out."""

    def __init__(self, model: bytes, arena_bytes: int):
        from tflite_micro.python.tflite_micro import runtime

        self._interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena_bytes)
        self._input = self._scale(self._interpreter.get_input_details(0))
        self._output = self._scale(self._interpreter.get_output_details(0))

    @staticmethod
    def _scale(details):
        parameters = details["quantization_parameters"]
        return float(parameters["scales"][0]), int(parameters["zero_points"][0])

    def run(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Logits of one float image [H, W, C], and the seconds that the inference took."""
        scale, zero = self._input
        quantised = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
        self._interpreter.set_input(quantised[None], 0)
        start = time.perf_counter()
        self._interpreter.invoke()
        seconds = time.perf_counter() - start
        scale, zero = self._output
        return (self._interpreter.get_output(0).astype(np.float32).ravel() - zero) * scale, seconds

    def arena(self) -> dict[str, int]:
        """Bytes in use: total, head, tail. The wheel only prints them (C++, stderr), after an inference."""
        sys.stderr.flush()
        with tempfile.TemporaryFile() as capture:
            stderr = os.dup(2)
            os.dup2(capture.fileno(), 2)
            try:
                self._interpreter.print_allocations()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            capture.seek(0)
            text = capture.read().decode()
        return {key: int(value) for key, value in re.findall(r"Arena allocation (\w+) (\d+) bytes", text)}


def measure(config, route: str, runs: int, seed: int = 0) -> dict:
    """Builds, converts and runs one network: one row of the table."""
    weights = random_weights(config, seed)
    model = convert(config, weights, route, structured_images(config, 8, seed + 1))
    interpreter = StockInterpreter(model, arena_bytes=2 * stock_arena_bytes(config, route) + (1 << 20))
    cosines, seconds = [], []
    for image in to_float(structured_images(config, runs, seed + 2)):
        logits, elapsed = interpreter.run(image)
        expected = float_logits(config, weights, image)
        cosines.append(float(logits @ expected / (np.linalg.norm(logits) * np.linalg.norm(expected))))
        seconds.append(elapsed)
    arena = interpreter.arena()
    return {
        "route": route,
        "arena_bytes": arena["total"],
        "head_bytes": arena["head"],
        "tail_bytes": arena["tail"],
        "formula_bytes": stock_arena_bytes(config, route),
        "model_bytes": len(model),
        "ms_min": 1e3 * min(seconds),
        "ms_median": 1e3 * statistics.median(seconds),
        "cosine_min": min(cosines),
        "cosine_mean": statistics.mean(cosines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Arena, size and time of networks with stock tools.")
    known = ", ".join(NETWORKS)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {known} (default A B C)")
    parser.add_argument("--route", action="append", choices=ROUTES, help="default: all routes")
    parser.add_argument("--runs", type=int, default=5, help="images run per model (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    arguments = parser.parse_args()
    names = arguments.networks or ["A", "B", "C"]
    for name in names:
        if name not in NETWORKS:
            parser.error(f"unknown network {name!r}: use some of {known}")
    if arguments.runs < 1:
        parser.error(f"--runs {arguments.runs}: must be at least 1")
    # TensorFlow's and the maths libraries' thread pools read these when they are loaded.
    os.environ.update(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

    print(
        f"{'network':<10}{'route':<17}{'arena':>10}{'head':>9}{'tail':>11}{'formula':>10}{'model':>11}"
        f"{'ms min':>9}{'median':>8}  cosine (least, mean)"
    )
    rows = []
    for name in names:
        for route in arguments.route or ROUTES:
            row = {"network": name, **measure(NETWORKS[name], route, arguments.runs)}
            rows.append(row)
            print(
                f"{name:<10}{route:<17}{row['arena_bytes']:>10,}{row['head_bytes']:>9,}{row['tail_bytes']:>11,}"
                f"{row['formula_bytes']:>10,}{row['model_bytes']:>11,}{row['ms_min']:>9.1f}{row['ms_median']:>8.1f}"
                f"  {row['cosine_min']:.4f} {row['cosine_mean']:.4f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
