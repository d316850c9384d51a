# SPDX-License-Identifier: Apache-2.0
"""Bytes of SRAM by the paper's sizing rule, `--rule paper` of `mcuformer evolve`; the default rule is the exact arena.

MCUFormer, token overwriting: M = sup over layers l of  h_f w_f + max(h_i w_i, h_o w_o), where h and w are height and
width of weight (f), input (i) and output (o) of the fully connected layer l, in int8: its weights lie in SRAM, and
input and output share one buffer as large as the larger of them.

What the paper leaves open, we read so: q, k and v are one layer, as in AutoFormer; a matrix of low rank is one layer
whose weights are both factors, so its product of rank r is no buffer. Embedding, scores and norms do not count. Both
factors count also where the dense matrix would be smaller, which we would run. (estimate/sizing.py, what `convert
--report` shows, takes the ops that we run for layers: such a matrix dense, factors one by one, the embedding too.)
`python benchmarks/paper_rule.py` compares what fits by this rule, by the authors' code, and in our arena.
"""

from __future__ import annotations

from mcuformer.converter.subnet_config import SubnetConfig


def paper_sram(config: SubnetConfig) -> int:
    """M of a network, in bytes."""
    d, most = config.embed_dim, 0
    for layer in config.layers:
        for inputs, outputs, rank in (
            (d, layer.qkv_dim, layer.attention_rank),
            (layer.q_dim, d, layer.proj_rank),
            (d, layer.mlp_dim, layer.rank),
            (layer.mlp_dim, d, layer.rank),
        ):
            most = max(most, _layer(config.tokens, inputs, outputs, rank))
    if config.num_classes:
        most = max(most, _layer(1, config.pool_dim, config.num_classes, None))
    return most


def _layer(tokens: int, inputs: int, outputs: int, rank: int | None) -> int:
    """Bytes of one layer's weights and of the buffer for its input and output."""
    weights = inputs * outputs if rank is None else rank * (inputs + outputs)
    return weights + tokens * max(inputs, outputs)
