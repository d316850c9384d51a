# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, all 60,000 training images: supernet, search for a 32 KB arena, int8 in the interpreter.

Runs the commands that it prints, in two processes of one thread where it matters: on two cores these train faster than
one process with two threads. Needs Debian's dataset-fashion-mnist. Selection uses 5,000 held-out training images; the
10,000 test images are used once, at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import table

from mcuformer import nas
from mcuformer.data import load
from mcuformer.nas.search_space import SPACES

SPACE, DATA = "fashion-mnist", "fashion-mnist-full"
TWO = "torchrun --standalone --nproc-per-node 2 -m mcuformer"
COMMANDS = (
    TWO + " train --space {space} --data {data} --epochs 17 -o supernet.pt --json train.json",
    TWO + " search supernet.pt --sram 32KB --generations 6 --children 20 -o subnet.pt --plot search.png "
    "--json search.json",
    "mcuformer convert subnet.pt --data {data} -o model.tflite --json convert.json",
    "mcuformer run model.tflite --data {data} --reference --json run.json",
)
MOST_MINUTES, LEAST_LARGEST, LEAST_SMALLEST, LEAST_INT8 = 10, 0.915, 0.895, 0.91


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keep the files here; default: remove them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return measure(folder, arguments.json)


def measure(folder: Path, json_file: Path | None) -> int:
    print((SPACES / f"{SPACE}.yaml").read_text())
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    modules = {"torchrun": "torch.distributed.run", "mcuformer": "mcuformer"}
    for command in COMMANDS:
        command = command.format(space=SPACE, data=DATA)
        print(f"$ {command}", flush=True)
        program, *words = command.split()
        done = subprocess.run(
            [sys.executable, "-m", modules[program], *words], cwd=folder, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        print(done.stdout, end="", flush=True)
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            return 2
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("train", "search", "convert", "run")}
    supernet, test = nas.load_supernet(folder / "supernet.pt"), load(DATA, "test")
    ends = [nas.evaluate(supernet, test, config=c) for c in (supernet.space.largest(), supernet.space.smallest())]
    chosen = nas.evaluate(nas.load_subnet(folder / "subnet.pt"), test)
    int8, minutes = found["run"]["top1"], found["train"]["seconds"] / 60
    arena, predicted = found["run"]["arena_bytes"], found["search"]["best"]["sram"]
    print()
    table.show(
        ["subnet", "test top-1 %"],
        [["largest", f"{100 * ends[0]:.2f}"], ["smallest", f"{100 * ends[1]:.2f}"],
         ["searched, float", f"{100 * chosen:.2f}"], ["searched, int8 in the interpreter", f"{100 * int8:.2f}"]],
    )  # fmt: skip
    return table.finish(
        {"largest": ends[0], "smallest": ends[1], "searched": chosen, **found},
        [
            table.requirement(f"training in at most {MOST_MINUTES} minutes", f"{minutes:.1f}", minutes <= MOST_MINUTES),
            table.requirement("largest at least 91.5 %", f"{100 * ends[0]:.2f}", ends[0] >= LEAST_LARGEST),
            table.requirement("smallest at least 89.5 %", f"{100 * ends[1]:.2f}", ends[1] >= LEAST_SMALLEST),
            table.requirement("searched, int8, at least 91 %", f"{100 * int8:.2f}", int8 >= LEAST_INT8),
            table.requirement("its arena at most 32 KB, and the predicted", f"{arena:,} of {predicted:,} bytes",
                              arena <= min(predicted, 32 * 1024)),
            table.requirement("every logit equals the integer reference", None, found["run"]["exact"]),
        ],
        json_file,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
