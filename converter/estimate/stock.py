# SPDX-License-Identifier: Apache-2.0
"""How much arena the same network takes with stock tools: a formula, without TensorFlow.

Stock tools are the TFLite converter (full int8), then TensorFlow Lite Micro (TFLM) without custom ops, on a
64-bit host. `benchmarks/stock_network.py` builds, converts and runs the real thing; this module predicts its
arena from the network's shape alone, so a search or a report need not convert anything.

The baseline is the plain dense network: low-rank ratios, fewer key/value heads or a conv stem are ignored. Images and
patches may be rectangles, and the head may be missing. Options that no measured network had are refused: prefix tokens,
another pooling than the mean, LayerNorms elsewhere than before each branch and before pooling, and activations that are
no GELU (unknown_option).

Routes
    keras            Keras layers as they are (MultiHeadAttention, LayerNormalization, Dense), converter with
                     its defaults: a plain port.
    lean             The graph arranged by hand for TFLM, converter with its defaults: the LayerNorm's gain
                     and bias and the GELU's 1.702 folded into the next matrix, keys used untransposed,
                     values transposed by an op of the graph.
    lean_per_tensor  `lean`, with the converter's private switch for one scale per matrix, not per channel: the
                     smallest arena.
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

Tail: what TFLM's kernels and interpreter allocate permanently.
    base          720 bytes: interpreter, allocator, planner, input and output tensor
    per tensor    24 bytes (TfLiteEvalTensor), constants included
    per op        64 bytes (NodeAndRegistration), the op's data rounded up to 16, its options
    MEAN          three scratch handles of 8 bytes
    per channel   8 bytes: multiplier and shift of each output channel, in RAM, for every per-channel matrix
    BATCH_MATMUL  keeps a transposed copy of a right operand that is not marked as transposed. In `keras` that
                  is K and V of every layer, 2*N*q*depth bytes, never shared between layers: most of the tail.

Accuracy: within 0.2 % on most measured networks, with an exact head. The head is a lower bound, because TFLM's
greedy planner leaves gaps where tensors of similar size meet (q close to d but not equal, or an MLP no wider
than d): on small networks built to provoke this the formula was up to 13 % too low; with a single head, up to
3 % too high.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from mcuformer.converter.skeleton import Schedule, Skeleton, Step, skeleton
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError

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

_LEAN_ATTENTION = Counter(RESHAPE=4, TRANSPOSE=4, BATCH_MATMUL=2, SOFTMAX=1)
_KERAS_ATTENTION = _LEAN_ATTENTION + Counter(MUL=1)  # scores * head_dim**-0.5
_LEAN_GELU = Counter(LOGISTIC=1, MUL=1)
_KERAS_GELU = _LEAN_GELU + Counter(MUL=1)  # hidden * 1.702

# Constants that the converter shares across the network: axes, shapes, permutations, epsilon, scalars.
_SHARED_CONSTANTS = {"keras": 10, "lean": 7, "lean_per_tensor": 7}


@dataclass(frozen=True)
class _Stock:
    """One of our ops as stock tools run it: their ops, and the output channels of its matrices."""

    ops: Counter
    matrices: tuple[int, ...] = ()
    norm: bool = False


def unknown_option(config: SubnetConfig) -> str | None:
    """The first of a config's options for which the formula has no answer; None if it has one."""
    known = {
        "prefix_tokens": (0,), "pool": ("mean", "mean-all"), "final_norm": ("before",), "norm_pre": (False,),
        "norm": ("pre",), "activation": ("gelu", "gelu-tanh", "quick-gelu"), "patch_padding": (0,),
        "relative_position": ("none",),
    }  # fmt: skip
    return next((name for name, values in known.items() if getattr(config, name) not in values), None)


def stock_arena_bytes(config: SubnetConfig, route: str = "keras") -> int:
    """Arena of a config's network with stock tools, in bytes: predicted, not measured.

    route: one of ROUTES, see above; ValueError for any other. ConfigError for an unknown_option.
    """
    return stock_head_bytes(config, route) + stock_tail_bytes(config, route)


def stock_head_bytes(config: SubnetConfig, route: str = "keras") -> int:
    """Head of the arena: the largest set of activations alive at one time, in bytes. See the module."""
    return max(_stock_embedding_bytes(config), *stock_part_bytes(config, route).values())


def stock_part_bytes(config: SubnetConfig, route: str = "keras", exact: bool = False) -> dict[str, int]:
    """The largest set of activations alive at one time, in bytes, by part: each half of a layer ("layers.0 attention",
    "layers.0 mlp") and the "head". exact: sizes as they are, not rounded up to 16."""
    _check_route(route)
    align = (lambda size: size) if exact else _round16
    found = {}
    for name, step in _dense(config).steps():
        part, dims = name.rsplit(".", 1)[0], step.dims
        if step.kind == "IntLayerNorm":
            stream = align(dims.tokens * dims.features)
            if name == "norm":
                found["head"] = (4 if route == "keras" else 3) * stream
        elif step.kind == "IntAttention":
            qkv, scores = align(dims.tokens * dims.num_heads * dims.head_dim), align(dims.num_heads * dims.tokens**2)
            if route != "keras" and qkv > stream:
                found[f"{part} attention"] = stream + qkv + max(4 * qkv, 2 * qkv + scores, 2 * scores)
            else:
                found[f"{part} attention"] = 2 * stream + max(3 * qkv, 2 * qkv + scores, 2 * scores)
        elif step.kind == "InPlaceFC" and dims.gelu:
            found[f"{part} mlp"] = stream + 3 * align(dims.tokens * dims.out_features)
    return found


def stock_tail_bytes(config: SubnetConfig, route: str = "keras") -> int:
    """Tail of the arena: what TFLM's interpreter and kernels keep, in bytes. See the module."""
    _check_route(route)
    keras = route == "keras"
    parts = [_stock(step, keras) for _, step in _dense(config).steps()]
    ops: Counter = sum((part.ops for part in parts), Counter())
    channels = [n for part in parts for n in part.matrices]
    tensors = 1 + sum(ops.values())  # the image, and each op's output
    tensors += 2 * len(channels) + 1  # weights and biases, and the position table
    tensors += 2 * sum(part.norm for part in parts) if keras else 0  # gains and biases
    tensors += _SHARED_CONSTANTS[route]

    size = _BASE + _TENSOR * tensors + sum((_NODE + _OP_DATA[op]) * n for op, n in ops.items())
    # The patch convolution comes first and is always per channel.
    size += sum(map(_per_channel, channels[:1] if route == "lean_per_tensor" else channels))

    rank = 4 if keras else 3  # for the attention tensors: Keras keeps a batch dimension
    shape = _round16(4 + 4 * rank)
    for _, step in _dense(config).steps():
        if step.kind == "IntAttention":
            size += 2 * shape
            if keras:
                copy = _round16(step.dims.tokens * step.dims.num_heads * step.dims.head_dim)
                size += 2 * (_round16(_TENSOR) + shape + copy)
    return size


def _dense(config: SubnetConfig) -> Skeleton:
    """The plain network that stock tools run. ConfigError for an unknown_option."""
    if (name := unknown_option(config)) is not None:
        raise ConfigError(
            f"{name} = {getattr(config, name)!r}: what stock tools take was never measured; use its default"
        )
    plain = dataclasses.replace(
        config, rank_ratio=None, attention_rank_ratio=None, kv_heads=None, stem="patch", stem_channels=None,
        stem_blocks=None,
    )  # fmt: skip
    return skeleton(plain, Schedule("overwrite"))


def _stock_embedding_bytes(config: SubnetConfig) -> int:
    _, step = next(_dense(config).steps())
    return sum(_round16(count(step.dims)) for count in (step.module.input_elements, step.module.output_elements))


def _stock(step: Step, keras: bool) -> _Stock:
    """KeyError for an op that this formula does not know."""
    dims = step.dims
    if step.kind == "InPlaceFC":
        count = 3 if step.name == "qkv" else 1  # q, k and v are matrices of their own, of equal widths
        ops, matrices = Counter(FULLY_CONNECTED=count), (dims.out_features // count,) * count
        if dims.gelu:
            ops += _KERAS_GELU if keras else _LEAN_GELU
        return _Stock(ops + Counter(ADD=int(dims.residual)), matrices)
    return {
        "DecomposedPatchEmbed": lambda: _Stock(Counter(CONV_2D=1, RESHAPE=1, ADD=1), (dims.embed_dim,)),
        "IntLayerNorm": lambda: _Stock(_KERAS_NORM if keras else _LEAN_NORM, norm=True),
        "IntAttention": lambda: _Stock(_KERAS_ATTENTION if keras else _LEAN_ATTENTION),
        "TokenMean": lambda: _Stock(Counter(MEAN=1)),
    }[step.kind]()


def _per_channel(channels: int) -> int:
    """A multiplier and a shift of 4 bytes each per output channel, in two allocations."""
    return 2 * _round16(4 * channels)


def _round16(size: int) -> int:
    return (size + 15) // 16 * 16


def _check_route(route: str) -> None:
    if route not in ROUTES:
        raise ValueError(f"route is {route!r}: use one of {', '.join(ROUTES)}")
