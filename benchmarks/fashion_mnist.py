# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, all 60,000 training images: supernet, search for 10,240 bytes of arena, fine-tuning, int8 in
the interpreter.

Runs the commands that it prints, in two processes of one thread where it matters: on two cores these train faster than
one process with two threads. Needs Debian's dataset-fashion-mnist. Selection uses 5,000 held-out training images; the
10,000 test images are used once, at the end.
"""

from __future__ import annotations

import dataclasses
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
    TWO + " train --space {space} --data {data} --epochs 16 -o supernet.pt --json train.json",
    TWO + " search supernet.pt --sram 10KB --generations 6 --children 20 -o subnet.pt --plot search.png "
    "--json search.json",
    "mcuformer finetune subnet.pt --data {data} --epochs 6 -o finetuned.pt --json finetune.json",
    "mcuformer convert finetuned.pt --data {data} -o model.tflite --json convert.json",
    "mcuformer run model.tflite --data {data} --reference --json run.json",
)
MOST_MINUTES, MOST_ARENA, LEAST_LARGEST, LEAST_SMALL, LEAST_INT8 = 10, 10 * 1024, 0.92, 0.895, 0.91
SMALL = {"stem_channels": (24, 40)}  # narrower than 32, 48, for which its bar was set


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
    found = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("train", "search", "finetune", "convert", "run")
    }
    supernet, test = nas.load_supernet(folder / "supernet.pt"), load(DATA, "test")
    space = supernet.space
    small = dataclasses.replace(space.smallest(), **SMALL)
    largest, smallest, narrow = (
        nas.evaluate(supernet, test, config=config) for config in (space.largest(), space.smallest(), small)
    )
    net = nas.load_subnet(folder / "finetuned.pt")
    chosen = nas.evaluate(net, load(DATA, "test", image_size=net.config.image_size))
    int8, minutes = found["run"]["top1"], found["train"]["seconds"] / 60
    arena, predicted = found["run"]["arena_bytes"], found["search"]["best"]["sram"]
    print()
    table.show(
        ["subnet", "test top-1 %"],
        [["largest", f"{100 * largest:.2f}"], ["smallest", f"{100 * smallest:.2f}"],
         ["smallest with convolutions 24, 40", f"{100 * narrow:.2f}"],
         ["searched and fine-tuned, float", f"{100 * chosen:.2f}"],
         ["searched and fine-tuned, int8 in the interpreter", f"{100 * int8:.2f}"]],
    )  # fmt: skip
    return table.finish(
        {"largest": largest, "smallest": smallest, "small": narrow, "searched": chosen, **found},
        [
            table.requirement(f"training in at most {MOST_MINUTES} minutes", f"{minutes:.1f}", minutes <= MOST_MINUTES),
            table.requirement("largest at least 92 %", f"{100 * largest:.2f}", largest >= LEAST_LARGEST),
            table.requirement(
                "smallest with convolutions 24, 40, at least 89.5 %", f"{100 * narrow:.2f}",
                narrow >= LEAST_SMALL,
            ),
            table.requirement("searched, int8, at least 91 %", f"{100 * int8:.2f}", int8 >= LEAST_INT8),
            table.requirement(
                f"its arena at most {MOST_ARENA:,} bytes, and the predicted", f"{arena:,} of {predicted:,} bytes",
                arena <= min(predicted, MOST_ARENA),
            ),
            table.requirement(
                "every logit of the images compared equals that of",
                ", ".join(f"{name} ({images:,})" for name, images in found["run"]["compared"].items()),
                found["run"]["exact"],
            ),
        ],
        json_file,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
