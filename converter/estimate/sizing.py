# SPDX-License-Identifier: Apache-2.0
"""How much memory each half of a layer takes: by the paper's rule, in our plan, and with stock tools."""

from __future__ import annotations

from dataclasses import dataclass

from mcuformer.converter.estimate.stock import stock_part_bytes, unknown_option
from mcuformer.converter.memory.arena import ArenaPlan
from mcuformer.converter.skeleton import Schedule, skeleton
from mcuformer.converter.subnet_config import SubnetConfig


@dataclass(frozen=True)
class PartSize:
    """Bytes of one part of the network.

    paper  M = h_f w_f + max(h_i w_i, h_o w_o), the weights of one layer counted (MCUFormer, token overwriting)
    ours   the highest address in use, with scratch and every buffer that waits
    stock  activations alive at one time with stock tools, which overwrite nothing (estimate/stock.py); None: unknown
    """

    name: str
    paper: int
    ours: int
    stock: int | None


def part_of(tensor: str) -> str:
    """The part that makes a tensor, by the tensor's name."""
    if not tensor.startswith("layers."):
        return "embedding" if tensor in ("embed", "norm_pre") or tensor.startswith("stem.") else "head"
    _, layer, step = tensor.split(".", 2)
    half = "attention" if step.split(".")[0] in ("norm1", "qkv", "attention", "proj") else "mlp"
    return f"layers.{layer} {half}"


def _paper_and_stock(config: SubnetConfig) -> dict[str, tuple[int, int | None]]:
    """Bytes of each part, by name: by the paper's rule, and with stock tools (None: unknown)."""
    paper: dict[str, int] = {}
    stock: dict[str, int] = {}
    for name, step in skeleton(config, Schedule("overwrite", stem_ops=config.stem_blocks is None)).steps():
        module, dims, part = step.module, step.dims, part_of(name)
        before, after = module.input_elements(dims), module.output_elements(dims)
        paper[part] = max(paper.get(part, 0), module.weight_elements(dims) + max(before, after))
        if part == "embedding":
            stock[part] = max(stock.get(part, 0), before + after)
    if unknown_option(config) is not None:
        return {part: (size, None) for part, size in paper.items()}
    stock.update(stock_part_bytes(config, exact=True))
    return {part: (paper[part], stock[part]) for part in paper}


def sizes(config: SubnetConfig, plan: ArenaPlan) -> list[PartSize]:
    """One row per part, in order of execution."""
    everything = [*zip(plan.problem.buffers, plan.solution.offsets, strict=True)]
    everything += [*zip(plan.problem.scratch, plan.solution.scratch_offsets, strict=True)]
    made = {buffer.first: part_of(buffer.name) for buffer in plan.problem.buffers if buffer.first > 0}
    ours: dict[str, int] = {}
    for step, part in sorted(made.items()):
        top = max(offset + b.aligned_size for b, offset in everything if b.first <= step <= b.last)
        ours[part] = max(ours.get(part, 0), top)
    known = _paper_and_stock(config)
    return [PartSize(part, known[part][0], top, known[part][1]) for part, top in ours.items()]
