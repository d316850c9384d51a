#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits converter/estimate/instruction_coefficients.json to instructions counted in QEMU, and cycle_coefficients.json to
the cycles that mcuformer/simulator/cycles.py estimates of them, and says how good they are.

    python tools/fit_instruction_model.py            # counts generated networks on every core, fits, checks, writes
    python tools/fit_instruction_model.py --counts counts.json   # the same, with earlier counts
    python tools/fit_instruction_model.py --core m55 # only these cores'; the others' coefficients stay
    python tools/fit_instruction_model.py --core m33 # a core with another's coefficients is checked only
    python tools/fit_instruction_model.py --check    # only checks the coefficients in the repository
    python tools/fit_instruction_model.py --kernel stem_block  # only that kernel, on networks that call it; the others'
                                                     # coefficients stay

Networks with an even seed are fitted, those with an odd seed are checked: every whole network within 5 %. Needs
the cores' compilers and QEMU.

Half of them have options that few networks have: prefix tokens, thin patches, padding, post-norm, relative positions,
low rank around attention, more than 512 tokens, other poolings and activations, no head. Half of the convolution stems
have blocks. A kernel that no fitted
network calls gets no coefficients, so that an estimate which needs it is refused, not wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer import QuantisationOptions, SubnetConfig
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.estimate import cycles, instructions
from mcuformer.converter.estimate.kernel_model import KERNELS, KernelModel, work_of
from mcuformer.converter.graph import Graph
from mcuformer.converter.lower import lower
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.ops.packed_weights import PACKINGS, PAIRS, ROWS
from mcuformer.converter.passes import staging
from mcuformer.converter.passes.packing import packed
from mcuformer.converter.passes.stem import streamed_stem_of
from mcuformer.converter.passes.streamed import streamed
from mcuformer.converter.subnet_config import FINAL_NORMS, POOLS, RELATIVE_POSITIONS
from mcuformer.cores import CORES
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model
from mcuformer.simulator.cycles import DEFAULT

KNOWN = tuple(key for key, core in CORES.items() if core.machine is not None and core.coefficients is not None)
MODELS = {"instructions": instructions.MODEL, "cycles": cycles.MODEL}
FITTED, CHECKED = 240, 40  # networks
ALLOWED = 0.05  # of a network's instructions
MOST_MACS = 12_000_000  # per network, to keep the simulation short
MOST_FLASH = 1_500_000


@dataclass(frozen=True)
class OpSample:
    """One op on one core: its kernel calls' counts, summed by kernel, and the instructions, or cycles, that it took."""

    kind: str
    counts: dict[str, np.ndarray]
    taken: int


def random_config(seed: int) -> SubnetConfig:
    """Shapes typical of a search (two in three) and odd ones; both stems; dense and low rank."""
    rng = np.random.default_rng(seed)
    while True:
        conv, odd = rng.random() < 0.25, rng.random() < 0.33
        depth = int(rng.integers(1, 4))
        channels = int(rng.choice([1, 3]))
        if conv:
            patch, size = int(rng.choice([4, 8])), int(rng.integers(16, 40)) if odd else int(rng.choice([28, 32, 48]))
        else:
            patch = int(rng.integers(3, 20)) if odd else int(rng.choice([4, 8, 12, 16]))
            size = patch * int(rng.integers(2, 15)) + (int(rng.integers(patch)) if odd else 0)
        heads = [int(rng.integers(1, 7)) for _ in range(depth)]
        config = SubnetConfig(
            image_size=size, in_channels=channels, patch_size=patch,
            embed_dim=int(rng.integers(16, 200)) if odd else int(rng.choice([32, 48, 64, 96, 128, 160, 192])),
            depth=depth, num_heads=tuple(heads),
            head_dim=int(rng.integers(5, 65)) if odd else int(rng.choice([16, 32, 64])),
            kv_heads=tuple(int(rng.choice([k for k in range(1, h + 1) if h % k == 0])) for h in heads),
            mlp_ratio=tuple(float(rng.choice([0.5, 1, 2, 3, 4])) for _ in range(depth)),
            rank_ratio=None if rng.random() < 0.6 else float(rng.uniform(0.1, 0.9)),
            num_classes=int(rng.choice([2, 10, 35, 100, 1000])), stem="conv" if conv else "patch",
        )  # fmt: skip
        if rng.random() < 0.5:
            config = dataclasses.replace(config, **random_options(rng, config))
        if conv and rng.random() < 0.5:
            config = dataclasses.replace(config, **random_blocks(rng, config))
        if config.macs <= MOST_MACS and sum(layer.qkv_dim for layer in config.layers) * config.embed_dim < MOST_FLASH:
            return config


def random_blocks(rng: np.random.Generator, config: SubnetConfig) -> dict:
    """Blocks behind some of a stem's convolutions."""
    inner = len(config.conv_channels) - 1
    expansions = [int(rng.choice([0, 1, 2, 3, 4, 6])) for _ in range(inner)]
    expansions[rng.integers(inner)] = int(rng.integers(1, 5))
    channels = [
        int(rng.integers(3, 65)) if rng.random() < 0.5 else int(rng.choice([8, 16, 24, 48])) for _ in range(inner)
    ]
    return {"stem_channels": tuple(channels), "stem_blocks": tuple(expansions)}


def random_options(rng: np.random.Generator, config: SubnetConfig) -> dict:
    """Some of a config's other options."""
    prefix = int(rng.choice([0, 1, 1, 2, 5]))
    options = {
        "prefix_tokens": prefix,
        "pool": str(rng.choice([pool for pool in POOLS if pool.split("+").count("token") <= prefix])),
        "final_norm": str(rng.choice(FINAL_NORMS)),
        "norm_pre": bool(rng.random() < 0.3),
        "norm": "post" if rng.random() < 0.4 else "pre",
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "num_classes": 0 if rng.random() < 0.2 else config.num_classes,
        "relative_position": str(rng.choice(RELATIVE_POSITIONS, p=[0.4, 0.2, 0.4])),
        "attention_rank_ratio": float(rng.uniform(0.1, 0.6)) if rng.random() < 0.2 else None,
    }
    if config.stem == "patch" and rng.random() < 0.3:
        options["patch_padding"] = int(rng.integers(1, config.patch_shape[0]))
    elif config.stem == "patch" and rng.random() < 0.6:
        thin, long = int(rng.choice([1, 1, 2, 3])), int(rng.choice([8, 16, 20, 40]))
        rows, columns = (98, 1) if rng.random() < 0.5 else (int(rng.integers(2, 30)), int(rng.integers(1, 6)))
        if rng.random() < 0.4:
            thin, long, rows, columns = 4, 4, int(rng.integers(20, 28)), int(rng.integers(26, 32))  # above 512 tokens
            options |= {"head_dim": int(rng.choice([7, 8, 16])), "num_heads": 1, "kv_heads": 1, "embed_dim": 24}
        turned = slice(None, None, -1 if rng.random() < 0.5 else 1)
        options["image_size"] = (thin * rows, long * columns)[turned]
        options["patch_size"] = (thin, long)[turned]
    return options


def graph_of(seed: int, config: SubnetConfig, images: np.ndarray, packing: int) -> Graph:
    """A network's graph in one of the schedules; some with GELU as an op of its own, some two tokens at a time, some
    stems op by op, some two pixels at a time or one."""
    rng = np.random.default_rng(seed)
    streams = rng.random() < 0.6
    net = build_subnet(config, seed)
    options = QuantisationOptions(
        fuse_gelu=streams or rng.random() < 0.7, residual="per-tensor" if rng.random() < 0.1 else "per-channel"
    )
    graph = packed(lower(net, calibrate(net, images), options), packing)
    if streams:
        graph = streamed(graph)
        if rng.random() < 0.15:
            for i, op in enumerate(graph.ops):
                if op.kind in ("StreamedAttention", "StreamedMLP") and config.tokens > 1:
                    graph = staging.resize(graph, graph.ops[i], tokens=2)
    if rng.random() < 0.75:
        graph = streamed_stem_of(graph)
        if graph.ops[0].kind == "StreamedStem" and rng.random() < 0.3:
            graph = staging.resize(graph, graph.ops[0], tokens=int(rng.choice([1, 2])))
    return graph


@functools.lru_cache(4)  # cores of one packing share it
def network(seed: int, packing: int) -> tuple[Graph, np.ndarray]:
    """One network, usually with its weights in this packing, a core's, and an image for it."""
    config = random_config(seed)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, *config.image_shape), dtype=np.uint8)
    return graph_of(seed, config, images, packing if rng.random() < 0.6 else ROWS + PAIRS - packing), images[:1]


def coefficients_of(core: str, what: str) -> str | None:
    """The entry of a core in the coefficients of one of MODELS."""
    return CORES[core].coefficients if what == "instructions" else CORES[core].cycle_coefficients


def count(seed: int, folder: Path, cores: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Instructions, and cycles if they are known, of each op of one network, on each of these cores."""
    found = {}
    for core in cores:
        machine = CORES[core].machine
        graph, image = network(seed, PACKINGS[CORES[core].packing])
        names = [str(i) for i in range(graph.tensors[graph.output].shape[-1])]
        objects = sorted((folder / machine.name).rglob("*.o"))
        with tempfile.TemporaryDirectory(prefix="mcuformer-fit-") as work:
            built = firmware_model.build(
                graph, names, machine, work, machine.most_ram_bytes, machine.most_flash_bytes, objects
            )
            timed = coefficients_of(core, "cycles") is not None
            ops = built.run(image, cycles=DEFAULT if timed else None).ops
            found[core] = {"instructions": [op.instructions for op in ops]}
            if timed:
                found[core]["cycles"] = [op.cycles for op in ops]
    return found


def samples(seed: int, counted: dict[str, dict[str, list[int]]]) -> dict[tuple[str, str], list[OpSample]]:
    """The ops of one network with what its kernels do, by core and one of MODELS."""
    found = {}
    for core, numbers in counted.items():
        graph, _ = network(seed, PACKINGS[CORES[core].packing])
        work = [(op.kind, summed(work_of(graph, op))) for op in graph.ops]
        for what, taken in numbers.items():
            found[core, what] = [OpSample(*one, number) for one, number in zip(work, taken, strict=True)]
    return found


def summed(work: list[instructions.Work]) -> dict[str, np.ndarray]:
    counts = {}
    for one in work:
        counts[one.kernel] = counts.get(one.kernel, 0) + np.array(one.counts, np.float64)
    return counts


def fit(samples: list[OpSample], held: dict[str, dict[str, float]] | None = None) -> dict[str, dict[str, float]]:
    """Coefficients of all kernels that were called: least squares of relative errors, none negative. held: coefficients
    that stay as they are, by kernel."""
    from scipy.optimize import nnls

    held = held or {}
    called = {kernel for sample in samples for kernel in sample.counts if kernel not in held}
    samples = [sample for sample in samples if called & set(sample.counts)]
    kernels = {kernel: found for kernel, found in KERNELS.items() if kernel in called}
    names = [(kernel, name) for kernel, found in kernels.items() for name in found]
    start, at = {}, 0
    for kernel, found in kernels.items():
        start[kernel], at = at, at + len(found)
    matrix, left = np.zeros((len(samples), at)), np.ones(len(samples))
    for i, sample in enumerate(samples):
        for kernel, counts in sample.counts.items():
            if kernel in held:
                left[i] -= taken_by(kernel, counts, held) / sample.taken
            else:
                matrix[i, start[kernel] : start[kernel] + len(counts)] += counts / sample.taken
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-30)
    solution, _ = nnls(matrix / scale, left, maxiter=100000)
    values = defaultdict(dict, held)
    for (kernel, name), value in zip(names, solution / scale, strict=True):
        values[kernel][name] = float(f"{value:.5g}")
    return dict(values)


def taken_by(kernel: str, counts: np.ndarray, coefficients: dict) -> float:
    return float(counts @ np.array([coefficients[kernel][name] for name in KERNELS[kernel]]))


def predicted(sample: OpSample, coefficients: dict) -> float:
    return sum(taken_by(kernel, counts, coefficients) for kernel, counts in sample.counts.items())


def report(networks: list[list[OpSample]], coefficients: dict) -> tuple[float, dict[str, float]]:
    """The largest relative error of a whole network, and the mean absolute relative error of each kind of op."""
    worst, by_kind = 0.0, defaultdict(list)
    for network in networks:
        guess = [predicted(sample, coefficients) for sample in network]
        worst = max(worst, abs(sum(guess) / sum(sample.taken for sample in network) - 1))
        for sample, value in zip(network, guess, strict=True):
            by_kind[sample.kind].append(abs(value / sample.taken - 1))
    return worst, {kind: float(np.mean(errors)) for kind, errors in sorted(by_kind.items())}


def count_all(seeds: list[int], jobs: int, cores: Sequence[str]) -> dict[int, dict[str, dict[str, list[int]]]]:
    with tempfile.TemporaryDirectory(prefix="mcuformer-core-") as folder:
        for machine in (CORES[core].machine for core in cores):
            firmware_model.kernel_objects(machine, Path(folder) / machine.name)
        with ProcessPoolExecutor(jobs) as pool:
            return dict(
                zip(seeds, pool.map(functools.partial(count, folder=Path(folder), cores=cores), seeds), strict=True)
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fit nothing; check the coefficients in the repository")
    parser.add_argument("--counts", type=Path, help="read the counts from this file, or write them there")
    parser.add_argument(
        "--core", choices=KNOWN, nargs="+", default=KNOWN, help="count, fit and check these cores alone"
    )
    parser.add_argument("--fitted", type=int, default=FITTED, help=f"networks to fit to (default: {FITTED})")
    parser.add_argument("--kernel", choices=KERNELS, nargs="+", help="fit these kernels alone")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    cores = arguments.core
    for core in cores:
        firmware.require_tools(CORES[core])
    seeds = [2 * i + 1 for i in range(CHECKED)] + ([] if arguments.check else [2 * i for i in range(arguments.fitted)])
    if arguments.kernel:
        seeds = [seed for seed in seeds if calls_one(seed, arguments.kernel)]
    if arguments.counts is not None and arguments.counts.is_file():
        counts = {int(seed): counted for seed, counted in json.loads(arguments.counts.read_text()).items()}
    else:
        counts = count_all(seeds, arguments.jobs, cores)
        if arguments.counts is not None:
            arguments.counts.write_text(json.dumps(counts))
    networks = {seed: samples(seed, counts[seed]) for seed in seeds}
    good = True
    for what, model in MODELS.items():
        good = fit_and_check(what, model, networks, cores, not arguments.check, arguments.kernel) and good
    return 0 if good else 1


def calls_one(seed: int, kernels: Sequence[str]) -> bool:
    """Whether a network calls one of these kernels."""
    graph, _ = network(seed, ROWS)
    return any(one.kernel in kernels for op in graph.ops for one in work_of(graph, op))


def fit_and_check(
    what: str, model: KernelModel, networks: dict[int, dict], cores: Sequence[str], fits: bool,
    kernels: Sequence[str] | None,
) -> bool:  # fmt: skip
    """Writes the coefficients of one of MODELS if it fits, those of some kernels or of all, and prints how good they
    are."""
    coefficients = json.loads(model.file.read_text())["coefficients"] if model.file.is_file() else {}
    known = [core for core in cores if coefficients_of(core, what) is not None]
    if fits:
        for core in (core for core in known if coefficients_of(core, what) == core):
            held = {k: values for k, values in coefficients.get(core, {}).items() if kernels and k not in kernels}
            ops = [op for seed in networks if seed % 2 == 0 for op in networks[seed][core, what]]
            coefficients[core] = fit(ops, held)
        text = {"generator": "tools/fit_instruction_model.py", "coefficients": coefficients}
        model.file.write_text(json.dumps(text, indent=1) + "\n")
        print(f"wrote {model.file.name}")
    good = True
    for core in known:
        checked = [networks[seed][core, what] for seed in networks if seed % 2]
        worst, kinds = report(checked, coefficients[coefficients_of(core, what)])
        good = good and worst <= ALLOWED
        errors = ", ".join(f"{kind} {100 * error:.1f} %" for kind, error in kinds.items())
        print(
            f"{core}, {what}: {len(checked)} networks it was not fitted on, each within {100 * worst:.2f} %; mean "
            f"error of an op: {errors}"
        )
    return good


if __name__ == "__main__":
    sys.exit(main())
