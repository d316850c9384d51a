# SPDX-License-Identifier: Apache-2.0
"""Instructions of the kernels on simulated Cortex-M4, M7 and M55, and estimated cycles on the M4, beside CMSIS-NN.

    python benchmarks/cortex_m.py --json cortex_m.json
    python benchmarks/cortex_m.py --cmsis-nn-include CMSIS-NN/Include --cmsis-nn-lib libcmsisnn_m4.a

Counted in QEMU, weights in flash, compiled as the project ships: instructions are not cycles. Every output is compared
with the reference. Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.

Cycles are an estimate: what Arm's manual of the Cortex-M4 states for each instruction, over those that QEMU executed
(mcuformer/simulator/cycles.py), without wait states of flash and cache misses. They are for the Cortex-M4 alone: Arm
publishes no such table of the others.

The column CMSIS-NN has the instructions of CMSIS-NN 99f736a, taken in the same way (-O3, gcc 12.2, QEMU 7.2, Cortex-M4;
M55 where the row says so): its public function and, in brackets, its fastest internal one. With --cmsis-nn-include and
--cmsis-nn-lib, a library that you built (for --cmsis-nn-machine) runs the same shapes in the same run. Its arithmetic
is not quite the same: one multiplier and shift per layer or channel with two roundings, the input's zero point added in
the inner loop, no GELU and no residual. A table of its own has the layers of cortex_m_cmsis.COUNTED, down to one input
of one token, on the Cortex-M4 and M7, beside what CMSIS-NN took on the M4.

Network B with 3 layers and a network of the demo are counted too, with random weights.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cortex_m_cmsis
import numpy as np
import stock_network
import table

from mcuformer import SubnetConfig, convert, sources
from mcuformer.boards import CYCLES_ARE, get_board
from mcuformer.converter.graph import to_int8
from mcuformer.converter.ops import decomposed_patch_embed as patch_embed
from mcuformer.converter.ops import in_place_fc, int_attention, int_layer_norm, stem_conv
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack
from mcuformer.nas import build_subnet
from mcuformer.simulator import cycles, firmware, firmware_check, firmware_model
from mcuformer.simulator.firmware import KB
from mcuformer.simulator.firmware_ops import OpCase, run_ops

M4, M7, M55 = "mps2-an386", "mps2-an500", "mps3-an547"
MACHINES = {name: firmware.MACHINES[name] for name in (M4, M7, M55)}
M4_M7 = (M4, M7)
MOST_CODE, MOST_STACK = 24 * KB, 1024
MOST_NETWORK = {(M4, "overwrite"): 0.88, (M4, "streamed"): 0.90, (M55, "overwrite"): 0.24, (M55, "streamed"): 0.28}
BOARDS = {M4: "nano33ble", M55: "corstone300"}  # of network A
DEMO = SubnetConfig(
    image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=3, num_heads=2, mlp_ratio=1.0, stem="conv",
    stem_channels=(32, 48),
)  # fmt: skip
OTHERS = {  # networks on M4 and M7: their board, and the most with each schedule
    "network B, 3 layers": (
        replace(stock_network.NETWORKS["B"], depth=3), "stm32h743", {"overwrite": 0.825, "streamed": 0.84}
    ),
    "demo": (DEMO, "nano33ble", {"overwrite": 0.95, "streamed": 0.98}),
}  # fmt: skip
MOST_OF_CMSIS = 0.9  # of the instructions of CMSIS-NN's quicker function
MOST_CHECK_CODE, MOST_CHECK = 6 * KB, 130  # of the check of a model: bytes, instructions a byte of it
SOFTMAX = {M4: 16.0, M7: 16.0, M55: 6.0}  # per element
CYCLES = f"{CYCLES_ARE[0].upper()}{CYCLES_ARE[1:]}."
SCHEDULES = ("overwrite", "streamed")


@dataclass(frozen=True)
class Row:
    """One kernel at one shape. units: the divisor of instructions; most: per unit, None: only exact.

    cmsis: instructions per unit of CMSIS-NN, counted earlier; softmax: (tokens, heads) whose softmax is subtracted.
    """

    name: str
    case: OpCase
    units: int
    most: float | None
    machines: tuple[str, ...]
    cmsis: str | None = None
    shape: tuple[int, int, int] | None = None  # tokens, in, out: for CMSIS-NN
    softmax: tuple[int, int] | None = None


def int8(rng: np.random.Generator, *shape: int, least: int = -128) -> np.ndarray:
    return rng.integers(least, 128, shape).astype(np.int8)


def requantisation(rng: np.random.Generator, channels: int, terms: int) -> dict[str, np.ndarray]:
    scale = rng.uniform(0.5, 1, channels) / (40 * 60 * np.sqrt(terms))
    return {
        "bias": rng.integers(-20000, 20000, channels).astype(np.int32),
        "multiplier": np.rint(scale * 2.0**32).astype(np.int32),
    }


def fully_connected(tokens: int, features: int, out: int, packing: int, gelu=False, residual=False) -> OpCase:
    rng = np.random.default_rng(tokens + features + out)
    constants = {
        "weights": pack(int8(rng, out, features, least=-127), packing), **requantisation(rng, out, features)
    }  # fmt: skip
    activations = {"input": int8(rng, 1, tokens, features)}
    if gelu:
        constants["gelu_table"] = int8(rng, 256)
    if residual:
        activations["residual"] = int8(rng, 1, tokens, out)
        constants["residual_scale"] = rng.integers(1, 3000, out).astype(np.int16)
    return OpCase.of("InPlaceFC", in_place_fc.Options(3, packing), activations, constants)


def embedding(size: int, d: int, packing: int) -> OpCase:
    rng = np.random.default_rng(d)
    fields = patch_embed.split_fields(int8(rng, d, 16, 16, 3, least=-127))
    tokens = (size // 16) ** 2
    constants = {
        "weights": pack(fields, packing), **requantisation(rng, d, 768), "position": int8(rng, 1, tokens, d),
        "position_scale": rng.integers(1, 3000, d).astype(np.int16),
    }  # fmt: skip
    options = patch_embed.Options(16, 3, packing)
    return OpCase.of("DecomposedPatchEmbed", options, {"image": int8(rng, 1, size, size, 3)}, constants)


def convolution(side: int, channels: int, out: int, packing: int) -> OpCase:
    rng = np.random.default_rng(channels)
    weights = int8(rng, out, 9 * channels, least=-127)
    if packing == ROWS:
        weights = weights.reshape(out, 3, 3, channels)
    constants = {"weights": pack(weights, packing), **requantisation(rng, out, 9 * channels)}
    options = stem_conv.Options(-128, -128, -128, packing)
    return OpCase.of("StemConv", options, {"input": int8(rng, 1, side, side, channels)}, constants)


def attention(tokens: int, heads: int, dim: int) -> OpCase:
    rng = np.random.default_rng(tokens + dim)
    head_params = np.stack([int_attention.lower_head(0.1, 0.01, 1.0, 0.3, dim, tokens)] * heads)
    activations = {"qkv": int8(rng, 1, tokens, 3 * heads * dim)}
    return OpCase.of("IntAttention", int_attention.Options(heads, dim, 2), activations, {"head_params": head_params})


def layer_norm(tokens: int, d: int, factors: bool) -> OpCase:
    rng = np.random.default_rng(d)
    constants = {
        "gamma": rng.integers(500, 3000, d).astype(np.int16),
        "beta": rng.integers(-(2**20), 2**20, d).astype(np.int32),
        "factor": rng.integers(1, 128, d).astype(np.uint8) if factors else None,
    }
    x = np.clip(np.rint(rng.normal(0, 40, (1, tokens, d))), -128, 127).astype(np.int8)
    return OpCase.of("IntLayerNorm", int_layer_norm.Options(0, 1000), {"input": x}, constants)


def rows() -> list[Row]:
    found = []

    def fc(tokens, features, out, most, machines, cmsis=None, packing=PAIRS, **fused):
        suffix = "".join(f", {name}" for name in fused)
        case = fully_connected(tokens, features, out, packing, **fused)
        shape = None if fused else (tokens, features, out)
        name = f"FC {tokens}x{features}->{out}{suffix}"
        found.append(Row(name, case, tokens * features * out, most, machines, cmsis, shape))

    fc(49, 96, 96, 0.85, M4_M7, "2.40 (1.92)")
    fc(49, 96, 384, 0.84, M4_M7, "2.39 (1.92)")
    fc(49, 96, 384, 0.86, M4_M7, gelu=True)
    fc(49, 96, 96, 0.89, M4_M7, residual=True)
    fc(196, 192, 768, 0.80, M4_M7, "2.13 (1.65)")
    fc(196, 768, 192, 0.79, M4_M7, "1.94 (1.49)")
    fc(1, 192, 1000, 0.97, M4_M7, "2.13 (5.18)")
    fc(37, 100, 75, 0.90, M4_M7, "2.40 (2.03)")
    fc(5, 33, 17, 1.70, M4_M7, "3.80 (3.97)")
    fc(3, 31, 29, 1.70, M4_M7, "3.96 (4.98)")
    fc(17, 200, 1, 2.69, M4_M7, "3.00 (6.27)")
    fc(17, 200, 2, 1.68, M4_M7, "2.40 (1.87)")
    fc(1, 7, 3, 17.1, M4_M7, "19.0 (22.5)")
    for (tokens, features, out), most, cmsis in (
        ((49, 96, 96), 0.20, None), ((49, 96, 384), 0.20, "(0.32)"), ((196, 192, 768), 0.16, None),
        ((196, 768, 192), 0.13, "(0.19)"), ((1, 192, 1000), 0.40, "0.451"), ((3, 31, 29), 1.09, "1.09"),
        ((17, 200, 1), 0.356, "0.356"), ((37, 100, 75), 0.30, None), ((5, 33, 17), None, None), ((1, 7, 3), None, None),
    ):  # fmt: skip
        fc(tokens, features, out, most, (M55,), cmsis, packing=ROWS)
    fc(49, 96, 384, 0.20, (M55,), packing=ROWS, gelu=True)
    fc(49, 96, 96, 0.22, (M55,), packing=ROWS, residual=True)
    for packing, most, machines, cmsis in ((PAIRS, 0.9, M4_M7, "1.76"), (ROWS, 0.30, (M55,), None)):
        case = embedding(224, 192, packing)
        found.append(Row("patch embedding 224x224x3, 16 -> 192", case, 196 * 768 * 192, most, machines, cmsis))
    for side, channels, out in ((32, 1, 32), (16, 32, 48), (8, 48, 64)):
        for packing, machines in ((PAIRS, M4_M7), (ROWS, (M55,))):
            name = f"StemConv {side}x{side}x{channels}->{out}"
            case, macs = convolution(side, channels, out, packing), ((side + 1) // 2) ** 2 * 9 * channels * out
            found.append(Row(name, case, macs, None, machines))
    for tokens, heads, dim in ((49, 3, 32), (49, 3, 64), (196, 1, 32), (196, 1, 64)):
        for most, machines, cmsis in ((1.1, M4_M7, "2.1-3.5"), (0.45, (M55,), None)):
            name, case = f"attention, both products, {tokens} tokens, head dim {dim}", attention(tokens, heads, dim)
            found.append(
                Row(name, case, 2 * tokens**2 * heads * dim, most, machines, cmsis, softmax=(tokens, heads))
            )  # fmt: skip
    for d in (96, 192):
        for factors, m4_m7, m55 in ((False, 12.0, 6.0), (True, 14.0, 8.0)):
            name = f"LayerNorm, an element, d {d}" + (", per-channel factors" if factors else "")
            for most, machines in ((m4_m7, M4_M7), (m55, (M55,))):
                found.append(Row(name, layer_norm(49, d, factors), 49 * d, most, machines))
    return found


def softmax_app(tokens: int) -> str:
    """Softmax of 4 rows and of 1 for flat, uniform and peaked scores: prints the instructions of each."""
    return f"""
#include "board.h"
#include "mcuf_attention_rows.h"
static int32_t scores[4 * {tokens + 1}];
static int16_t numerators[4 * {tokens + 1}];
int main(void) {{
  const int32_t head[4] = {{1 << 24, 1 << 30, 0, 0}};
  const mcuf_attention_rows_shape shape = {{{tokens}, 1, 1, 0, 0, 0}};
  mcuf_row_scale scale[4];
  for (int rows = 4; rows >= 1; rows -= 3) {{
    for (int kind = 0; kind < 3; ++kind) {{
      for (int i = 0; i < rows * {tokens}; ++i) {{
        scores[i] = kind == 0 ? 0 : kind == 1 ? (int32_t)(i * 2654435761u >> 12) - 500000 : i < rows ? 500000 : -500000;
      }}
      const uint32_t first = board_ticks();
      mcuf_softmax_rows(&shape, scores, rows, head, numerators, scale);
      board_print_number((int32_t)board_instructions(first, board_ticks()));
      board_print("\\n");
    }}
  }}
  return scale[0].shift == 0;
}}
"""


def run_app(text: str, machine, folder: Path, objects, include=(), libraries=()) -> list[tuple[int, int | None]]:
    """The counts of instructions that an app prints, one per line, and the estimated cycles of each; None: unknown."""
    folder.mkdir(parents=True)
    (folder / "app.c").write_text(text)
    compiled = firmware.compile_objects(
        [folder / "app.c"], machine.core, folder, [sources.c_kernel_folder(), *include], firmware.C_FLAGS
    )
    program = firmware.link(
        [*compiled, *objects, *libraries], machine, folder / "app.elf", machine.most_ram_bytes,
        machine.most_flash_bytes, 8192,
    )  # fmt: skip
    run, took = (firmware.run(program), None) if rules_of(machine) is None else cycles.timed(program)
    if run.status:
        raise RuntimeError(f"an app on {machine.name} ended with status {run.status}: {run.text}")
    counts = [int(line) for line in run.text.split()]
    return list(zip(counts, took or [None] * len(counts), strict=True))


def rules_of(machine) -> cycles.Rules | None:
    """By which cycles are estimated; None: they are unknown."""
    return None if machine.core.cycle_coefficients is None else cycles.DEFAULT


def measure(name: str, folder: Path) -> list[dict]:
    """All rows on one machine."""
    machine = MACHINES[name]
    objects = firmware_model.kernel_objects(machine, folder / "kernels")
    wanted = [row for row in rows() if name in row.machines]
    softmax = {n: run_app(softmax_app(n), machine, folder / f"softmax{n}", objects) for n in (49, 196)}
    results = []
    for i, row in enumerate(wanted):
        (run,) = run_ops([row.case], machine, folder / f"row{i}", objects, cycles=rules_of(machine))
        counts = [run.instructions, run.cycles]
        if row.softmax:  # blocks of four query rows, and the rest one at a time
            tokens, heads = row.softmax
            of_four, of_one = softmax[tokens][1], softmax[tokens][4]
            counts = [
                None if count is None else count - heads * (tokens // 4 * four + tokens % 4 * one)
                for count, four, one in zip(counts, of_four, of_one, strict=True)
            ]
        results.append(
            {
                "machine": name, "row": row.name, **counted(*counts, row.units),
                "most": row.most, "cmsis_nn": row.cmsis, "exact": run.exact, "shape": row.shape,
            }
        )  # fmt: skip
    for n, counts in softmax.items():
        for kind, count in zip(("flat", "uniform", "peaked"), counts[:3], strict=True):
            results.append(
                {
                    "machine": name, "row": f"softmax, an element, {n} tokens, {kind} scores",
                    **counted(*count, 4 * n), "most": SOFTMAX[name],
                    "cmsis_nn": None if name == M55 else "89-519", "exact": None, "shape": None,
                }
            )  # fmt: skip
    return results


def counted(instructions: int, cycles: int | None, units: int) -> dict:
    return {
        "instructions": instructions, "per_unit": instructions / units, "cycles": cycles,
        "cycles_per_unit": None if cycles is None else cycles / units,
    }  # fmt: skip


def range_of(machine) -> list[cycles.Rules | None]:
    """The rules for estimated cycles, then the least and the most of what the manual leaves open."""
    if rules_of(machine) is None:
        return [None]
    return [cycles.DEFAULT, cycles.Rules(refill=1, division=2), cycles.Rules(refill=3, division=12)]


def network_a(folder: Path, schedule: str, name: str) -> dict:
    """Network A, random weights, on a machine within its board's memory: on the Cortex-M4 256 KB of RAM and 1 MB of
    flash. code: bytes of the kernels that it links."""
    config, machine = stock_network.NETWORKS["A"], MACHINES[name]
    images = stock_network.structured_images(config, 4, 1)
    model = convert(build_subnet(config), images, board=BOARDS[name], schedule=schedule)
    objects = firmware_model.kernel_objects(machine, folder / "shared")
    built = firmware_model.build(model.graph, model.class_names, machine, folder, objects=objects)
    runs = [built.run(images[:2], cycles=rules) for rules in range_of(machine)]
    run = runs[0]
    if not np.array_equal(run.logits, model.graph.run(to_int8(images[:2]))):
        raise AssertionError(f"network A: the logits on the {machine.core.label} differ")
    check = firmware_check.run_check(model.content, machine, folder / "check")
    if check.wrong is not None:
        raise AssertionError(f"network A: CheckModel says: {check.wrong}")
    return {
        "check_code": check.code_bytes, "check_per_byte": check.instructions / len(model.content),
        "check_instructions": check.instructions,
        "instructions": run.instructions, "macs": config.macs, "per_mac": run.instructions / config.macs,
        "cycles": run.cycles, "cycles_per_mac": None if run.cycles is None else run.cycles / config.macs,
        "cycles_range": None if run.cycles is None else [run.cycles for run in runs[1:]],
        "estimated_ms": get_board(BOARDS[name]).estimated_ms(None, run.cycles),
        "stack": run.stack_bytes, "flash": built.program.flash_bytes, "ram": built.program.static_bytes,
        "code": firmware.linked_bytes(built.program, objects[: len(sources.c_kernel_sources())]),
    }  # fmt: skip


def other_network(folder: Path, config: SubnetConfig, board: str, schedule: str, name: str) -> dict:
    """A network with random weights on a machine, in as much memory as that has."""
    machine, images = MACHINES[name], stock_network.structured_images(config, 2, 1)
    model = convert(build_subnet(config), images, board=board, schedule=schedule)
    built = firmware_model.build(
        model.graph, model.class_names, machine, folder, machine.most_ram_bytes, machine.most_flash_bytes
    )
    run = built.run(images[:1])
    if not np.array_equal(run.logits, model.graph.run(to_int8(images[:1]))):
        raise AssertionError(f"{board}, {schedule}: the logits on the {machine.core.label} differ")
    return {"instructions": run.instructions, "macs": config.macs, "per_mac": run.instructions / config.macs}


def beside_cmsis(folder: Path) -> list[dict]:
    """Fully connected layers on M4 and M7 beside what CMSIS-NN took on M4."""
    shapes = list(cortex_m_cmsis.COUNTED)
    found = []
    for name in M4_M7:
        runs = run_ops([fully_connected(*shape, PAIRS) for shape in shapes], MACHINES[name], folder / name)
        for shape, run in zip(shapes, runs, strict=True):
            counted = cortex_m_cmsis.COUNTED[shape]
            found.append(
                {
                    "machine": name, "shape": shape, "instructions": run.instructions, "exact": run.exact,
                    "cmsis_nn": counted, "ratio": run.instructions / min(counted),
                }
            )  # fmt: skip
    return found


def beside_cmsis_table(layers: list[dict]) -> None:
    by_shape = {}
    for layer in layers:
        by_shape.setdefault(layer["shape"], []).append(layer)
    cells = [
        [
            f"FC {shape[0]}x{shape[1]}->{shape[2]}", *(f"{count:,}" for count in pair[0]["cmsis_nn"]),
            *(cell for layer in pair for cell in (f"{layer['instructions']:,}", f"{layer['ratio']:.3f}")),
        ]
        for shape, pair in by_shape.items()
    ]  # fmt: skip
    columns = ["instructions", "CMSIS-NN, M4", "its internal one", "M4", "of its best", "M7", "of its best"]
    table.show(columns, cells)
    print()


def beside_cmsis_requirements(layers: list[dict]) -> list[dict]:
    found = []
    for name in M4_M7:
        here = [layer for layer in layers if layer["machine"] == name]
        worst = max(here, key=lambda layer: layer["ratio"])
        tokens, inputs, outputs = worst["shape"]
        core = MACHINES[name].core.key.upper()
        text = f"{core} {len(here)} FC shapes: exact, at most {MOST_OF_CMSIS} of CMSIS-NN's best"
        holds = worst["ratio"] <= MOST_OF_CMSIS and all(layer["exact"] for layer in here)
        found.append(table.requirement(text, f"{worst['ratio']:.3f} ({tokens}x{inputs}->{outputs})", holds))
    return found


def code_bytes(folder: Path) -> int:
    """Code and constants of all kernels on a Cortex-M4."""
    objects = firmware.compile_objects(
        sources.c_kernel_sources(), MACHINES[M4].core, folder, [sources.c_kernel_folder()], firmware_model.MODEL_FLAGS
    )
    return sum(
        size
        for path in objects
        for section, size in firmware.section_bytes(path).items()
        if section.startswith((".text", ".rodata"))
    )


def in_this_run(counts: list[list[float | None]]) -> list[str | None]:
    """Of CMSIS-NN: instructions a unit of its two functions, and cycles."""
    return [None if two[0] is None else f"{two[0]:.2f} ({two[1]:.2f})" for two in counts]


def networks_table(networks: dict[tuple[str, str], dict]) -> None:
    cells = [
        [
            f"{MACHINES[name].core.key.upper()}, {schedule}", f"{a['per_mac']:.3f}", f"{a['cycles_per_mac']:.3f}",
            " to ".join(f"{count / a['macs']:.3f}" for count in a["cycles_range"]), f"{a['estimated_ms']:.1f}",
        ]
        for (name, schedule), a in networks.items()
        if a["cycles"] is not None
    ]  # fmt: skip
    columns = ["network A", "instructions a MAC", "estimated cycles a MAC", "with what the manual leaves open"]
    table.show([*columns, f"estimated ms, {BOARDS[M4]}"], cells)
    print()


def network_requirements(machine: str, schedule: str, network: dict) -> list[dict]:
    """network: as network_a() returns it."""
    per_mac, stack, code = network["per_mac"], network["stack"], network["code"]
    name, most = f"{MACHINES[machine].core.key.upper()} network A, {schedule}", MOST_NETWORK[machine, schedule]
    beside = " (CMSIS-NN in TFLM: 4.97)" if machine == M4 else ""
    found = [
        table.requirement(f"{name}: at most {most} a multiply-accumulate{beside}", f"{per_mac:.3f}", per_mac <= most),
        table.requirement(f"{name}: at most {MOST_STACK:,} bytes of stack", f"{stack:,}", stack <= MOST_STACK),
    ]
    if machine == M4:
        text = f"{name}: at most {MOST_CODE:,} bytes of kernels linked"
        found.append(table.requirement(text, f"{code:,}", code <= MOST_CODE))
    return found


def check_requirements(network: dict) -> list[dict]:
    """Of CheckModel, on network A's file."""
    code, per_byte = network["check_code"], network["check_per_byte"]
    return [
        table.requirement(f"M4 CheckModel: at most {MOST_CHECK_CODE:,} bytes", f"{code:,}", code <= MOST_CHECK_CODE),
        table.requirement(
            f"M4 CheckModel of network A ({network['check_instructions']:,} instructions): at most {MOST_CHECK} a byte",
            f"{per_byte:.1f}", per_byte <= MOST_CHECK,
        ),
    ]  # fmt: skip


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--cmsis-nn-include", type=Path, metavar="DIR", help="headers of CMSIS-NN")
    parser.add_argument("--cmsis-nn-lib", type=Path, metavar="FILE", help="a static library of it, for one core")
    parser.add_argument("--cmsis-nn-machine", choices=MACHINES, default=M4, help="the machine it was built for")
    arguments = parser.parse_args()
    if (arguments.cmsis_nn_include is None) != (arguments.cmsis_nn_lib is None):
        parser.error("--cmsis-nn-include and --cmsis-nn-lib go together")
    if missing := firmware.missing_tools():
        parser.error(missing)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = [row for name in MACHINES for row in measure(name, folder / name)]
        code = code_bytes(folder / "code")
        networks = {
            (name, schedule): network_a(folder / name / schedule, schedule, name)
            for name in BOARDS for schedule in SCHEDULES
        }  # fmt: skip
        others = {
            (title, name, schedule): other_network(folder / board / name / schedule, config, board, schedule, name)
            for title, (config, board, _) in OTHERS.items() for name in M4_M7 for schedule in SCHEDULES
        }  # fmt: skip
        layers = beside_cmsis(folder / "layers")
        measured = {}
        if arguments.cmsis_nn_lib is not None:
            machine = MACHINES[arguments.cmsis_nn_machine]
            board = firmware.firmware_objects(machine, folder / "cmsis_board")
            shapes = [r["shape"] for r in results if r["machine"] == machine.name and r["shape"]]
            for i, shape in enumerate(shapes):
                numbers = run_app(
                    cortex_m_cmsis.app(*shape), machine, folder / f"cmsis{i}", board,
                    [arguments.cmsis_nn_include], [arguments.cmsis_nn_lib],
                )  # fmt: skip
                measured[machine.name, shape] = [
                    [None if n is None else n / np.prod(shape) for n in of_one] for of_one in zip(*numbers, strict=True)
                ]
    columns = ["core", "kernel", "instructions", "each", "at most", "cycles", "each", "exact", "CMSIS-NN"]
    if measured:
        columns += ["CMSIS-NN in this run", "its cycles"]
    cells, requirements = [], []
    for row in results:
        core = MACHINES[row["machine"]].core.key.upper()
        most = None if row["most"] is None else f"{row['most']:.2f}"
        exact = "-" if row["exact"] is None else "yes" if row["exact"] else "NO"
        here = measured.get((row["machine"], row["shape"]))
        row["cmsis_nn_in_this_run"] = here
        cells.append(
            [
                core, row["row"], f"{row['instructions']:,}", f"{row['per_unit']:.3f}", most,
                *([None, None] if row["cycles"] is None else [f"{row['cycles']:,}", f"{row['cycles_per_unit']:.3f}"]),
                exact, row["cmsis_nn"],
                *((in_this_run(here) if here else [None, None]) if measured else []),
            ]
        )  # fmt: skip
        holds = row["exact"] is not False and (row["most"] is None or row["per_unit"] <= row["most"])
        text = f"{core} {row['row']}: " + ("bit-exact" if most is None else f"at most {most}")
        requirements.append(table.requirement(text, f"{row['per_unit']:.3f}", holds))
    table.show(columns, cells)
    print("\nInstructions counted in QEMU; each: per multiply-accumulate, or per element. Cycles: an estimate.")
    print(f"{CYCLES}\n")
    networks_table(networks)
    beside_cmsis_table(layers)
    sizes = [
        [f"those that network A links, {schedule}", f"{networks[M4, schedule]['code']:,}"] for schedule in SCHEDULES
    ]
    table.show(["M4, code and constants of kernels", "bytes"], [["all", f"{code:,}"], *sizes])
    for (name, schedule), a in networks.items():
        requirements += network_requirements(name, schedule, a)
    for (title, name, schedule), found in others.items():
        most, per_mac = OTHERS[title][2][schedule], found["per_mac"]
        text = f"{MACHINES[name].core.key.upper()} {title}, {schedule}: at most {most} a multiply-accumulate"
        requirements.append(table.requirement(text, f"{per_mac:.3f}", per_mac <= most))
    requirements += beside_cmsis_requirements(layers)
    requirements += check_requirements(networks[M4, "streamed"])
    by_machine = {name: {schedule: networks[name, schedule] for schedule in SCHEDULES} for name in BOARDS}
    result = {
        "rows": results, "code_bytes": code, "network_a": by_machine, "layers": layers,
        "networks": [{"network": title, "machine": name, "schedule": schedule, **found}
                     for (title, name, schedule), found in others.items()],
    }  # fmt: skip
    return table.finish(result, requirements, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
