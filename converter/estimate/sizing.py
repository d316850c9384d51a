# SPDX-License-Identifier: Apache-2.0
"""What each half of a layer takes of memory: by the paper's rule, in a plan, and with stock tools."""

from __future__ import annotations

from dataclasses import dataclass

from mcuformer.converter.memory.arena import ArenaPlan
from mcuformer.converter.subnet_config import SubnetConfig


@dataclass(frozen=True)
class PartSize:
    """Bytes of one part of the network.

    paper  M = h_f w_f + max(h_i w_i, h_o w_o), the weights of one layer counted (MCUFormer, token overwriting)
    ours   the highest address in use, scratch and everything that waits included
    stock  activations alive at one time with stock tools, where nothing is overwritten (see estimate/stock.py)
    """

    name: str
    paper: int
    ours: int
    stock: int


def part_of(tensor: str) -> str:
    """The part that makes a tensor, by the tensor's name."""
    if not tensor.startswith("layers."):
        return "embedding" if tensor == "embed" or tensor.startswith("stem.") else "head"
    _, layer, step = tensor.split(".", 2)
    half = "attention" if step.split(".")[0] in ("norm1", "qkv", "attention", "proj") else "mlp"
    return f"layers.{layer} {half}"


def _paper_and_stock(config: SubnetConfig) -> dict[str, tuple[int, int]]:
    n, d = config.tokens, config.embed_dim
    image = config.image_size**2 * config.in_channels

    def rule(tokens: int, inputs: int, outputs: int) -> int:
        return inputs * outputs + tokens * max(inputs, outputs)

    if config.stem == "patch":
        weights = config.patch_size**2 * config.in_channels * d
        parts = {"embedding": (weights + max(image, n * d), image + n * d)}
    else:
        parts = {"embedding": _stem(config)}
    for i, layer in enumerate(config.layers):
        scores = layer.num_heads * n * n
        attention = 2 * n * d + max(3 * n * layer.q_dim, 2 * n * layer.q_dim + scores, 2 * scores)
        parts[f"layers.{i} attention"] = (
            max(rule(n, d, layer.qkv_dim), rule(n, layer.q_dim, d)), attention,
        )  # fmt: skip
        pairs = [(d, layer.mlp_dim), (layer.mlp_dim, d)]
        if layer.rank is not None and layer.rank * (d + layer.mlp_dim) < d * layer.mlp_dim:
            pairs = [(d, layer.rank), (layer.rank, layer.mlp_dim), (layer.mlp_dim, layer.rank), (layer.rank, d)]
        parts[f"layers.{i} mlp"] = (max(rule(n, *pair) for pair in pairs), n * d + 3 * n * layer.mlp_dim)
    parts["head"] = (max(rule(1, d, config.num_classes), n * d), 4 * n * d)
    return parts


def _stem(config: SubnetConfig) -> tuple[int, int]:
    paper = stock = 0
    side, channels = config.image_size, config.in_channels
    for outputs in config.conv_channels:
        before = side * side * channels
        weights, side = 9 * channels * outputs, (side + 1) // 2
        after, channels = side * side * outputs, outputs
        paper, stock = max(paper, weights + max(before, after)), max(stock, before + after)
    return paper, stock


def sizes(config: SubnetConfig, plan: ArenaPlan) -> list[PartSize]:
    """One row a part, in order of execution."""
    everything = [*zip(plan.problem.buffers, plan.solution.offsets, strict=True)]
    everything += [*zip(plan.problem.scratch, plan.solution.scratch_offsets, strict=True)]
    made = {buffer.first: part_of(buffer.name) for buffer in plan.problem.buffers if buffer.first > 0}
    ours: dict[str, int] = {}
    for step, part in sorted(made.items()):
        top = max(offset + b.aligned_size for b, offset in everything if b.first <= step <= b.last)
        ours[part] = max(ours.get(part, 0), top)
    known = _paper_and_stock(config)
    return [PartSize(part, known[part][0], top, known[part][1]) for part, top in ours.items()]
