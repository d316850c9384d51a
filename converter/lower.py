# SPDX-License-Identifier: Apache-2.0
"""Lowers a float network to the int8 graph, op by op (schedule "overwrite")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mcuformer.converter.calibrate import Samples, check_method
from mcuformer.converter.float_vit import ConvStem, FloatViT, Layer, LowRankLinear
from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import (
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_gelu,
    int_layer_norm,
    stem_conv,
    token_mean,
)
from mcuformer.converter.quantise import Quantisation
from mcuformer.errors import ConfigError

IMAGE_SCALE = 1 / 127.5
IMAGE_ZERO = -0.5  # int8 = uint8 - 128 and real = uint8 / 127.5 - 1 = (int8 + 0.5) / 127.5
GELU_FLOOR = -4.0  # |gelu(x)| < 1.3e-4 below


@dataclass(frozen=True)
class QuantisationOptions:
    """How the network is quantised.

    method     ranges of activations: "minmax", "percentile" or "mse"
    gelu       "erf" (exact) or "sigmoid" (the paper's x * sigmoid(1.702 x))
    residual   the residual stream's scales: "per-channel" (integer factors of one scale) or "per-tensor"
    fuse_gelu  GELU inside InPlaceFC; False keeps IntGeLU as an op of its own
    """

    method: str = "minmax"
    gelu: str = "erf"
    residual: str = "per-channel"
    fuse_gelu: bool = True

    def __post_init__(self):
        check_method(self.method)
        if self.gelu not in int_gelu.FORMS:
            raise ConfigError(f"gelu = {self.gelu!r}: must be one of {', '.join(int_gelu.FORMS)}")
        if self.residual not in ("per-channel", "per-tensor"):
            raise ConfigError(f'residual = {self.residual!r}: must be "per-channel" or "per-tensor"')


def _array(value: torch.Tensor | None) -> np.ndarray | None:
    return None if value is None else value.detach().cpu().double().numpy()


class Lowering:
    """Builds the graph of one network; every method appends ops and returns the index of a tensor."""

    def __init__(self, net: FloatViT, samples: dict[str, Samples], options: QuantisationOptions):
        self.net = net
        self.config = net.config
        self.samples = samples
        self.options = options
        self.graph = Graph()

    def run(self) -> Graph:
        config, graph = self.config, self.graph
        image_shape = (1, config.image_size, config.image_size, config.in_channels)
        self.image = graph.add_input("image", image_shape, Quantisation(IMAGE_SCALE, 0))
        stream = self.conv_stem() if isinstance(self.net.stem, ConvStem) else self.patch_embed()
        for i, (layer, dims) in enumerate(zip(self.net.layers, config.layers, strict=True)):
            stream = self.attention(f"layers.{i}", layer, dims, stream)
            stream = self.mlp(f"layers.{i}", layer, stream)
        x = self.layer_norm("norm", self.net.norm, stream)
        x = self.token_mean(x)
        graph.output = self.fully_connected("head", self.net.head, x, self.affine("head"))
        return graph

    # ranges

    def affine(self, name: str, floor: float = -np.inf) -> Quantisation:
        return self.samples[name].affine(self.options.method, floor)

    def stream_quantisation(self, name: str) -> Quantisation:
        if self.options.residual == "per-tensor":
            return self.affine(name)
        return self.samples[name].per_channel(self.options.method, int_layer_norm.MAX_FACTOR)

    def quantisation(self, index: int) -> Quantisation:
        return self.graph.tensors[index].quantisation

    # ops

    def patch_embed(self) -> int:
        stem = self.net.stem
        options, constants, target = decomposed_patch_embed.lower(
            _array(stem.weight).transpose(0, 2, 3, 1), _array(stem.bias), _array(self.net.position)[0],
            IMAGE_SCALE, IMAGE_ZERO, self.stream_quantisation("embed"),
        )  # fmt: skip
        return self.graph.add_op("DecomposedPatchEmbed", "embed", options, {"image": self.image}, constants, target)

    def conv_stem(self) -> int:
        stem, x = self.net.stem, self.image
        scale, zero = IMAGE_SCALE, IMAGE_ZERO
        last = len(stem.convs) - 1
        for i, (conv, norm) in enumerate(zip(stem.convs, stem.norms, strict=True)):
            gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
            weight = _array(conv.weight).transpose(0, 2, 3, 1) * gain[:, None, None, None]
            bias = _array(norm.bias) - _array(norm.running_mean) * gain
            if i < last:
                name, position, target = f"stem.{i}", None, self.affine(f"stem.{i}")
            else:
                name, position, target = (
                    "embed",
                    _array(self.net.position)[0],
                    self.stream_quantisation("embed"),
                )
            options, constants, target = stem_conv.lower(weight, bias, position, scale, zero, target, relu=i < last)
            x = self.graph.add_op("StemConv", name, options, {"input": x}, constants, target)
            scale, zero = target.scale, float(target.zero_point)
        return x

    def layer_norm(self, name: str, norm: torch.nn.LayerNorm, x: int) -> int:
        options, constants, target = int_layer_norm.lower(
            _array(norm.weight), _array(norm.bias), norm.eps, self.quantisation(x), self.affine(name)
        )
        return self.graph.add_op("IntLayerNorm", name, options, {"input": x}, constants, target)

    def fully_connected(self, name: str, linear, x: int, target: Quantisation, residual: int | None = None) -> int:
        """A dense layer; its output dequantises by `target`, widened where needed."""
        return self._fc(name, _array(linear.weight), _array(linear.bias), x, target, residual)

    def _fc(self, name, weight, bias, x, target, residual=None, gelu_target=None) -> int:
        residual_q = None if residual is None else self.quantisation(residual)
        options, constants, target = in_place_fc.lower(weight, bias, self.quantisation(x), target, residual_q)
        activations = {"input": x} if residual is None else {"input": x, "residual": residual}
        if gelu_target is not None:
            constants["gelu_table"] = int_gelu.table(target, gelu_target, self.options.gelu)
            target = gelu_target
        return self.graph.add_op("InPlaceFC", name, options, activations, constants, target)

    def linear(self, name: str, linear, x: int, target: Quantisation, residual=None, gelu_target=None) -> int:
        """A dense or low-rank layer; two factors only where they cost less than their product."""
        if isinstance(linear, LowRankLinear):
            down, up = _array(linear.down.weight), _array(linear.up.weight)
            if len(down) * (down.shape[1] + len(up)) < down.shape[1] * len(up):
                x = self._fc(f"{name}.rank", down, None, x, self.affine(f"{name}.rank"))
                weight = up
            else:
                weight = up @ down
            bias = _array(linear.up.bias)
        else:
            weight, bias = _array(linear.weight), _array(linear.bias)
        if gelu_target is None or self.options.fuse_gelu:
            return self._fc(name, weight, bias, x, target, residual, gelu_target)
        x = self._fc(f"{name}.pre", weight, bias, x, target)
        table = int_gelu.table(self.quantisation(x), gelu_target, self.options.gelu)
        return self.graph.add_op("IntGeLU", name, int_gelu.Options(), {"input": x}, {"table": table}, gelu_target)

    def attention(self, name: str, layer: Layer, dims, stream: int) -> int:
        dim = dims.head_dim
        x = self.layer_norm(f"{name}.norm1", layer.norm1, stream)
        qkv_samples, out_samples = self.samples[f"{name}.qkv"], self.samples[f"{name}.attention"]

        def head_scales(samples: Samples, start: int, heads: int) -> np.ndarray:
            parts = [samples.columns(start + h * dim, start + (h + 1) * dim) for h in range(heads)]
            return np.array([part.symmetric(self.options.method).scale for part in parts])

        q = head_scales(qkv_samples, 0, dims.num_heads)
        k = head_scales(qkv_samples, dims.q_dim, dims.kv_heads)
        v = head_scales(qkv_samples, dims.q_dim + dims.kv_dim, dims.kv_heads)
        kv_of = np.arange(dims.num_heads) * dims.kv_heads // dims.num_heads
        # Where scores are too coarse even for the largest shift, q and k saturate alike.
        most = int_attention.largest_score_step(dim)
        for g in range(dims.kv_heads):
            excess = np.max(q[kv_of == g]) * k[g] / most
            k[g] /= max(1.0, np.sqrt(excess))
        q = np.minimum(q, most / k[kv_of])
        scales = np.repeat(np.concatenate([q, k, v]), dim)
        x = self.fully_connected(f"{name}.qkv", layer.attention.qkv, x, Quantisation(scales, 0))
        scales = self.quantisation(x).scale[::dim]  # perhaps widened
        q, k, v = np.split(scales, [dims.num_heads, dims.num_heads + dims.kv_heads])
        q = np.minimum(q, most / k[kv_of])

        out = head_scales(out_samples, 0, dims.num_heads)
        head_params = np.stack(
            [int_attention.lower_head(q[h], k[kv_of[h]], v[kv_of[h]], out[h], dim) for h in range(dims.num_heads)]
        )
        options = int_attention.Options(dims.kv_heads, dim, 0)
        x = self.graph.add_op(
            "IntAttention", f"{name}.attention", options, {"qkv": x}, {"head_params": head_params},
            Quantisation(np.repeat(out, dim), 0), features=dims.q_dim,
        )  # fmt: skip
        target = self.stream_quantisation(f"{name}.proj")
        return self.fully_connected(f"{name}.proj", layer.attention.proj, x, target, residual=stream)

    def mlp(self, name: str, layer: Layer, stream: int) -> int:
        x = self.layer_norm(f"{name}.norm2", layer.norm2, stream)
        pre = self.affine(f"{name}.fc1.pre", floor=GELU_FLOOR)
        x = self.linear(f"{name}.fc1", layer.mlp.fc1, x, pre, gelu_target=self.affine(f"{name}.fc1"))
        target = self.stream_quantisation(f"{name}.fc2")
        return self.linear(f"{name}.fc2", layer.mlp.fc2, x, target, residual=stream)

    def token_mean(self, x: int) -> int:
        options, target = token_mean.lower(self.config.tokens, self.quantisation(x), self.affine("mean"))
        return self.graph.add_op("TokenMean", "mean", options, {"input": x}, {}, target)


def lower(net: FloatViT, samples: dict[str, Samples], options: QuantisationOptions) -> Graph:
    """The int8 graph of a float network, given the samples of its activations."""
    return Lowering(net, samples, options).run()
