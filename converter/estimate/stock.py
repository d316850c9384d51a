# SPDX-License-Identifier: Apache-2.0
"""How much arena the same network takes with stock tools: a formula, without TensorFlow.

Stock tools are the TFLite converter (full int8), then TensorFlow Lite Micro (TFLM) without custom ops, on a
64-bit host. `benchmarks/stock_network.py` builds, converts and runs the real thing; this module predicts its
arena from the shape of the network alone, so that a search or a report need not convert anything.

The baseline is the plain dense network: a low-rank ratio, fewer key/value heads or a conv stem are ignored.

Routes
    keras            Keras layers as they are (MultiHeadAttention, LayerNormalization, Dense), converter with
                     its defaults: what a plain port gives.
    lean             The graph arranged by hand for TFLM, converter with its defaults: the LayerNorm's gain
                     and bias and the GELU's 1.702 folded into the next matrix, keys used untransposed,
                     values transposed by an op of the graph.
    lean_per_tensor  `lean`, with the converter's private switch that gives a matrix one scale, not one a
                     channel: the smallest arena.
All have GELU as x * sigmoid(1.702 x) and LayerNorm in primitive ops, since TFLM has neither.

Arena = head + tail.

Head: the largest set of int8 activations alive at one time, each rounded up to 16 bytes. N tokens of width d,
hidden width m, h heads, q = h * head_dim. TFLM overwrites no input, so an op's inputs and outputs all count.
    patches    image + N*d
    LayerNorm  residual + 2 N*d (lean: difference, square) or + 3 N*d (keras: gain * rsqrt is a full tensor)
    attention  residual + normalised + max(3 N*q, 2 N*q + h*N*N, 2 h*N*N): a softmax reads and writes N x N
               per head. In `lean` with q > d the converter computes V before the scores: then V is alive in
               place of the normalised tokens, and the transposes leave a gap of one more N*q.
    MLP        residual + 3 N*m: hidden, its sigmoid (or 1.702 x), their product

Tail: what TFLM's kernels and interpreter allocate for good.
    base          720 bytes: interpreter, allocator, planner, input and output tensor
    per tensor    24 bytes (TfLiteEvalTensor), constants included
    per op        64 bytes (NodeAndRegistration), the op's data rounded up to 16, its options
    MEAN          three scratch handles of 8 bytes
    per channel   8 bytes: multiplier and shift of each output channel, in RAM, for every per-channel matrix
    BATCH_MATMUL  keeps a transposed copy of a right operand that is not marked as transposed. In `keras` that
                  is K and V of every layer, 2*N*q*depth bytes, never shared between layers: most of the tail.

Accuracy: within 0.2 % on most networks measured, with an exact head. The head is a lower bound, for TFLM's
greedy planner leaves gaps where tensors of several similar sizes meet (q close to d but not equal, or an MLP
no wider than d): on small networks made to provoke this the formula was up to 13 % too low. With one head it
was up to 3 % too high.
"""

from collections import Counter

ROUTES = ("keras", "lean", "lean_per_tensor")

_BASE = 720
_TENSOR = 24
_NODE = 64
_SCRATCH_HANDLE = 8

# Op data in bytes, rounded up to 16, and options in bytes (sizeof of TFLM's structs on a 64-bit host).
_OP_DATA = {
    "ADD": 64 + 8,
    "BATCH_MATMUL": 32 + 32 + 4,  # operands and the quantisation part are two allocations
    "CONV_2D": 80 + 28,
    "DEQUANTIZE": 32,
    "FULLY_CONNECTED": 80 + 36,
    "LOGISTIC": 16,
    "MEAN": 48 + 4 + 3 * _SCRATCH_HANDLE,
    "MUL": 48 + 4,
    "NEG": 0,
    "QUANTIZE": 32,
    "RESHAPE": 36,
    "RSQRT": 32,
    "SOFTMAX": 80 + 4,
    "SQUARED_DIFFERENCE": 112,
    "SUB": 64 + 8,
    "TRANSPOSE": 0,
}

# One LayerNorm. Keras computes (x * rsqrt * gain) + (bias - mean * rsqrt * gain), and NEG has no int8 form.
_KERAS_NORM = Counter(MEAN=2, DEQUANTIZE=1, NEG=1, QUANTIZE=1, SQUARED_DIFFERENCE=1, ADD=3, RSQRT=1, MUL=3)
_LEAN_NORM = Counter(MEAN=2, SUB=1, MUL=2, ADD=1, RSQRT=1)

# Attention, GELU and the two residuals of a layer, without its six matrices and its two LayerNorms.
_LEAN_LAYER = Counter(RESHAPE=4, TRANSPOSE=4, BATCH_MATMUL=2, SOFTMAX=1, LOGISTIC=1, MUL=1, ADD=2)
_KERAS_LAYER = _LEAN_LAYER + Counter(MUL=2)  # attention scores * head_dim**-0.5, hidden * 1.702

# Constants that the converter shares over the network: axes, shapes, permutations, epsilon, scalars.
_SHARED_CONSTANTS = {"keras": 10, "lean": 7, "lean_per_tensor": 7}


def stock_arena_bytes(config, route="keras"):
    """Arena in bytes of `config`'s network with stock tools: an int, predicted, not measured.

    `config` is a SubnetConfig, or has image_size, in_channels, patch_size, embed_dim, depth, num_classes, and
    num_heads, head_dim and mlp_ratio, each one number or one per layer. `route` is one of ROUTES, see above.

    Raises ValueError for an unknown route or a per-layer tuple whose length is not the depth.
    """
    return stock_head_bytes(config, route) + stock_tail_bytes(config, route)


def stock_head_bytes(config, route="keras"):
    """Head of the arena: the largest set of activations alive at one time, in bytes. See the module."""
    _check_route(route)
    tokens = _tokens(config)
    stream = _round16(tokens * config.embed_dim)
    image = _round16(config.image_size**2 * config.in_channels)
    peaks = [image + stream, (4 if route == "keras" else 3) * stream]
    for heads, head_dim, hidden in _layers(config):
        qkv = _round16(tokens * heads * head_dim)
        scores = _round16(heads * tokens * tokens)
        if route != "keras" and qkv > stream:
            peaks.append(stream + qkv + max(4 * qkv, 2 * qkv + scores, 2 * scores))
        else:
            peaks.append(2 * stream + max(3 * qkv, 2 * qkv + scores, 2 * scores))
        peaks.append(stream + 3 * _round16(tokens * hidden))
    return max(peaks)


def stock_tail_bytes(config, route="keras"):
    """Tail of the arena: what TFLM's interpreter and kernels keep, in bytes. See the module."""
    _check_route(route)
    keras = route == "keras"
    norm, layer = (_KERAS_NORM, _KERAS_LAYER) if keras else (_LEAN_NORM, _LEAN_LAYER)
    layers = _layers(config)

    ops = Counter(CONV_2D=1, RESHAPE=1, ADD=1, MEAN=1, FULLY_CONNECTED=1)
    ops.update(norm)
    for _ in layers:
        ops.update(layer + norm + norm + Counter(FULLY_CONNECTED=6))

    matrices = ops["CONV_2D"] + ops["FULLY_CONNECTED"]
    norms = 2 * len(layers) + 1
    tensors = 1 + sum(ops.values())  # the image, and each op's output
    tensors += 2 * matrices + 1  # weights and biases, and the position table
    tensors += 2 * norms if keras else 0  # gains and biases
    tensors += _SHARED_CONSTANTS[route]

    size = _BASE + _TENSOR * tensors + sum((_NODE + _OP_DATA[op]) * n for op, n in ops.items())

    size += _per_channel(config.embed_dim)  # the patch convolution always is per channel
    channels = [config.num_classes]
    for heads, head_dim, hidden in layers:
        channels += [heads * head_dim] * 3 + [config.embed_dim, hidden, config.embed_dim]
    if route != "lean_per_tensor":
        size += sum(_per_channel(n) for n in channels)

    rank = 4 if keras else 3  # of the attention tensors: Keras keeps a batch dimension
    dims = _round16(4 + 4 * rank)
    size += 2 * dims * len(layers)
    if keras:
        for heads, head_dim, _ in layers:
            copy = _round16(_TENSOR) + dims + _round16(_tokens(config) * heads * head_dim)
            size += 2 * copy
    return size


def _layers(config):
    """(num_heads, head_dim, hidden width) of each layer."""
    if hasattr(config, "layers"):  # a SubnetConfig
        return [(layer.num_heads, layer.head_dim, layer.mlp_dim) for layer in config.layers]
    heads = _per_layer(config, "num_heads")
    head_dims = _per_layer(config, "head_dim")
    ratios = _per_layer(config, "mlp_ratio")
    hidden = [round(config.embed_dim * ratio) for ratio in ratios]
    return list(zip(heads, head_dims, hidden, strict=True))


def _per_layer(config, name):
    """The attribute `name` as a tuple of one value per layer; one number stands for all layers."""
    value = getattr(config, name)
    if not isinstance(value, (tuple, list)):
        return (value,) * config.depth
    if len(value) != config.depth:
        raise ValueError(f"{name} has {len(value)} values for depth {config.depth}: give one, or one per layer")
    return tuple(value)


def _tokens(config):
    return (config.image_size // config.patch_size) ** 2


def _per_channel(channels):
    """A multiplier and a shift of 4 bytes each per output channel, in two allocations."""
    return 2 * _round16(4 * channels)


def _round16(size):
    return (size + 15) // 16 * 16


def _check_route(route):
    if route not in ROUTES:
        raise ValueError(f"route is {route!r}: use one of {', '.join(ROUTES)}")
