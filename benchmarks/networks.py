# SPDX-License-Identifier: Apache-2.0
"""Networks A, B and C, converted and run by MCUFormer and by stock tools: arena, time, accuracy.

    python benchmarks/networks.py --json networks.json A B C
    python benchmarks/networks.py --no-stock             # without tensorflow

Both get the same random weights (seed 0), calibration images and test images; see stock_network.py for the
shapes, the images and the stock routes. All of them run each image in turn, on one thread, so a busy machine
slows all equally; the ratios are those of the median times. A cosine compares logits with those of the float32
network: ours has the exact GELU, the stock one the GELU that stock tools can run (x * sigmoid(1.702 x)), so each
shows what quantisation alone costs.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ.update(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import numpy as np
import stock_network
import table
import torch
from stock_network import NETWORKS, random_weights, structured_images

from mcuformer import Interpreter, convert
from mcuformer.converter.calibrate import to_float
from mcuformer.converter.estimate.stock import stock_arena_bytes
from mcuformer.converter.float_vit import FloatViT

NAMES = ("A", "B", "C")
STOCK_ROUTES = ("keras", "lean_per_tensor")  # a plain port, and the best arrangement found
CALIBRATION_IMAGES, TEST_IMAGES = 32, 16
ARENA_BYTES = {"A": 40_000, "B": 214_000, "C": 174_000}
LEAST_COSINE = 0.995
LEAST_SPEED_UP = {"B": 4.0}
CONVERT_SECONDS = {"B": 20.0}
MISSING = "tensorflow is not installed: pip install -e '.[bench]'"


def float_network(name: str, seed: int = 0) -> FloatViT:
    """Network A, B or C with seeded random weights."""
    network = NETWORKS[name]
    net = FloatViT(network)
    weights = random_weights(network, seed)
    net.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return net.eval()


def images_of(name: str, test_images: int = TEST_IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Calibration and test images, uint8 NHWC."""
    network = NETWORKS[name]
    return structured_images(network, CALIBRATION_IMAGES, 1), structured_images(network, test_images, 2)


def float_logits(net: FloatViT, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes] of uint8 images by the float32 network."""
    with torch.inference_mode():
        return np.concatenate([net(to_float(images[i : i + 32])).numpy() for i in range(0, len(images), 32)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of a to that of b."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def convert_ours(net: FloatViT, calibration: np.ndarray):
    """The model, the seconds it took with calibration, and the seconds after that; both include writing the file."""
    calibrated = []
    start = time.perf_counter()
    model = convert(
        net, calibration, schedule="overwrite", progress=lambda done, total: calibrated.append(time.perf_counter())
    )
    _ = model.content
    end = time.perf_counter()
    return model, end - start, end - calibrated[-1]


def stock_interpreter(name: str, route: str, calibration: np.ndarray):
    """(interpreter, bytes of the model) of the stock network."""
    network = NETWORKS[name]
    content = stock_network.convert(network, random_weights(network, 0), route, calibration)
    arena = 2 * stock_arena_bytes(network, route) + (1 << 20)
    return stock_network.StockInterpreter(content, arena), len(content)


def measure(name: str, with_stock: bool) -> list[dict]:
    """The rows of one network: ours, then the stock routes."""
    net, (calibration, test) = float_network(name), images_of(name)
    model, seconds, after = convert_ours(net, calibration)
    interpreter = Interpreter(model)
    stock = {route: stock_interpreter(name, route, calibration) for route in STOCK_ROUTES} if with_stock else {}

    ours, milliseconds = [], []
    theirs = {route: ([], []) for route in stock}
    for image, floats in zip(test, stock_network.to_float(test), strict=True):
        ours.append(interpreter(image)[0])
        milliseconds.append(interpreter.invoke_ms)
        for route, (runner, _) in stock.items():
            logits, elapsed = runner.run(floats)
            theirs[route][0].append(logits)
            theirs[route][1].append(1e3 * elapsed)

    def row(tool, allocations, model_bytes, times, logits, expected):
        cosine = cosines(np.stack(logits), expected)
        return {
            "network": name, "tool": tool, "arena_bytes": allocations["total"], "head_bytes": allocations["head"],
            "tail_bytes": allocations["tail"], "model_bytes": model_bytes, "ms_min": min(times),
            "ms_median": statistics.median(times), "cosine_min": float(cosine.min()),
            "cosine_mean": float(cosine.mean()),
        }  # fmt: skip

    rows = [
        row("mcuformer", interpreter.allocations, model.model_bytes, milliseconds, ours, float_logits(net, test)) | {
            "exact": bool(np.array_equal(np.stack(ours), model.reference(test))),
            "convert_seconds": seconds, "convert_seconds_after_calibration": after,
        }
    ]  # fmt: skip
    weights = random_weights(NETWORKS[name], 0)
    for route, (runner, size) in stock.items():
        expected = np.stack(
            [stock_network.float_logits(NETWORKS[name], weights, x) for x in stock_network.to_float(test)]
        )
        stock_row = row(f"stock {route}", runner.arena(), size, theirs[route][1], theirs[route][0], expected)
        for ratio, key in (("arena_ratio", "arena_bytes"), ("ms_ratio", "ms_median")):
            stock_row[ratio] = stock_row[key] / rows[0][key]
        rows.append(stock_row)
    return rows


def requirements(rows: list[dict]) -> list[dict]:
    """What the project promises about these networks, each with its measured value."""
    found = []

    def check(text, measured, holds):
        found.append(table.requirement(text, measured, holds))

    for row in (row for row in rows if row["tool"] == "mcuformer"):
        name, arena, cosine = row["network"], row["arena_bytes"], row["cosine_min"]
        check(f"{name}: arena at most {ARENA_BYTES[name]:,} bytes", f"{arena:,}", arena <= ARENA_BYTES[name])
        check(f"{name}: least cosine at least {LEAST_COSINE}", f"{cosine:.5f}", cosine >= LEAST_COSINE)
        check(f"{name}: every logit equals the integer reference", None, row["exact"])
        if name in CONVERT_SECONDS:
            most, after = CONVERT_SECONDS[name], row["convert_seconds_after_calibration"]
            check(f"{name}: converted in at most {most:.0f} s after calibration", f"{after:.1f} s", after <= most)
        if name in LEAST_SPEED_UP:
            text = f"{name}: at most 1/{LEAST_SPEED_UP[name]:.0f} of the time of the fastest stock route"
            ratios = [r["ms_ratio"] for r in rows if r["network"] == name and "ms_ratio" in r]
            if ratios:
                check(text, f"1/{min(ratios):.1f}", min(ratios) >= LEAST_SPEED_UP[name])
            else:
                check(text, None, None)
    return found


def _cells(row: dict) -> list:
    def number(key, form):
        return None if row.get(key) is None else format(row[key], form)

    return [
        row["network"], row["tool"], number("arena_bytes", ","), number("head_bytes", ","), number("tail_bytes", ","),
        number("model_bytes", ","), number("ms_min", ".2f"), number("ms_median", ".2f"), number("cosine_min", ".5f"),
        number("cosine_mean", ".5f"), {True: "yes", False: "NO"}.get(row.get("exact")),
        number("convert_seconds", ".1f"), number("convert_seconds_after_calibration", ".1f"),
        number("arena_ratio", ".2f"), number("ms_ratio", ".2f"),
    ]  # fmt: skip


COLUMNS = [
    "net", "made by", "arena", "head", "tail", "model", "ms min", "median", "cosine min", "mean", "exact",
    "convert s", "calibrated", "arena x", "ms x",
]  # fmt: skip


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="of A, B, C (default: all)")
    parser.add_argument("--no-stock", action="store_true", help="leave out the stock networks (no tensorflow needed)")
    arguments = parser.parse_args()
    names = arguments.networks or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"unknown network {unknown[0]!r}: use some of {', '.join(NAMES)}")
    torch.set_num_threads(1)
    missing = None if arguments.no_stock else _missing_tensorflow()
    rows = []
    for name in names:
        rows += measure(name, not arguments.no_stock and missing is None)
        if missing:
            rows += [{"network": name, "tool": f"stock {route}: not measured"} for route in STOCK_ROUTES]
    table.show(COLUMNS, [_cells(row) for row in rows])
    print(
        f"\nBytes and milliseconds; {CALIBRATION_IMAGES} images to calibrate, {TEST_IMAGES} to test.\n"
        "exact: every logit equals the integer reference. convert s: all of convert() and writing the file;\n"
        "calibrated: the part of it after calibration. arena x, ms x: stock / ours (median time)."
    )
    if missing:
        print(f"Stock networks are not measured: {missing}")
    status = table.finish({"rows": rows, "stock_missing": missing}, requirements(rows), arguments.json)
    return 1 if missing else status


def _missing_tensorflow() -> str | None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        return MISSING
    return None


if __name__ == "__main__":
    sys.exit(main())
