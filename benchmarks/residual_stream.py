# SPDX-License-Identifier: Apache-2.0
"""The residual stream in int8: what its scales cost, on the trained demo network and on random ones.

    python benchmarks/residual_stream.py --json residual_stream.json          # trains the demo's network first
    python benchmarks/residual_stream.py --subnet mcuformer-demo/subnet.pt

Streams, each with every calibration method (minmax, percentile, mse):

    per-tensor          one int8 scale and zero point
    power of two        per channel, powers of two (1 to 64) of one scale, as FQ-ViT has before LayerNorm; each holds
                        its channel's range. Not in the converter: the integer factors below, rounded up
    integer             per channel, integer multiples (1 to 127) of one scale: "per-channel", the default
    integer + 10 %      the same with scales a tenth larger, for images whose values exceed those of the calibration
    simulated 8, 16 bit a simulation in float, no int8 arithmetic: weights and all activations of the int8 network
                        are rounded to its exact scales, the stream to 8 bits ("integer") or to 16 bits
                        (per-tensor). The 8-bit one shows how close the simulation comes to the real network

The logit error is the root mean square of (int8 - float) over that of the float logits, on all test images. The
int8 networks run as the integer reference, which the kernels equal bit for bit.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import networks
import numpy as np
import table
import torch

from mcuformer.converter.calibrate import METHODS, Samples, calibrate, to_float
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.lower import Lowering, QuantisationOptions
from mcuformer.converter.quantise import Quantisation, symmetric
from mcuformer.data import load
from mcuformer.nas import build_subnet, load_subnet, train
from mcuformer.nas.recipes import NETWORK_CONFIG, NETWORK_OPTIONS

CALIBRATION_IMAGES = 256  # as the demo takes
LARGEST_POWER = 6
MARGIN = 1.1
OUTLIERS = 20.0
MOST_POINTS_LOST = 0.5
STREAM = ("embed", ".proj", ".fc2")  # suffixes of the names of the stream's tensors
DEFAULT = ("integer", QuantisationOptions().method)


class MarginLowering(Lowering):
    """Stream scales a tenth larger than calibrated."""

    def stream_quantisation(self, name: str) -> Quantisation:
        q = super().stream_quantisation(name)
        return Quantisation(q.scale * MARGIN, q.zero_point)


class PowerOfTwoLowering(Lowering):
    """Stream scales rounded up to powers of two of one."""

    def stream_quantisation(self, name: str) -> Quantisation:
        need = self.samples[name].per_channel(self.options.method, 1 << 20).scale  # as good as unrounded
        base = need.max() / 2**LARGEST_POWER
        power = np.clip(np.ceil(np.log2(need / base) - 1e-9), 0, LARGEST_POWER)
        return Quantisation(base * 2**power, 0)


STREAMS = {
    "per-tensor": (Lowering, "per-tensor"),
    "power of two": (PowerOfTwoLowering, "per-channel"),
    "integer": (Lowering, "per-channel"),
    "integer + 10 %": (MarginLowering, "per-channel"),
}


def int8_logits(net: FloatViT, samples: dict[str, Samples], stream: str, method: str, images: np.ndarray) -> np.ndarray:
    """Logits of the int8 network, by the integer reference."""
    lowering, residual = STREAMS[stream]
    return lowering(net, samples, QuantisationOptions(method, residual=residual)).run().reference(images)


def round_weights(net: FloatViT, quantisations: dict[str, Quantisation]) -> FloatViT:
    """A copy with all matrices and the position table rounded to int8, symmetric, per output channel."""
    net = copy.deepcopy(net)

    def rounded(weight: np.ndarray, axis: int) -> torch.Tensor:
        q = symmetric(np.abs(weight).max(axis=axis, keepdims=True))
        return torch.from_numpy(q.dequantise(q.quantise(weight)))

    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                weight = module.weight.double().numpy().reshape(len(module.weight), -1)
                # Heads have scales of their own, which enter the next matrix.
                scale = quantisations[name.removesuffix(".proj")].scale if name.endswith("attention.proj") else 1.0
                weight = rounded(weight * scale, 1) / torch.as_tensor(scale)
                module.weight.copy_(weight.reshape(module.weight.shape))
        net.position.copy_(rounded(net.position.double().numpy(), 1))
    return net


def simulated_logits(
    net: FloatViT, samples: dict[str, Samples], bits: int, method: str, images: np.ndarray
) -> np.ndarray:
    """Logits of the float network with all tensors of the int8 network rounded, the stream to `bits`."""
    residual = "per-channel" if bits == 8 else "per-tensor"
    graph = Lowering(net, samples, QuantisationOptions(method, residual=residual, fuse_gelu=False)).run()
    quantisations = {t.name: t.quantisation for t in graph.tensors if t.quantisation is not None}

    def fake_quantise(name: str, value: torch.Tensor) -> None:
        q = quantisations[name]
        finer = 2 ** (bits - 8) if name.endswith(STREAM) else 1
        steps = np.rint(value.double().numpy() / q.scale * finer)
        low, high = (-128 - q.zero_point) * finer, (128 - q.zero_point) * finer - 1
        value.copy_(torch.from_numpy(np.clip(steps, low, high) * (q.scale / finer)))

    rounded = round_weights(net, quantisations).eval()
    with torch.inference_mode():
        parts = [rounded(to_float(images[i : i + 128]), fake_quantise) for i in range(0, len(images), 128)]
    return torch.cat(parts).numpy()


def logit_error(logits: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((logits - expected) ** 2) / np.mean(expected**2)))


def trained(subnet: Path | None, training) -> FloatViT:
    """The network of a file, or the demo's, trained here."""
    if subnet is not None:
        return load_subnet(subnet)

    def show(p):
        if p.step == p.steps:
            print(f"epoch {p.epoch}/{p.epochs}, loss {p.loss:.3f}, {p.seconds_left:.0f} s left", file=sys.stderr)

    net = build_subnet(NETWORK_CONFIG, 0)
    train(net, training, NETWORK_OPTIONS, progress=show)
    return net


def measure_trained(subnet: Path | None) -> tuple[float, list[dict]]:
    """Float top-1, and a row per stream and method."""
    training, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    net = trained(subnet, training)
    samples = calibrate(net, training.images[:CALIBRATION_IMAGES])
    expected = networks.float_logits(net, test.images)

    def row(stream, method, logits):
        top1 = float((logits.argmax(axis=1) == test.labels).mean())
        return {"stream": stream, "method": method, "top1": top1, "logit_error": logit_error(logits, expected)}

    rows = [row(s, m, int8_logits(net, samples, s, m, test.images)) for s in STREAMS for m in METHODS]
    for bits in (8, 16):
        rows += [row(f"simulated {bits} bit", m, simulated_logits(net, samples, bits, m, test.images)) for m in METHODS]
    return float((expected.argmax(axis=1) == test.labels).mean()), rows


def with_outliers(net: FloatViT) -> FloatViT:
    """The network with two channels of the stream 20 times as large, and 20 times smaller after each LayerNorm."""
    weights = net.state_dict()
    for name, value in weights.items():
        if name.startswith("stem.") or ".attention.proj." in name or ".mlp.fc2." in name:
            value[:2] *= OUTLIERS
        elif name == "position":
            value[..., :2] *= OUTLIERS
        elif "norm" in name:
            value[:2] /= OUTLIERS
    net.load_state_dict(weights)
    return net


def measure_random(name: str, outliers: bool) -> list[dict]:
    """Rows of one of the networks A, B, C."""
    net, (calibration, test) = networks.float_network(name), networks.images_of(name)
    if outliers:
        net = with_outliers(net)
    samples = calibrate(net, calibration)
    expected = networks.float_logits(net, test)

    def row(stream, logits_of):
        errors = {m: logit_error(logits_of(m), expected) for m in METHODS}
        return {"network": f"{name}, outliers" if outliers else name, "stream": stream, **errors}

    rows = [row(stream, lambda m, s=stream: int8_logits(net, samples, s, m, test)) for stream in STREAMS]
    return [*rows, row("simulated 16 bit", lambda m: simulated_logits(net, samples, 16, m, test))]


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--subnet", type=Path, metavar="FILE", help="a trained subnet.pt; default: train the demo's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    float_top1, rows = measure_trained(arguments.subnet)
    print(f"Trained network, Fashion-MNIST test images: float top-1 {100 * float_top1:.2f} %")
    table.show(
        ["stream", "calibration", "top-1 %", "points", "logit error %"],
        [
            [r["stream"], r["method"], f"{100 * r['top1']:.2f}", f"{100 * (r['top1'] - float_top1):+.2f}",
             f"{100 * r['logit_error']:.2f}"]
            for r in rows
        ],
    )  # fmt: skip
    print("simulated: in float, see above; points: top-1 less that of float, one image is 0.05")

    cases = [*((name, False) for name in networks.NAMES), ("A", True)]
    random_rows = [row for case in cases for row in measure_random(*case)]
    print(
        f"\nNetworks with random weights, {networks.CALIBRATION_IMAGES} calibration images: logit error in %\n"
        f"outliers: two channels of the stream {OUTLIERS:.0f} times as large, as large trained transformers have them"
    )
    table.show(
        ["network", "stream", *METHODS],
        [[r["network"], r["stream"], *(f"{100 * r[m]:.2f}" for m in METHODS)] for r in random_rows],
    )

    default = next(r for r in rows if (r["stream"], r["method"]) == DEFAULT)
    lost = 100 * (float_top1 - default["top1"])
    text = f"{' '.join(DEFAULT)} (the default): top-1 within {MOST_POINTS_LOST} points of float"
    found = [table.requirement(text, f"{-lost:+.2f}", abs(lost) <= MOST_POINTS_LOST)]
    result = {"float_top1": float_top1, "trained": rows, "random": random_rows}
    return table.finish(result, found, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
