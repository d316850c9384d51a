# SPDX-License-Identifier: Apache-2.0
"""Errors of IntLayerNorm, IntGeLU and IntAttention against float64 on the same int8 input.

    python benchmarks/op_error.py --json op_error.json

All by the integer reference, which the kernels equal bit for bit (tests/core); one case of each op is also run by
the kernel in the interpreter. The float64 result is rounded to the same int8 output scale; errors are in its steps
(LSB), except for GELU, where they are against the unrounded value.
"""

from __future__ import annotations

import sys

import numpy as np
import table

from mcuformer import run_op
from mcuformer.converter.ops import int_attention, int_gelu, int_layer_norm
from mcuformer.converter.quantise import affine

WIDTHS = (8, 17, 33, 64, 96, 192, 384, 768)
TOKENS = (16, 49, 196, 500)
HEAD_DIMS = (16, 32, 64)
SPREADS = (0.3, 1.0, 3.0, 10.0)
GELU_RANGES = ((-1, 1), (-4, 2), (-4, 4), (-4, 8), (-4, 20))
ATTENTION_SHARE = 0.999
EPSILON = 1e-6


def layer_norm_inputs(rng, d: int) -> dict[str, np.ndarray]:
    """int8 [1, tokens, d]: all values, little variance, and a few channels far larger than the rest."""
    tokens = 400
    outliers = rng.normal(0, 4, (1, tokens, d))
    outliers[..., : max(1, d // 48)] *= 25
    cases = {
        "uniform": rng.integers(-128, 128, (1, tokens, d)),
        "narrow": rng.normal(20, 3, (1, tokens, d)),
        "outliers": outliers,
    }
    return {name: np.clip(np.rint(x), -128, 127).astype(np.int8) for name, x in cases.items()}


def layer_norm_case(rng, x: np.ndarray, per_channel: bool):
    """(options, constants, float64 result rounded to int8) of a random gamma and beta."""
    d = x.shape[-1]
    gamma, beta = rng.normal(1, 0.3, d), rng.normal(0, 0.3, d)
    source = affine(-3.0, 5.0)
    if per_channel:
        source = type(source)(0.002 * rng.integers(1, int_layer_norm.MAX_FACTOR + 1, d), 0)
    real = source.dequantise(x)
    normal = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + EPSILON)
    want = normal * gamma + beta
    options, constants, target = int_layer_norm.lower(gamma, beta, EPSILON, source, affine(want.min(), want.max()))
    return options, constants, target.quantise(want).astype(int)


def layer_norm() -> list[dict]:
    rows = []
    for d in WIDTHS:
        for per_channel in (False, True):
            rng = np.random.default_rng(d)
            off = []
            for x in layer_norm_inputs(rng, d).values():
                options, constants, want = layer_norm_case(rng, x, per_channel)
                off.append(np.abs(int_layer_norm.reference(options, x, **constants) - want).ravel())
            off = np.concatenate(off)
            rows.append(
                {"width": d, "factors": per_channel, "max_lsb": int(off.max()), "exact": float((off == 0).mean())}
            )
    return rows


def gelu() -> list[dict]:
    rows = []
    for low, high in GELU_RANGES:
        source = affine(low, high)
        x = source.dequantise(np.arange(-128, 128))
        exact, sigmoid = int_gelu.gelu_erf(x), int_gelu.gelu_sigmoid(x)
        target = affine(exact.min(), exact.max())

        def lsb(form, source=source, target=target, exact=exact):
            made = target.dequantise(int_gelu.table(source, target, int_gelu.FORMS[form]))
            return float(np.abs(made - exact).max() / target.scale)

        rows.append(
            {
                "low": low, "high": high, "max_lsb": lsb("erf"), "sigmoid_max_lsb": lsb("sigmoid"),
                "sigmoid_max_error": float(np.abs(sigmoid - exact).max()),
            }
        )  # fmt: skip
    return rows


def attention_case(rng, batch: int, tokens: int, dim: int, spread: float):
    """(options, qkv, head_params, float64 result rounded to int8); spread: of the scores, in nats."""
    qkv = np.clip(np.rint(rng.normal(0, 40, (batch, tokens, 3 * dim))), -127, 127).astype(np.int8)
    q, k, v = (part.astype(np.float64) for part in np.split(qkv, 3, axis=-1))
    step = spread / (40 * 40)  # q_scale * k_scale
    scores = step * q @ k.transpose(0, 2, 1) / np.sqrt(dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = weights @ v / weights.sum(-1, keepdims=True)
    scale = np.abs(want).max() / 127
    head_params = int_attention.lower_head(step, 1.0, 1.0, scale, dim)[None]
    return int_attention.Options(1, dim, 0), qkv, head_params, np.rint(want / scale).astype(int)


def attention() -> list[dict]:
    rows = []
    for tokens in TOKENS:
        for dim in HEAD_DIMS:
            for spread in SPREADS:
                rng = np.random.default_rng(tokens + dim)
                options, qkv, params, want = attention_case(rng, max(2, 2000 // tokens), tokens, dim, spread)
                off = np.abs(int_attention.reference(options, qkv, params)[..., :dim] - want)
                rows.append(
                    {
                        "tokens": tokens, "head_dim": dim, "spread": spread, "max_lsb": int(off.max()),
                        "exact": float((off == 0).mean()), "within_1": float((off <= 1).mean()),
                    }
                )  # fmt: skip
    return rows


def kernels_equal() -> dict[str, bool]:
    """One case of each op, run by the kernel in the interpreter: does it equal the reference?"""
    rng = np.random.default_rng(0)
    x = layer_norm_inputs(rng, 96)["outliers"]
    options, constants, _ = layer_norm_case(rng, x, per_channel=True)
    table_constant = {"table": int_gelu.table(affine(-4, 8), affine(-0.17, 8))}
    attention_options, qkv, head_params, _ = attention_case(rng, 1, 196, 64, 1.0)
    cases = [
        (int_layer_norm, {"input": x}, constants, options, None),
        (int_gelu, {"input": x}, table_constant, int_gelu.Options(), None),
        # The output is as wide as q, k and v; only the part in place of q is meaningful.
        (int_attention, {"qkv": qkv}, {"head_params": head_params}, attention_options, attention_options.head_dim),
    ]
    equal = {}
    for module, inputs, values, op_options, features in cases:
        given = {name: value for name, value in values.items() if value is not None}
        got = run_op(module.NAME, inputs, given, vars(op_options))
        want = module.reference(op_options, *inputs.values(), **given)
        equal[module.NAME] = bool(np.array_equal(got[..., :features], want[..., :features]))
    return equal


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    norms, gelus, attentions, equal = layer_norm(), gelu(), attention(), kernels_equal()

    print("IntLayerNorm: three kinds of input, with and without a factor for each channel")
    table.show(
        ["width", "factors", "max LSB", "exact %"],
        [[r["width"], "yes" if r["factors"] else "no", r["max_lsb"], f"{100 * r['exact']:.2f}"] for r in norms],
    )
    print("\nIntGeLU: all 256 inputs; the table of the exact form, and the paper's x * sigmoid(1.702 x)")
    table.show(
        ["input range", "erf: max LSB", "sigmoid: max LSB", "max error"],
        [
            [f"[{r['low']}, {r['high']}]", f"{r['max_lsb']:.3f}", f"{r['sigmoid_max_lsb']:.2f}",
             f"{r['sigmoid_max_error']:.4f}"]
            for r in gelus
        ],
    )  # fmt: skip
    print("\nIntAttention: by the spread (standard deviation) of the scores in nats")
    table.show(
        ["tokens", "head_dim", "spread", "max LSB", "exact %", "within 1 LSB %"],
        [
            [r["tokens"], r["head_dim"], r["spread"], r["max_lsb"], f"{100 * r['exact']:.2f}",
             f"{100 * r['within_1']:.3f}"]
            for r in attentions
        ],
    )  # fmt: skip

    most_norm, most_gelu = max(r["max_lsb"] for r in norms), max(r["max_lsb"] for r in gelus)
    share = min(r["within_1"] for r in attentions)
    found = [
        table.requirement("IntLayerNorm: within 1 LSB", f"{most_norm} LSB", most_norm <= 1),
        table.requirement("IntGeLU: exact to rounding", f"{most_gelu:.3f} LSB", most_gelu <= 0.5 + 1e-9),
        table.requirement("IntAttention: 99.9 % within 1 LSB", f"{100 * share:.3f} %", share >= ATTENTION_SHARE),
        *(table.requirement(f"{name}: the kernel equals the reference", None, same) for name, same in equal.items()),
    ]
    result = {"layer_norm": norms, "gelu": gelus, "attention": attentions, "kernels_equal": equal}
    return table.finish(result, found, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
