# SPDX-License-Identifier: Apache-2.0
"""Time of one image on the host, one thread: MCUFormer beside TFLM's reference kernels, XNNPACK, ONNX Runtime, PyTorch.

    python benchmarks/host_speed.py                # DeiT-Tiny's shape; needs the bench extra
    python benchmarks/host_speed.py A C            # other networks of stock_network.py

The rows, all from the same random weights, calibration and test images:

    mcuformer    our kernels in the tflite-micro interpreter, each schedule
    tflm         the stock .tflite in the tflite-micro interpreter, with its reference kernels
    xnnpack      the same .tflite in LiteRT, whose XNNPACK kernels use the vector unit of the CPU
    onnxruntime  the float network exported to ONNX: as it is, and quantised by ONNX Runtime's own tools
    torch        the float network

XNNPACK, ONNX Runtime and PyTorch are made for CPUs of this size: they pick code for the vector unit they find, and
trade memory for speed. Ours compute what the microcontroller computes, bit for bit, in a small arena; of them too the
library has versions for some vector units (docs/platforms.md). The last lines name the CPU's flags that matter here and
what each engine says of the code that it took.

All of them run each image in turn. Times are processor time, so other programs hardly count; on a machine with nothing
else to do they are the clock's. A cosine compares the logits with those of the
float32 network; stock networks replace GELU and are compared with a float network that does the same.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import networks
import numpy as np
import stock_network
import table
import torch
from stock_network import NETWORKS

from mcuformer import Interpreter, convert, kernel_library
from mcuformer.converter.calibrate import to_float

ROUTES = networks.STOCK_ROUTES
OPSET = 20  # the first of ONNX with an op for GELU
OURS = "mcuformer overwrite"
MOST_STREAMED = 1.15

Runner = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""uint8 image [H, W, C] -> (float logits [classes], seconds of processor time of the inference alone)."""


class Missing(Exception):
    """A package of the bench extra that is not installed."""


def imported(module: str, package: str):
    """The module, or Missing with the name of its package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(package) from error


def timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    begin = time.process_time()
    logits = run()
    return np.asarray(logits).ravel(), time.process_time() - begin


def ours(net, calibration: np.ndarray, schedule: str) -> Runner:
    interpreter = Interpreter(convert(net, calibration, schedule=schedule))
    return lambda image: timed(lambda: interpreter(image))


def tflm(name: str, content: bytes, route: str) -> Runner:
    arena = 2 * networks.stock_arena_bytes(NETWORKS[name], route) + (1 << 20)
    interpreter = stock_network.StockInterpreter(content, arena)
    return lambda image: timed(lambda: interpreter.run(stock_network.to_float(image))[0])


def xnnpack(content: bytes) -> Runner:
    litert = imported("ai_edge_litert.interpreter", "ai-edge-litert")
    interpreter = litert.Interpreter(model_content=content, num_threads=1)  # XNNPACK is its default
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image):
        scale, zero = given["quantization"]
        quantised = np.clip(np.round(stock_network.to_float(image) / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], quantised[None])
        _, seconds = timed(lambda: interpreter.invoke() or ())
        scale, zero = made["quantization"]
        return (interpreter.get_tensor(made["index"]).astype(np.float32).ravel() - zero) * scale, seconds

    return run


class _Images(torch.nn.Module):
    """The network as a function of images alone, for the ONNX exporter."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image):
        return self.net(image)


def onnx_files(net, calibration: np.ndarray, folder: Path) -> dict[str, Path]:
    """The network as ONNX: float32, and int8 by ONNX Runtime's dynamic and static quantisation."""
    imported("onnx", "onnx")
    quantization = imported("onnxruntime.quantization", "onnxruntime")
    preprocess = imported("onnxruntime.quantization.shape_inference", "onnxruntime").quant_pre_process
    files = {kind: folder / f"{kind}.onnx" for kind in ("float32", "int8 dynamic", "int8 static")}
    prepared = folder / "prepared.onnx"
    floats = to_float(calibration)
    torch.onnx.export(
        _Images(net).eval(), (floats[:1],), files["float32"], dynamo=False, opset_version=OPSET,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    preprocess(str(files["float32"]), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_dynamic(prepared, files["int8 dynamic"], weight_type=quantization.QuantType.QInt8)

    class Calibration(quantization.CalibrationDataReader):
        images = iter(floats.numpy())

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"image": image[None]}

    quantization.quantize_static(
        prepared, files["int8 static"], Calibration(), per_channel=True, weight_type=quantization.QuantType.QInt8
    )
    return files


def onnxruntime(path: Path) -> Runner:
    runtime = imported("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image):
        given = {"image": to_float(image[None]).numpy()}
        return timed(lambda: session.run(None, given)[0])

    return run


def pytorch(net) -> Runner:
    def run(image):
        given = to_float(image[None])
        with torch.inference_mode():
            return timed(lambda: net(given))

    return run


def runners_of(name: str, net, calibration: np.ndarray, folder: Path) -> tuple[dict[str, Runner], dict[str, str]]:
    """(what runs the network, by row name; the missing package of each row that cannot be measured)."""
    found: dict[str, Runner] = {}
    missing: dict[str, str] = {}

    def add(rows: list[str], make: Callable[[], list[Runner]]) -> None:
        try:
            found.update(zip(rows, make(), strict=True))
        except Missing as error:
            missing.update(dict.fromkeys(rows, str(error)))

    schedules = ("overwrite", "streamed")
    add([f"mcuformer {s}" for s in schedules], lambda: [ours(net, calibration, s) for s in schedules])
    try:
        imported("tensorflow", "tensorflow-cpu")
        weights = stock_network.random_weights(NETWORKS[name], 0)
        stock = {r: stock_network.convert(NETWORKS[name], weights, r, calibration) for r in ROUTES}
        add([f"tflm {r}" for r in stock], lambda: [tflm(name, content, r) for r, content in stock.items()])
        add([f"xnnpack {r}" for r in stock], lambda: [xnnpack(content) for content in stock.values()])
    except Missing as error:
        missing.update({f"{tool} {r}": str(error) for tool in ("tflm", "xnnpack") for r in ROUTES})
    kinds = ("int8 dynamic", "int8 static", "float32")
    add(
        [f"onnxruntime {kind}" for kind in kinds],
        lambda: [onnxruntime(onnx_files(net, calibration, folder)[kind]) for kind in kinds],
    )
    add(["torch float32"], lambda: [pytorch(net)])
    return found, missing


def measure(name: str) -> tuple[list[dict], dict[str, str]]:
    net, (calibration, test) = networks.float_network(name), networks.images_of(name)
    exact = networks.float_logits(net, test)
    weights = stock_network.random_weights(NETWORKS[name], 0)
    replaced = [stock_network.float_logits(NETWORKS[name], weights, x) for x in stock_network.to_float(test)]
    with tempfile.TemporaryDirectory() as folder:
        runners, missing = runners_of(name, net, calibration, Path(folder))
        logits = {row: [] for row in runners}
        milliseconds = {row: [] for row in runners}
        for run in runners.values():
            run(test[0])  # the first run of each allocates and is not counted
        for image in test:
            for row, run in runners.items():
                answer, seconds = run(image)
                logits[row].append(answer)
                milliseconds[row].append(1e3 * seconds)
    rows = []
    for row in runners:
        expected = np.stack(replaced) if row.startswith(("tflm", "xnnpack")) else exact
        rows.append(
            {
                "network": name, "made by": row, "ms_min": min(milliseconds[row]),
                "ms_median": statistics.median(milliseconds[row]),
                "against_ours": statistics.median(milliseconds[row]) / statistics.median(milliseconds[OURS]),
                "cosine_min": float(networks.cosines(np.stack(logits[row]), expected).min()),
            }
        )  # fmt: skip
    return rows, missing


FLAGS = ("sse4_1", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


def machine() -> dict[str, str]:
    """The CPU and its flags that matter to these engines, where Linux says, and the code that each engine took."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = said.get("flags", said.get("Features", "")).split()
    return {
        "cpu": said.get("model name", platform.processor() or platform.machine()),
        "flags": " ".join(flag for flag in FLAGS if flag in flags) or "unknown",
        "mcuformer": f"kernels {kernel_library.kernels_in_use()}, of {', '.join(kernel_library.kernels())}",
        "torch": torch.backends.cpu.get_cpu_capability(),
        "tflm": "C, as its wheel was compiled",
        "xnnpack, onnxruntime": "chosen by these flags; neither says what it took",
    }


# What others are ahead of at most, by the beginnings of their rows; onnxruntime's int8 by our version of the kernels.
FLOAT_AND_XNNPACK = ("xnnpack", "onnxruntime float32", "torch float32")
MOST_OF_ONNXRUNTIME = {"avx2": 1.25, "avx512vnni": 1.5}


def requirements(rows: list[dict]) -> list[dict]:
    """What the project promises about these times."""
    found = []
    kernels = kernel_library.kernels_in_use()
    for name in dict.fromkeys(row["network"] for row in rows):
        slower = {row["made by"]: row["against_ours"] for row in rows if row["network"] == name}

        def least(rows_of: str | tuple[str, ...], slower=slower) -> float | None:
            return min((ratio for row, ratio in slower.items() if row.startswith(rows_of)), default=None)

        if (wanted := networks.LEAST_SPEED_UP.get(name)) is not None:
            text, stock = f"{name}: at most 1/{wanted:.0f} of the time of TFLM's reference kernels", least("tflm")
            found.append(table.requirement(text, stock and f"1/{stock:.1f}", stock and stock >= wanted))
        text, others = f"{name}: ahead of XNNPACK's int8 and of float32", least(FLOAT_AND_XNNPACK)
        found.append(table.requirement(text, others and f"1/{others:.2f}", others and others > 1))
        if (most := MOST_OF_ONNXRUNTIME.get(kernels)) is not None:
            text, best = f"{name}: at most {most} times ONNX Runtime's best int8, {kernels}", least("onnxruntime int8")
            found.append(table.requirement(text, best and f"{1 / best:.2f}", best and 1 / best <= most))
        streamed = slower["mcuformer streamed"]
        text = f"{name}: streamed / overwrite at most {MOST_STREAMED}"
        found.append(table.requirement(text, f"{streamed:.2f}", streamed <= MOST_STREAMED))
    return found


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="of A, B, C (default: B)")
    arguments = parser.parse_args()
    names = arguments.networks or ["B"]
    if unknown := [name for name in names if name not in networks.NAMES]:
        parser.error(f"unknown network {unknown[0]!r}: use some of {', '.join(networks.NAMES)}")
    torch.set_num_threads(1)
    rows, missing = [], {}
    for name in names:
        measured, lacking = measure(name)
        rows += measured
        missing.update(lacking)
    table.show(
        ["net", "made by", "ms min", "median", "/ ours", "cosine min"],
        [
            [r["network"], r["made by"], f"{r['ms_min']:.2f}", f"{r['ms_median']:.2f}", f"{r['against_ours']:.2f}",
             f"{r['cosine_min']:.5f}"]
            for r in rows
        ],
    )  # fmt: skip
    print(f"\nMilliseconds an image, one thread, {networks.TEST_IMAGES} images; / ours: median against `{OURS}`.")
    for row, package in missing.items():
        print(f"{row}: not measured, {package} is not installed: pip install -e '.[bench]'")
    engines = machine()
    for name, taken in engines.items():
        print(f"{name}: {taken}")
    status = table.finish({"rows": rows, "missing": missing, "machine": engines}, requirements(rows), arguments.json)
    return 1 if missing else status


if __name__ == "__main__":
    sys.exit(main())
