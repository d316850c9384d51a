# SPDX-License-Identifier: Apache-2.0
"""Ten spoken words: from WAV files to an int8 network, measured on voices that it was never trained on.

    python benchmarks/spoken_words.py                 # the words are synthesised: needs Debian's espeak-ng
    python benchmarks/spoken_words.py --data FOLDER   # a folder in the layout of Speech Commands

The words are synthesised by espeak-ng (tools/synthesise_words.py): 32 voices to train on, 10 others to test on, with
several accents, pitches, speeds, rooms and noises. They show that front end, network and conversion work together; a
figure for words that people speak takes the real corpus (docs/sound.md has the commands). "int8" runs the kernels, and
every logit is compared with the integer reference. The network's instructions on a Cortex-M4 are those of the
instruction model, for one answer; the front end's are counted (log_mel.py).
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

# Before torch is imported: training takes both cores, unless the environment says otherwise.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import table

from mcuformer import Interpreter, SubnetConfig, convert
from mcuformer.converter.estimate.instructions import instructions
from mcuformer.converter.export import front_end as c_front_end
from mcuformer.data import load
from mcuformer.nas import TrainOptions, build_subnet, evaluate, train

ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "build" / "words"
BOARD = "nano33ble"
# Two frames a token. Chosen on the validation voices, which are in neither list: mixup gained 1 %, random crops and
# cutmix nothing.
CONFIG = SubnetConfig(
    image_size=(98, 40), in_channels=1, patch_size=(2, 40), embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0,
    num_classes=10,
)  # fmt: skip
OPTIONS = TrainOptions(epochs=40, flip=False, mixup=0.5)
MOST_ARENA, MOST_MODEL, MOST_LOST, LEAST = 32 * 1024, 200_000, 0.01, 0.90
MOST_SECONDS = 600


def synthesised() -> Path | None:
    """The folder of words, made if it is not there; None without espeak-ng."""
    if WORDS.is_dir():
        return WORDS
    if shutil.which("espeak-ng") is None:
        return None
    sys.path.insert(0, str(ROOT / "tools"))
    from synthesise_words import synthesise

    partial = WORDS.with_name("words.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    synthesise(partial)
    return partial.rename(WORDS)


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--data", type=Path, help="a folder of WAV files by class; default: synthesised words")
    args = parser.parse_args()
    folder = args.data or synthesised()
    if folder is None:
        print("not measured: espeak-ng is not installed (apt-get install espeak-ng)")
        return 0
    start = time.perf_counter()
    images, test = load(folder, "train", CONFIG.image_size), load(folder, "test", CONFIG.image_size)
    reading = time.perf_counter() - start
    net = build_subnet(CONFIG, OPTIONS.seed)
    result = train(net, images, OPTIONS)
    model = convert(net, images.images[:256], schedule="streamed", board=BOARD, strips=True,
                    class_names=images.class_names, front_end=images.front_end)  # fmt: skip
    float_top1 = evaluate(net, test)
    interpreter = Interpreter(model)
    logits = interpreter(test.images)
    int8_top1 = float((logits.argmax(axis=1) == test.labels).mean())
    exact = bool(np.array_equal(logits, interpreter.reference(test.images)))
    front_end = images.front_end
    arena, network = model.arena_bytes(BOARD), instructions(CONFIG, "m4", strips=True)
    rows = [
        ["clips to train on, to test on", f"{len(images):,}, {len(test):,}"],
        ["reading and front end, seconds", f"{reading:.0f}"],
        ["training, seconds", f"{result.seconds:.0f}"],
        ["float top-1, unseen voices", f"{100 * float_top1:.2f} %"],
        ["int8 top-1, unseen voices", f"{100 * int8_top1:.2f} %"],
        ["arena on a 32-bit board, bytes", f"{arena:,}"],
        ["RAM of the front end, bytes", f"{c_front_end.ram_bytes(front_end):,}"],
        ["model, bytes", f"{model.model_bytes:,}"],
        ["tables of the front end, bytes", f"{c_front_end.table_bytes(front_end):,}"],
        ["instructions of an answer on M4", f"{network / 1e6:.2f} M"],
    ]
    table.show(["synthesised words" if args.data is None else str(folder), ""], rows)
    print()
    predicted = logits.argmax(axis=1)
    columns = list(test.class_names)
    counts = np.zeros((len(columns), len(columns)), int)
    np.add.at(counts, (test.labels, predicted), 1)
    table.show(["said, heard", *columns], [[name, *counts[i].tolist()] for i, name in enumerate(columns)])
    lost, holds = float_top1 - int8_top1, table.requirement
    requirements = [
        holds(f"int8 top-1 at least {100 * LEAST:.0f} %", f"{100 * int8_top1:.2f} %", int8_top1 >= LEAST),
        holds(f"int8 within {100 * MOST_LOST:.0f} % of float", f"{100 * lost:.2f} %", lost <= MOST_LOST),
        holds("every logit equals the integer reference", "yes" if exact else "no", exact),
        holds(f"arena below {MOST_ARENA:,} bytes", f"{arena:,}", arena < MOST_ARENA),
        holds(f"model below {MOST_MODEL:,} bytes", f"{model.model_bytes:,}", model.model_bytes < MOST_MODEL),
        holds(f"training at most {MOST_SECONDS} s", f"{result.seconds:.0f}", result.seconds <= MOST_SECONDS),
    ]
    found = {
        "float_top1": float_top1, "int8_top1": int8_top1, "exact": exact, "arena_bytes": arena,
        "model_bytes": model.model_bytes, "seconds": result.seconds, "instructions": float(network),
    }  # fmt: skip
    return table.finish(found, requirements, args.json)


if __name__ == "__main__":
    sys.exit(main())
