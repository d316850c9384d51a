# SPDX-License-Identifier: Apache-2.0
"""Small CNNs and Vision Transformers on Fashion-MNIST at equal training: accuracy in int8, arena and flash.

    python benchmarks/baselines.py                              # all, 3 seeds
    python benchmarks/baselines.py --subnet 16k.pt --subnet 32k.pt # and searched networks, trained like the others
    python benchmarks/baselines.py ds-cnn hybrid-128k           # some of them
    python benchmarks/baselines.py --set colour                 # on clothes in colour before photographs
    python benchmarks/baselines.py --test fashion-mnist-full    # on all 10,000 test images

All train alone for 10 epochs on the 10,000 images in the package, by the recipe of `mcuformer train`; only the peak
learning rate is each kind's own, chosen on held-out training images. The test images, 2,000 in the package or all
10,000 (Debian's dataset-fashion-mnist), are used for this table alone. CNNs take the inner 28x28 pixels, without the
border that has no clothes, which costs them nothing. The colour set (colour_clothes.py) has the same networks, with
three input channels, and the same learning rates.

float, int8: mean and standard deviation over the seeds, % of the test images. int8 runs in the tflite-micro
interpreter: CNNs by the stock converter (post-training, the same 256 images to calibrate with) and TFLM's kernels, ours
by our converter and kernels, every logit of the first 2,000 images compared with the integer reference. Arena: what the
64-bit interpreter has in use, head and tail, image included; on nano33ble: ours on a 32-bit board. Flash: bytes of the
.tflite; code is not in it. M instructions: on a Cortex-M4; ours by the instruction model, CNNs as counted in QEMU,
every layer by CMSIS-NN 99f736a without the interpreter around it (cnn_instructions.py; gcc 12.2, -O3); with
--cmsis-nn-include and --cmsis-nn-lib, a library that you built for a Cortex-M4 is counted in the same run.

Margins: the best of ours less the best CNN within a budget, and two standard errors of that difference: over the test
images, each image's answers averaged over the seeds, and over the seeds, each seed's answers averaged over the images.
One is better if the margin is above the root of the sum of their squares.

Trained weights are kept in build/baselines, by options, images and what a few steps of that training give; so an
interrupted run goes on, and a change of the trainer trains anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cnn_instructions
import cnns
import numpy as np
import stock_network
import table
import torch
from cnns import Block, Cnn, CnnConfig, inverted_residuals
from colour_clothes import colour_clothes
from torch import nn

from mcuformer import Interpreter, SubnetConfig, convert, nas
from mcuformer.converter.estimate.instructions import instructions
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.pixels import to_float
from mcuformer.data import Dataset, load
from mcuformer.data.image_files import fit_array
from mcuformer.files import write_bytes
from mcuformer.nas import TrainOptions, recipes
from mcuformer.nas.train import Training

KEPT = Path(__file__).resolve().parents[1] / "build" / "baselines"
BOARD = "nano33ble"
SEEDS = 3
CALIBRATED = 256
COMPARED = 2000  # test images whose logits are compared with the integer reference
FEW = 384  # images of the trial that names kept weights: three steps
STOCK_ARENA = 1 << 20  # of the interpreter, far more than needed
BUDGETS = {"16 KB": (16 * 1024, 128 * 1024), "32 KB": (32 * 1024, 128 * 1024)}  # arena in the 64-bit interpreter, flash
MOST_LOST = 0.015


@dataclass(frozen=True)
class Baseline:
    """A network and its peak learning rate."""

    config: CnnConfig | SubnetConfig
    learning_rate: float

    @property
    def is_cnn(self) -> bool:
        return isinstance(self.config, CnnConfig)

    def options(self, seed: int) -> TrainOptions:
        return TrainOptions(epochs=10, learning_rate=self.learning_rate, seed=seed)

    def untrained(self, seed: int) -> nn.Module:
        if isinstance(self.config, CnnConfig):
            return Cnn(self.config, seed)
        return nas.build_subnet(self.config, seed)


HYBRID = recipes.NETWORK_CONFIG  # more than 128 KB of flash
# On held-out images, one seed: inverted-residual-32k 87.33 % at 2e-3, 88.96 at 5e-3, 89.02 at 1e-2; hybrid 86.73 at
# 1e-3, 87.82 at 2e-3, 88.00 at 4e-3.
CNN_RATE, VIT_RATE, WIDE_STEM_RATE = 1e-2, 4e-3, 8e-3
# Most of the 128 KB for the stem, and one layer. On held-out images, three seeds: 88.35 %, inverted-residual-32k 89.02;
# two seeds: hybrid-128k 87.72, stem 48, 80 and width 64 88.35, inverted-residual-32k with 64 channels at its end 88.85;
# one seed: 64 tokens of 4x4 pixels with biases for relative positions 85.70, hybrid-128k at 8e-3 87.55, with batches of
# 64 87.60.
WIDE_STEM = dataclasses.replace(
    HYBRID, stem_channels=(64, 96), embed_dim=48, depth=1, head_dim=32, kv_heads=1, mlp_ratio=1.5
)
# Convolutions with inverted residuals between them, and one layer. On held-out images, three seeds: 89.70 %; one seed:
# the second block alone, of expansion 4, 89.92, stem 32, 64 and width 48 89.68, depthwise convolutions before the
# expansion 88.96, residuals without expansion 87.76.
INVERTED = dataclasses.replace(
    HYBRID, stem_channels=(24, 48), stem_blocks=(3, 3), depth=1, head_dim=32, kv_heads=1, mlp_ratio=1.5
)
BASELINES = {
    "inverted-residual-16k": Baseline(
        inverted_residuals(28, 8, ((8, 1, 1, 1), (16, 2, 2, 3), (24, 2, 2, 3))), CNN_RATE
    ),
    "inverted-residual-32k": Baseline(
        inverted_residuals(28, 16, ((16, 1, 1, 1), (24, 2, 2, 4), (48, 2, 2, 4))), CNN_RATE
    ),
    "ds-cnn": Baseline(
        CnnConfig(28, 32, (Block(32), Block(32), Block(32), Block(64, 2), Block(64), Block(64))), CNN_RATE
    ),
    "plain-vit": Baseline(dataclasses.replace(HYBRID, stem="patch", stem_channels=None, patch_size=4), VIT_RATE),
    "hybrid-128k": Baseline(dataclasses.replace(HYBRID, kv_heads=1, mlp_ratio=1.0), VIT_RATE),
    "hybrid-wide-stem": Baseline(WIDE_STEM, WIDE_STEM_RATE),
    "hybrid-inverted": Baseline(INVERTED, WIDE_STEM_RATE),
    "hybrid-inverted-4": Baseline(dataclasses.replace(INVERTED, stem_blocks=(4, 4)), WIDE_STEM_RATE),
}
PACKAGE = "fashion-mnist"
TESTS = (PACKAGE, "fashion-mnist-full")
CHANNELS = {"grey": 1, "colour": 3}  # of the images of each set
# What cnn_instructions.py counted of CMSIS-NN, by channels of the image.
COUNTED = {
    1: {"inverted-residual-16k": 1_973_002, "inverted-residual-32k": 4_817_181, "ds-cnn": 5_358_332},
    3: {"inverted-residual-16k": 2_035_157, "inverted-residual-32k": 4_928_726, "ds-cnn": 5_568_660},
}


def in_channels(baseline: Baseline, channels: int) -> Baseline:
    """The same network for images of so many channels."""
    return dataclasses.replace(baseline, config=dataclasses.replace(baseline.config, in_channels=channels))


@functools.cache
def images_of(split: str, shape: tuple[int, int, int], data: str = PACKAGE) -> Dataset:
    """Of 32x32 pixels; 28x28: without the border; or fewer: resized."""
    found = load(data, split) if shape[2] == 1 else colour_clothes(split, data)
    if shape[0] == 28:
        return dataclasses.replace(found, images=np.ascontiguousarray(found.images[:, 2:-2, 2:-2]))
    return dataclasses.replace(found, images=fit_array(found.images, shape[0]))


def train(net: nn.Module, images: Dataset, options: TrainOptions) -> None:
    net.to(memory_format=torch.channels_last)
    run = Training(net, images, options)
    for _ in range(options.epochs):
        run.epoch(None)
    net.load_state_dict(run.final_weights())
    net.to(memory_format=torch.contiguous_format).eval()


def weights_name(baseline: Baseline, seed: int, images: Dataset) -> str:
    """Names what a training gives, by its inputs and by the weights after a few steps of the same kind."""
    options, net = baseline.options(seed), baseline.untrained(seed)
    few = dataclasses.replace(images, images=images.images[:FEW], labels=images.labels[:FEW])
    train(net, few, dataclasses.replace(options, epochs=1))
    digest = hashlib.sha256(f"{baseline.config} {options} {len(images)}".encode())
    for array in (images.images, images.labels, *(value.numpy() for value in net.state_dict().values())):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def trained(baseline: Baseline, seed: int) -> nn.Module:
    images = images_of("train", baseline.config.image_shape)
    path = KEPT / f"{weights_name(baseline, seed, images)}.pt"
    net = baseline.untrained(seed)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    train(net, images, baseline.options(seed))
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    KEPT.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return net


def float_logits(net: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([net(to_float(images[i : i + 250])).numpy() for i in range(0, len(images), 250)])


def by_stock_tools(net: Cnn, calibration: np.ndarray, images: np.ndarray) -> dict:
    """The int8 logits of the stock converter and kernels, and what these take."""
    twin = cnns.keras_twin(net)
    content = stock_network.quantise(lambda image: twin(image, training=False), calibration)
    interpreter = stock_network.StockInterpreter(content, STOCK_ARENA)
    logits = np.stack([interpreter.run(image)[0] for image in stock_network.to_float(images)])
    return {
        "logits": logits, "arena": interpreter.arena()["total"], "board_arena": None, "model_bytes": len(content),
        "macs": cnns.macs(net.config), "exact": None,
    }  # fmt: skip


def by_our_tools(net: FloatViT, calibration: np.ndarray, images: np.ndarray) -> dict:
    """The same of our converter and kernels."""
    model = convert(net, calibration, schedule="streamed", board=BOARD)
    interpreter = Interpreter(model)
    logits = interpreter(images)
    exact = bool(np.array_equal(logits[:COMPARED], interpreter.reference(images[:COMPARED])))
    return {
        "logits": logits, "arena": interpreter.arena_used_bytes, "board_arena": model.arena_bytes(BOARD),
        "model_bytes": model.model_bytes, "macs": net.config.macs, "exact": exact,
    }  # fmt: skip


def instructions_of(name: str, config: CnnConfig | SubnetConfig, cmsis: tuple[Path, Path] | None) -> int | None:
    """Of one image on a Cortex-M4. cmsis: headers and library of CMSIS-NN; None: what was counted of it earlier."""
    if isinstance(config, SubnetConfig):
        return instructions(config, "m4")
    return COUNTED[config.in_channels].get(name) if cmsis is None else cnn_instructions.count(config, *cmsis)


def measure(net: nn.Module, data: str = PACKAGE) -> dict:
    """One trained network: which test images of the data it gets right in float and in int8, and what it takes."""
    shape = net.config.image_shape
    calibration, test = images_of("train", shape).images[:CALIBRATED], images_of("test", shape, data)
    tools = by_stock_tools if isinstance(net, Cnn) else by_our_tools
    found = tools(net, calibration, test.images)
    right = {"float": float_logits(net, test.images), "int8": found.pop("logits")}
    return found | {kind: logits.argmax(axis=1) == test.labels for kind, logits in right.items()}


def row(name: str, runs: list[dict], is_cnn: bool, instructions: int | None) -> dict:
    """The seeds of one network together. right: for each test image, the share of seeds that get it right in int8."""
    first = runs[0]
    for key in ("arena", "board_arena"):
        assert len({run[key] for run in runs}) == 1, key  # of the dimensions, not of the weights
    made = {"network": name, "cnn": is_cnn, "seeds": len(runs), "exact": first["exact"]}
    made |= {key: first[key] for key in ("arena", "board_arena", "macs")} | {"instructions": instructions}
    made["model_bytes"] = max(run["model_bytes"] for run in runs)
    if first["exact"] is not None:
        made["exact"] = all(run["exact"] for run in runs)
    for kind in ("float", "int8"):
        made[kind] = [float(run[kind].mean()) for run in runs]
    return made | {"right": np.mean([run["int8"] for run in runs], axis=0)}


def percent(scores: list[float]) -> str:
    spread = f" ± {100 * np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
    return f"{100 * np.mean(scores):.2f}{spread}"


def show(rows: list[dict]) -> None:
    table.show(
        ["network", "seeds", "float %", "int8 %", "arena", f"on {BOARD}", "flash", "M MACs", "M instructions"],
        [[r["network"], r["seeds"], percent(r["float"]), percent(r["int8"]), f"{r['arena']:,}",
          "unknown" if r["board_arena"] is None else f"{r['board_arena']:,}", f"{r['model_bytes']:,}",
          f"{r['macs'] / 1e6:.2f}",
          "unknown" if r["instructions"] is None else f"{r['instructions'] / 1e6:.2f}"] for r in rows],
    )  # fmt: skip


def points(share: float | None) -> str | None:
    """In percentage points, for a table."""
    return None if share is None else f"{100 * share:.2f}"


def margins(rows: list[dict]) -> list[dict]:
    """For each budget, the best of ours against the best CNN on the test images, in int8."""
    made = []
    for budget, (arena, flash) in BUDGETS.items():
        best: list[dict | None] = []
        for is_cnn in (False, True):
            within = [r for r in rows if r["cnn"] == is_cnn and r["arena"] <= arena and r["model_bytes"] <= flash]
            best.append(max(within, key=lambda r: r["right"].mean(), default=None))
        ours, cnn = best
        margin = {"budget": budget, "ours": ours and ours["network"], "cnn": cnn and cnn["network"]}
        if ours and cnn:
            difference = ours["right"] - cnn["right"]
            margin["margin"] = float(difference.mean())
            margin["image_error"] = float(difference.std(ddof=1) / len(difference) ** 0.5)
            margin["seed_error"] = seed_error(ours["int8"], cnn["int8"])
        made.append(margin)
    return made


def seed_error(ours: list[float], cnn: list[float]) -> float | None:
    """The standard error of the difference of two means of seeds; None of one seed."""
    if len(ours) < 2:
        return None
    return float(sum(np.var(scores, ddof=1) / len(scores) for scores in (ours, cnn)) ** 0.5)


def verdict(margin: dict) -> str:
    if "margin" not in margin:
        return "nothing to compare"
    better = abs(margin["margin"]) > math.hypot(margin["image_error"], margin["seed_error"] or 0.0)
    return ("ours" if margin["margin"] > 0 else "the CNN") if better else "neither, within the errors"


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(BASELINES)} (default: all)")
    parser.add_argument("--set", choices=CHANNELS, default="grey", help="images (default grey)")
    parser.add_argument("--test", choices=TESTS, default=PACKAGE, help=f"test images of which data (default {PACKAGE})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"trainings of each (default {SEEDS})")
    parser.add_argument(
        "--subnet", type=Path, action="append", default=[], metavar="FILE",
        help="a searched network: its config trained like the others, for the channels of --set; may be given again",
    )  # fmt: skip
    parser.add_argument("--cmsis-nn-include", type=Path, metavar="DIR", help="headers of CMSIS-NN")
    parser.add_argument("--cmsis-nn-lib", type=Path, metavar="FILE", help="a static library of it, for a Cortex-M4")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.networks if name not in BASELINES]:
        parser.error(f"unknown network {unknown[0]!r}: use some of {', '.join(BASELINES)}")
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: must be at least 1")
    if (arguments.cmsis_nn_include is None) != (arguments.cmsis_nn_lib is None):
        parser.error("--cmsis-nn-include and --cmsis-nn-lib go together")
    cmsis = None if arguments.cmsis_nn_lib is None else (arguments.cmsis_nn_include, arguments.cmsis_nn_lib)
    torch.set_num_threads(1)
    channels = CHANNELS[arguments.set]
    chosen = {name: in_channels(BASELINES[name], channels) for name in arguments.networks or BASELINES}
    for path in arguments.subnet:
        searched = Baseline(nas.load_subnet(path).config, WIDE_STEM_RATE)
        chosen[f"searched {path.stem}"] = in_channels(searched, channels)
    rows = []
    for name, baseline in chosen.items():
        print(f"{name}: {arguments.seeds} trainings", file=sys.stderr, flush=True)
        runs = [measure(trained(baseline, seed), arguments.test) for seed in range(arguments.seeds)]
        rows.append(row(name, runs, baseline.is_cnn, instructions_of(name, baseline.config, cmsis)))
    return report(rows, arguments.json)


def report(rows: list[dict], json_file: Path | None) -> int:
    show(rows)
    print()
    compared = margins(rows)
    table.show(
        ["arena, 128 KB of flash", "best of ours", "best CNN", "margin, points", "error: images", "seeds",
         "better on test images"],
        [[m["budget"], m["ours"], m["cnn"], *(points(m.get(key)) for key in ("margin", "image_error", "seed_error")),
          verdict(m)] for m in compared],
    )  # fmt: skip
    lost = float(max(np.mean(r["float"]) - np.mean(r["int8"]) for r in rows))
    exact = [r["exact"] for r in rows if r["exact"] is not None]
    return table.finish(
        {"networks": [{k: v for k, v in r.items() if k != "right"} for r in rows], "margins": compared},
        [
            table.requirement(
                f"int8 at most {100 * MOST_LOST:.1f} points below float", f"{100 * lost:.2f}", lost <= MOST_LOST
            ),
            table.requirement(
                f"every logit of ours on {COMPARED:,} images equals the integer reference", None,
                all(exact) if exact else None,
            ),
        ],
        json_file,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
