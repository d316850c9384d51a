# SPDX-License-Identifier: Apache-2.0
"""The log-mel front end on simulated Cortex-M: instructions for a second of sound, bytes, distance from float64.

    python benchmarks/log_mel.py

Instructions are counted in QEMU over ten seconds of sound that arrives 256 samples at a time, and include the copying
of samples. They are no cycles. Every row is compared with the specification in numpy. RAM is that of one stream: its
samples, spectrum and state; the stack comes on top. Code is all of mcuf_log_mel.c. The error is that of the rows
against a log-mel in float64 which is not rounded, in steps of the int8 output (0.376 dB): rounding alone has a mean of
0.25 and a largest of 0.5. "loud" and "quiet" are harmonics with moving formants over noise, 0 and 40 dB below full
scale; "noise" is white, 40 dB below.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
import table

from mcuformer.simulator.firmware import MACHINES
from mcuformer.simulator.firmware_sound import run_front_end
from mcuformer.sound import LogMel

M4, M7, M55 = "mps2-an386", "mps2-an500", "mps3-an547"
CORES = {M4: "M4", M7: "M7", M55: "M55"}
FRONT_ENDS = {
    "98x40: 25 ms every 10": LogMel(),
    "49x40: 25 ms every 20": LogMel(hop=320, frames=49),
    "49x40: 30 ms every 20": LogMel(window=480, hop=320, frames=49),
}
SECONDS = 10
MOST_INSTRUCTIONS = {"98x40: 25 ms every 10": 4.7e6, "49x40: 25 ms every 20": 2.4e6, "49x40: 30 ms every 20": 2.4e6}
MOST_ERROR = (0.26, 0.6)  # mean; 99.9 % of all values


def harmonics(rng: np.random.Generator, level: float) -> np.ndarray:
    n = np.arange(SECONDS * 16000)
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(n / 4000)) / 16000
    sound = sum(np.sin(k * pitch) / k * (1 + np.sin(n / 3000 + k)) for k in range(1, 40))
    envelope = np.clip(np.sin(2 * np.pi * n / 8000), 0, None)
    return int16(level * sound / np.abs(sound).max() * envelope + rng.normal(0, level / 300, len(n)))


def int16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = int16(rng.normal(0, 328, SECONDS * 16000))
    return {"loud": harmonics(rng, 32767), "quiet": harmonics(rng, 328), "noise": noise}


def main() -> int:
    args = table.parser(__doc__).parse_args()
    heard = sounds()
    cost, errors, requirements, result = [], [], [], {"cost": [], "error": []}
    for name, front_end in FRONT_ENDS.items():
        rows = front_end.rows(heard["loud"])
        for machine, core in CORES.items():
            with tempfile.TemporaryDirectory() as folder:
                run = run_front_end(front_end, heard["loud"], MACHINES[machine], folder)
            exact = np.array_equal(run.rows, rows)
            second, frame = run.instructions / SECONDS, run.instructions / len(rows)
            cost.append([name, core, f"{second:,.0f}", f"{frame:,.0f}", f"{run.ram_bytes:,}", run.stack_bytes,
                         f"{run.code_bytes:,}", f"{run.table_bytes:,}", "yes" if exact else "NO"])  # fmt: skip
            result["cost"].append({"front_end": name, "core": core, "instructions_per_second": second, "exact": exact,
                                   "ram_bytes": run.ram_bytes, "stack_bytes": run.stack_bytes,
                                   "code_bytes": run.code_bytes, "table_bytes": run.table_bytes})  # fmt: skip
            most = MOST_INSTRUCTIONS[name]
            requirements.append(
                table.requirement(
                    f"{core} {name}: exact, at most {most / 1e6:.1f} M instructions a second of sound",
                    f"{second / 1e6:.2f} M",
                    exact and second <= most,
                )
            )
        for sound, samples in heard.items():
            found = np.abs(front_end.rows(samples) - front_end.exact(samples))
            mean, most_of_all, largest = found.mean(), np.quantile(found, 0.999), found.max()
            errors.append([name, sound, f"{mean:.3f}", f"{most_of_all:.3f}", f"{largest:.3f}"])
            result["error"].append({"front_end": name, "sound": sound, "mean": mean, "q999": most_of_all,
                                    "largest": largest})  # fmt: skip
            limits = f"mean at most {MOST_ERROR[0]}, 99.9 % at most {MOST_ERROR[1]}"
            holds = mean <= MOST_ERROR[0] and most_of_all <= MOST_ERROR[1]
            text = f"{name}, {sound}: {limits} steps from float64"
            requirements.append(table.requirement(text, f"{mean:.3f}, {most_of_all:.3f}", bool(holds)))
    columns = ["front end", "core", "instructions a second", "a frame", "RAM", "stack", "code", "tables", "exact"]
    table.show(columns, cost)
    print()
    table.show(["front end", "sound", "mean error", "99.9 %", "largest"], errors)
    return table.finish(result, requirements, args.json)


if __name__ == "__main__":
    sys.exit(main())
