# SPDX-License-Identifier: Apache-2.0
"""Lowers a float network to the int8 graph: attaches data to its skeleton, op by op: schedule "overwrite", and stem_ops
but for stems with blocks, which are one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from mcuformer.checks import one_of
from mcuformer.converter import by_outputs
from mcuformer.converter.calibrate import PATCHES, Samples, check_method
from mcuformer.converter.float_vit import FloatViT, LowRankLinear, RelativeBias, RelativeTables, StemBlock
from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import (
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_gelu,
    int_layer_norm,
    relative_position,
    stem_block,
    stem_conv,
    streamed_stem,
    token_mean,
)
from mcuformer.converter.ops.streamed import FULLY_CONNECTED_TYPES
from mcuformer.converter.ops.work import TOKEN_BLOCK
from mcuformer.converter.quantise import Quantisation
from mcuformer.converter.skeleton import Schedule, Step, runs_as_factors, skeleton, steps_of
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError

PREFIX_SHARE = 0.2  # weight of all samples of prefix tokens, by that of the others
LEAST_VALUE = 1 / 16  # least scale of a channel of v, by that of its head

IMAGE_SCALE = 1 / 127.5
IMAGE_ZERO = -0.5  # int8 = uint8 - 128 and real = uint8 / 127.5 - 1 = (int8 + 0.5) / 127.5


RESIDUALS = ("per-channel", "per-tensor", "int16")
WIDE_NETWORKS = {"stem": ("patch",), "norm": ("pre",), "norm_pre": (False,), "final_norm": ("before", "after")}
"""Fields of a config and the values that residual="int16" takes: those of ViT, DeiT and Dinov2."""


@dataclass(frozen=True)
class QuantisationOptions:
    """How the network is quantised.

    method     ranges of activations: "minmax", "percentile" or "mse"
    gelu       how activation = "gelu" is computed: "erf" (exact) or "sigmoid" (the paper's x * sigmoid(1.702 x))
    residual   the residual stream: int8 with scales "per-channel" (integer factors of one scale) or "per-tensor", or
               "int16", which takes twice the memory and is for trained networks with outliers: see WIDE_NETWORKS
    fuse_gelu  GELU inside InPlaceFC; False keeps IntGeLU as an op of its own

    For trained networks with outliers, at no cost on the device:

    ranges     of what LayerNorms and activation functions hand to a matrix: "own" (its own values', by `method`), or
               "outputs": those that make the matrix's outputs most exact; a scale per channel behind a LayerNorm, and
               of attention's values and outputs
    rounding   of weights: "nearest", or "compensated" for the inputs that they meet in calibration
    """

    method: str = "minmax"
    gelu: str = "erf"
    residual: str = "per-channel"
    fuse_gelu: bool = True
    ranges: str = "own"
    rounding: str = "nearest"

    def __post_init__(self):
        check_method(self.method)
        one_of("gelu", self.gelu, int_gelu.FORMS)
        one_of("residual", self.residual, RESIDUALS)
        one_of("ranges", self.ranges, ("own", "outputs"))
        one_of("rounding", self.rounding, ("nearest", "compensated"))

    @property
    def wide(self) -> int:
        """1: the residual stream is int16."""
        return int(self.residual == "int16")

    def check_takes(self, config: SubnetConfig) -> None:
        """ConfigError for a network that cannot be quantised so."""
        for field, known in WIDE_NETWORKS.items() if self.wide else ():
            if (value := getattr(config, field)) not in known:
                raise ConfigError(
                    f'residual = "int16" with {field} = {value!r}: must be {" or ".join(map(repr, known))}; use '
                    'residual = "per-channel"'
                )


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()


def _bias(linear: torch.nn.Linear) -> np.ndarray | None:
    return None if linear.bias is None else _array(linear.bias)


def _folded(conv: Any, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weight [out, height, width, in] and bias [out] of a convolution and the batch norm behind it."""
    gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    weight = _array(conv.weight).transpose(0, 2, 3, 1) * gain[:, None, None, None]
    return weight, _array(norm.bias) - _array(norm.running_mean) * gain


class Lowering:
    """Attaches data to the ops of one network's skeleton, in order."""

    def __init__(self, net: FloatViT, samples: dict[str, Samples], options: QuantisationOptions):
        self.net = net
        self.samples = samples
        self.options = options
        self.graph = Graph()
        self.hidden: dict[str, tuple[Quantisation, Quantisation]] = {}
        activation = net.config.activation
        self.activation = options.gelu if activation == "gelu" else activation
        self.floor = int_gelu.ACTIVATIONS[activation].floor  # of the MLP's hidden values
        self.attach = {
            "DecomposedPatchEmbed": self.patch_embed, "StemConv": self.stem_conv, "IntLayerNorm": self.layer_norm,
            "InPlaceFC": self.fully_connected, "IntGeLU": self.gelu, "IntAttention": self.attention,
            "TokenMean": self.token_mean, "StreamedStem": self.streamed_stem,
        }  # fmt: skip

    def run(self) -> Graph:
        config, graph = self.net.config, self.graph
        stream = graph.add_input("image", (1, *config.image_shape), Quantisation(IMAGE_SCALE, 0))
        schedule = Schedule(
            "overwrite", fuse_gelu=self.options.fuse_gelu, stem_ops=config.stem_blocks is None, wide=self.options.wide
        )
        for prefix, part in skeleton(config, schedule).parts():
            made = {-1: stream}
            for at, step in enumerate(steps_of(part)):
                inputs = {step.module.INPUTS[position]: made[source] for position, source in step.reads}
                made[at] = stream = self.attach[step.kind](prefix + step.name, step, inputs)
                self._check(step)
        graph.output = stream
        return graph

    def _check(self, step: Step) -> None:
        """Asserts that the op just made is the wanted one; a factor per channel depends on the data."""
        made = self.graph.dims(self.graph.ops[-1])
        wanted = step.dims._replace(factor=made.factor) if hasattr(made, "factor") else step.dims
        if made != wanted:
            raise AssertionError(f"{step.name} was lowered as {made}, not as {wanted}")

    def add(self, step: Step, name: str, options, inputs, constants, quantisation, features=None) -> int:
        return self.graph.add_op(step.kind, name, options, inputs, constants, quantisation, features)

    # ranges

    def affine(self, name: str, floor: float = -np.inf) -> Quantisation:
        return self.samples[name].affine(self.options.method, floor)

    def stream_quantisation(self, name: str) -> Quantisation:
        if self.options.wide:
            return self.samples[name].wide(self.options.method)
        if self.options.residual == "per-tensor" or name == self._last_stream:
            return self.affine(name)
        return self.samples[name].per_channel(self.options.method, int_layer_norm.MAX_FACTOR)

    def quantisation(self, index: int) -> Quantisation:
        return self.graph.tensors[index].quantised_by

    @property
    def _last_stream(self) -> str | None:
        """The stream's last tensor, if the network's output is made of it: an output has one scale."""
        config = self.net.config
        return (
            f"layers.{config.depth - 1}.fc2"
            if (config.norm, config.final_norm, config.num_classes) == ("pre", "none", 0)
            else None
        )

    # ops: (full name, step, activations by role) -> tensor index

    def patch_embed(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        stem: Any = self.net.stem
        config = self.net.config
        options, constants, target = decomposed_patch_embed.lower(
            _array(stem.weight).transpose(0, 2, 3, 1), _array(stem.bias), _array(self.net.position)[0],
            IMAGE_SCALE, IMAGE_ZERO, self.stream_quantisation(name), padding=config.patch_padding,
            image_shape=config.image_shape[:2],
            rows=None if self.options.rounding == "nearest" else self.samples[PATCHES].rows,
        )  # fmt: skip
        return self.add(step, name, options, inputs, {**constants, "prefix": self._prefix(target)}, target)

    def _prefix(self, stream: Quantisation) -> np.ndarray | None:
        """[prefix_tokens, d], of the stream's type: what stands before the tokens of patches."""
        return None if self.net.prefix is None else stream.quantise(_array(self.net.prefix)[0])

    def stem_conv(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        at = len(self.graph.ops)
        source = self.quantisation(inputs["input"]) if at else None
        options, constants, target = self._convolution(name, at, source, step.stream)
        return self.add(step, name, options, inputs, constants, target)

    def _convolution(
        self, name: str, at: int, source: Quantisation | None, last: bool
    ) -> tuple[Any, dict[str, np.ndarray | None], Quantisation]:
        """Of a stem's convolution by its number: options, constants and the quantisation of what it makes. source: of
        what it reads, None for the image."""
        stem: Any = self.net.stem
        scale, zero = (IMAGE_SCALE, IMAGE_ZERO) if source is None else (float(source.scale), float(source.zero_point))
        position = _array(self.net.position)[0] if last else None
        target = self.stream_quantisation(name) if last else self.affine(name)
        options, constants, target = stem_conv.lower(
            *_folded(stem.convs[at], stem.norms[at]), position, scale, zero, target, relu=not last
        )
        constants["prefix"] = self._prefix(target) if last else None
        return options, constants, target

    def streamed_stem(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        """A stem with blocks: all convolutions and all blocks as one op."""
        stem, count = cast(Any, self.net.stem), len(step.dims.outputs)
        source: Quantisation | None = None
        constants: dict[str, np.ndarray | None] = {}
        convs, blocks = [], []
        for i in range(count):
            last = i + 1 == count
            options, made, source = self._convolution(name if last else f"stem.{i}", i, source, last)
            matrix = {role: made.pop(role) for role in FULLY_CONNECTED_TYPES}
            constants |= made | {f"conv{i}_{role}": values for role, values in matrix.items()}
            constants[f"conv{i}_weights"] = cast(np.ndarray, matrix["weights"]).reshape(step.dims.outputs[i], -1)
            convs.append(options)
            zero_points = (0, 0, 0)
            if str(i) in stem.blocks:
                made, zero_points, source = self._block(f"stem.{i}", stem.blocks[str(i)], source)
                constants |= {f"block{i}_{role}": values for role, values in made.items()}
            blocks.append(zero_points)
        zero_points_of = tuple(conv.zero_point for conv in convs)
        stem_options = streamed_stem.Options(
            TOKEN_BLOCK, convs[0].pad_value, zero_points_of, block_zero_points=tuple(blocks[:-1])
        )
        return self.add(step, name, stem_options, inputs, constants, source)

    def _block(
        self, name: str, block: StemBlock, source: Quantisation
    ) -> tuple[dict[str, np.ndarray | None], tuple[int, int, int], Quantisation]:
        """Of a stem's block behind the activation `name`, quantised as `source`: constants, zero points of what its
        convolutions make, and the quantisation of what the last one does."""
        weight, bias = _folded(block.expand, block.expand_norm)
        _, expand, expanded = in_place_fc.lower(weight[:, 0, 0], bias, source, self.affine(f"{name}.expand"))
        weight, bias = _folded(block.depthwise, block.depthwise_norm)
        depthwise, inside = stem_block.lower_depthwise(weight[..., 0], bias, expanded, self.affine(f"{name}.depthwise"))
        weight, bias = _folded(block.project, block.project_norm)
        _, project, target = in_place_fc.lower(weight[:, 0, 0], bias, inside, self.affine(f"{name}.block"), source)
        constants: dict[str, np.ndarray | None] = {"residual_scale": project["residual_scale"]}
        for matrix, made in (("expand", expand), ("depthwise", depthwise), ("project", project)):
            constants |= {f"{matrix}_{role}": made[role] for role in FULLY_CONNECTED_TYPES}
        return constants, (expanded.zero_point, inside.zero_point, target.zero_point), target

    def layer_norm(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        """norm_pre makes the stream that all layers add to, so it has a scale per channel; a LayerNorm after each sum
        (norm = "post") makes a stream whose channels are alike."""
        norm: Any = self.net.get_submodule(name)
        if name == "norm_pre":
            target = self.stream_quantisation(name)
        elif step.stream or name == "norm":
            target = self.affine(name)
        else:
            target = self._norm_quantisation(name, _array(norm.weight))
        options, constants, target = int_layer_norm.lower(
            _array(norm.weight), _array(norm.bias), norm.eps, self.quantisation(inputs["input"]), target
        )
        return self.add(step, name, options, inputs, constants, target)

    def _norm_quantisation(self, name: str, gamma: np.ndarray) -> Quantisation:
        if self.options.ranges == "own":
            return self.affine(name)
        reader = self._reader(name.replace("norm1", "qkv").replace("norm2", "fc1"))
        finest = int_layer_norm.finest_scale(gamma)
        return by_outputs.norm_quantisation(self.samples[name], self.options.method, reader, finest)

    def _hidden_quantisation(self, name: str) -> tuple[Quantisation, Quantisation]:
        """Of the MLP's hidden values `name`, before and after the activation function."""
        if self.options.ranges == "own":
            return self.affine(f"{name}.pre", self.floor), self.affine(name)
        if name not in self.hidden:
            before, after = self.samples[f"{name}.pre"], self.samples[name]
            reader = self._reader(name.replace("fc1", "fc2"))
            self.hidden[name] = by_outputs.hidden_quantisation(
                before, after, self.options.method, self.activation, reader
            )
        return self.hidden[name]

    def _reader(self, name: str) -> np.ndarray:
        """Weight of the matrix that computes `name` from its input: a low-rank layer's first factor, if it runs so."""
        linear = self._linear(name)
        if isinstance(linear, LowRankLinear):
            (rank, inputs), outputs = linear.down.weight.shape, len(linear.up.weight)
            if runs_as_factors(rank, inputs, outputs):
                name += ".rank"
        return self._matrix(name)[0]

    def fully_connected(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        """A dense layer, or one of a low-rank layer's two factors."""
        weight, bias = self._matrix(name)
        residual = self.quantisation(inputs["residual"]) if step.dims.residual else None
        rows, row_weights = self._rows(inputs["input"])
        options, constants, target = in_place_fc.lower(
            weight, bias, self.quantisation(inputs["input"]), self._target(name, step), residual,
            rows, row_weights,
        )  # fmt: skip
        if step.dims.gelu:
            _, gelu_target = self._hidden_quantisation(name)
            constants["gelu_table"] = int_gelu.table(target, gelu_target, self.activation)
            target = gelu_target
        return self.add(step, name, options, inputs, constants, target)

    def _rows(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Samples of an activation that rounding is compensated for, float [n, channels], and their weights [n]."""
        if self.options.rounding == "nearest":
            return None, None
        samples = self.samples[self.graph.tensors[index].name]
        if not len(samples.prefix):
            return samples.rows, None
        rows = np.concatenate([samples.rows, samples.prefix])
        weights = np.ones(len(rows))
        weights[len(samples.rows) :] = PREFIX_SHARE * len(samples.rows) / len(samples.prefix)
        return rows, weights

    def _linear(self, name: str) -> Any:
        """The fully connected layer that makes `name`, dense or of low rank."""
        layer, _, matrix = name.rpartition(".")
        half = "mlp" if matrix.startswith("fc") else "attention"
        return self.net.get_submodule(f"{layer}.{half}.{matrix}" if layer else matrix)

    def _matrix(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight float [out, in] and bias of the fully connected layer that makes `name`."""
        linear = self._linear(name.removesuffix(".rank").removesuffix(".pre"))
        if not isinstance(linear, LowRankLinear):
            return _array(linear.weight), _bias(linear)
        down, up = _array(linear.down.weight), _array(linear.up.weight)
        if name.endswith(".rank"):
            return down, None
        weight = up if runs_as_factors(len(down), down.shape[1], len(up)) else up @ down
        return weight, _bias(linear.up)

    def _target(self, name: str, step: Step) -> Quantisation:
        """Quantisation of a fully connected layer's output, before its GELU."""
        if name.endswith(".qkv"):
            return self._heads_quantisation(name)
        if step.stream:
            return self.stream_quantisation(name)
        if step.dims.gelu:
            return self._hidden_quantisation(name)[0]
        return self._hidden_quantisation(name.removesuffix(".pre"))[0] if name.endswith(".pre") else self.affine(name)

    def gelu(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        _, target = self._hidden_quantisation(name)
        table = int_gelu.table(self.quantisation(inputs["input"]), target, self.activation)
        return self.add(step, name, int_gelu.Options(), inputs, {"table": table}, target)

    def _head_scales(self, samples: Samples, start: int, heads: int, dim: int) -> np.ndarray:
        """One scale per head from channel `start` on; a head has `dim` channels."""
        parts = [samples.columns(start + h * dim, start + (h + 1) * dim) for h in range(heads)]
        return np.array([part.symmetric(self.options.method).scale for part in parts])

    def _heads_quantisation(self, name: str) -> Quantisation:
        """Quantisation of q, k and v: one scale per head, or of v one per channel.

        If scores are too coarse even at the largest shift, q and k saturate alike.
        """
        layer = self._layer(name)
        samples, dim = self.samples[name], layer.head_dim
        q = self._head_scales(samples, 0, layer.num_heads, dim)
        k = self._head_scales(samples, layer.q_dim, layer.kv_heads, dim)
        v = self._head_scales(samples, layer.q_dim + layer.kv_dim, layer.kv_heads, dim)
        kv_of, most = _kv_of(layer), self._largest_score_step(dim)
        relative = self._relative(name)
        if isinstance(relative, RelativeTables):  # added to keys and values by multipliers up to 1
            k = np.maximum(k, relative_position.table_scale(_array(relative.keys)))
            v = np.maximum(v, relative_position.table_scale(_array(relative.values)))
        elif relative is not None:
            q = np.maximum(q, relative_position.least_unit(_array(relative.bias), dim) * np.sqrt(dim) / k[kv_of])
        for g in range(layer.kv_heads):
            excess = np.max(q[kv_of == g]) * k[g] / most
            k[g] /= max(1.0, np.sqrt(excess))
        q = np.minimum(q, most / k[kv_of])
        scales = np.repeat(np.concatenate([q, k, v]), dim)
        if self._values_by_channel(relative):
            values = layer.q_dim + layer.kv_dim
            own = samples.columns(values, layer.qkv_dim).each_channel(self.options.method).scale
            scales[values:] = np.maximum(own, scales[values:] * LEAST_VALUE)
        return Quantisation(scales, 0)

    def _values_by_channel(self, relative: RelativeBias | RelativeTables | None) -> bool:
        """Whether each channel of v has a scale, which attention's outputs keep: outputs are means of values, so what
        holds values holds them, on any image. Not with tables, whose entries have one scale per head."""
        return self.options.ranges == "outputs" and not isinstance(relative, RelativeTables)

    def _largest_score_step(self, head_dim: int) -> float:
        return int_attention.largest_score_step(head_dim, self.net.config.relative is not None)

    def _relative(self, name: str) -> RelativeBias | RelativeTables | None:
        """The relative positions of the layer with this activation."""
        layer: Any = self.net.layers[int(name.split(".")[1])]
        return layer.attention.relative

    def _layer(self, name: str) -> LayerConfig:
        return self.net.config.layers[int(name.split(".")[1])]

    def attention(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        layer = self._layer(name)
        dim, kv_of, most = layer.head_dim, _kv_of(layer), self._largest_score_step(layer.head_dim)
        scales = np.asarray(self.quantisation(inputs["qkv"]).scale)  # perhaps widened
        q, k, v = np.split(scales[::dim], [layer.num_heads, layer.num_heads + layer.kv_heads])
        q = np.minimum(q, most / k[kv_of])
        relative, grid = self._relative(name), self.net.config.grid_shape
        tables = isinstance(relative, RelativeTables)
        if self._values_by_channel(relative):
            out = v[kv_of]
            target = Quantisation(scales[layer.q_dim + layer.kv_dim :].reshape(-1, dim)[kv_of].ravel())
        else:
            out = self._head_scales(self.samples[name], 0, layer.num_heads, dim)
            target = Quantisation(np.repeat(out, dim))
        head_params = np.stack([
            int_attention.lower_head(q[h], k[g], v[g], out[h], dim, step.dims.tokens, tables)
            for h, g in enumerate(kv_of)
        ])  # fmt: skip
        constants = {"head_params": head_params}
        if isinstance(relative, RelativeTables):
            keys, values = _array(relative.keys), _array(relative.values)
            constants |= relative_position.lower_tables(keys, values, k[kv_of], v[kv_of])
        elif relative is not None:
            constants |= relative_position.lower_bias(_array(relative.bias), q * k[kv_of] / np.sqrt(dim), dim)
        options = int_attention.Options(layer.kv_heads, dim, 0, *(grid if relative is not None else ()))
        return self.add(step, name, options, inputs, constants, target, features=layer.q_dim)

    def token_mean(self, name: str, step: Step, inputs: dict[str, int]) -> int:
        source = self.quantisation(inputs["input"])
        targets = self._pool_targets(name, step.dims, source)
        options, target = token_mean.lower(step.dims, source, targets)
        if len(set(np.atleast_1d(target.scale))) == 1:
            target = Quantisation(float(np.max(target.scale)), target.zero_point, target.bits)
        return self.add(step, name, options, inputs, {}, target)

    def _pool_targets(self, name: str, dims: Any, source: Quantisation) -> list[Quantisation]:
        """One per mean, dims.parts; single tokens are copied as they are."""
        d, method, config = dims.features, self.options.method, self.net.config
        if all(count == 1 for _, count in dims.parts):
            return [source] * len(dims.parts)
        parts = [self.samples[name].columns(i * d, (i + 1) * d) for i in range(len(dims.parts))]
        if source.per_channel:
            return [part.each_channel(method) for part in parts]
        if len(parts) == 1:
            return [parts[0].affine(method)]
        if config.num_classes or config.norm_after_pool:
            return [part.symmetric(method) for part in parts]
        return [self.samples[name].symmetric(method)] * len(parts)  # the output has one scale


def _kv_of(layer: LayerConfig) -> np.ndarray:
    """The key/value head of every query head."""
    return np.arange(layer.num_heads) * layer.kv_heads // layer.num_heads


def lower(net: FloatViT, samples: dict[str, Samples], options: QuantisationOptions) -> Graph:
    """The int8 graph of a float network, given the samples of its activations. ConfigError if it cannot be quantised
    so."""
    options.check_takes(net.config)
    return Lowering(net, samples, options).run()
