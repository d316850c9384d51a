# SPDX-License-Identifier: Apache-2.0
"""Damages models, makes their checksums anew, runs them, and counts what happens.

    python tools/fuzz_models.py [--count 100000] [--seed 0] [--jobs 2] [--logs build/fuzz]
    python tools/fuzz_models.py --only 1234 [--seed 0] [--save mutant.tflite]

Each mutant is made of a tiny network of tools/fuzz_seeds.py by its number alone, and taken by two entries:

    Interpreter  both engines of mcuformer.Interpreter, two images
    Prepare      as firmware takes it: the check of the model in C++, Prepare and Eval, without what Python reads

Each counts it once:

    refused   one line that says why
    right     the outputs are those of the integer reference of that very file
    unseen    it ran; there is no reference to compare with (Prepare)
    wrong     another output
    raised    an error that is no McuformerError
    hung      no end within a minute
    crashed   the process died

With --logs, an interrupted run of the same code and kernels goes on where it was. Exits with 1 if one was wrong,
raised, hung or crashed.
MCUFORMER_HOST_LIBRARY: the kernels to run, such as those with sanitizers (make fuzz).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from fuzz_mutations import KINDS, SEVERAL, Seed, mutate
from fuzz_seeds import make_seeds
from fuzz_worker import OUTCOMES, PREPARE, READER

import mcuformer
from mcuformer import kernel_library
from mcuformer.nas.append_log import AppendLog

WORKER = Path(__file__).with_name("fuzz_worker.py")
CHUNK = 250  # mutants of one process, and of one line of the log
BAD = OUTCOMES[OUTCOMES.index("wrong") :]


def died(process: subprocess.Popen, printed: str) -> tuple[str, str]:
    """Outcome and words of a process that ended before its time."""
    telling = [line for line in printed.splitlines() if "error" in line.lower() or "SUMMARY" in line]
    if process.returncode == -14:  # SIGALRM
        return "hung", ""
    return "crashed", f"exit status {process.returncode} {telling[0] if telling else printed[-200:]}".strip()


def run_process(path: Path, seed: int, first: int, stop: int) -> Iterator[tuple]:
    """(number, kind, {entry: outcome}, words) of mutants until the first that ends the process."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        command = [sys.executable, str(WORKER), str(path), str(seed), str(first), str(stop)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        at = None
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                number, kind, *rest = json.loads(line)
                at = (number, kind, *rest) if len(rest) == 1 else None
                if at is None:
                    yield number, kind, *rest
        process.wait()
        errors.seek(0)
        printed = errors.read()
    if at is not None:
        outcome, words = died(process, printed)
        yield at[0], at[1], {at[2]: outcome}, [f"{at[2]}: {words}"]
    elif process.returncode != 0:
        raise SystemExit(f"{WORKER.name} failed before mutant {first}: {printed[-2000:]}")


def run_chunk(path: Path, seed: int, first: int, stop: int) -> dict:
    """Counts of a chunk by kind, entry and outcome, and a line for each bad one."""
    found, bad, at = Counter[str](), [], first
    while at < stop:
        for number, kind, outcomes, words in run_process(path, seed, at, stop):
            for entry, outcome in outcomes.items():
                found[f"{kind}|{entry}|{outcome}"] += 1
            if any(outcome in BAD for outcome in outcomes.values()):
                bad.append(f"{number} {kind}: {outcomes} {'; '.join(words)}")
            at = number + 1
    return {"first": first, "stop": stop, "found": dict(found), "bad": bad}


def table(found: Counter[str], entry: str) -> str:
    lines = [f"{entry:30}{'tried':>8}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES)]
    for kind in (*KINDS, SEVERAL):
        counts = [found[f"{kind}|{entry}|{outcome}"] for outcome in OUTCOMES]
        lines.append(f"{kind:30}{sum(counts):>8}" + "".join(f"{count:>9}" for count in counts))
    return "\n".join(lines)


def code_hash(seeds: list[Seed]) -> str:
    """Of all that the counts depend on."""
    package = Path(mcuformer.__file__).parent
    parts = (package, package / "converter", package / "nas")  # links, which rglob does not follow
    digest = hashlib.sha256(pickle.dumps(seeds))
    for path in sorted({file for part in parts for file in part.rglob("*.py")}):
        digest.update(path.read_bytes())
    for path in (*sorted(WORKER.parent.glob("fuzz_*.py")), kernel_library.LIBRARY):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def attack(seeds: list[Seed], arguments: argparse.Namespace) -> Counter[str]:
    """Runs all mutants that the log does not have."""
    path = None
    if arguments.logs is not None:
        arguments.logs.mkdir(parents=True, exist_ok=True)
        path = arguments.logs / f"{code_hash(seeds)}.jsonl"
    log = AppendLog(path, "mcuformer.fuzz/1", {"seed": arguments.seed, "chunk": CHUNK})
    chunks = [(at, min(at + CHUNK, arguments.count)) for at in range(0, arguments.count, CHUNK)]
    known = {(entry["first"], entry["stop"]): entry for entry in log.entries}
    done = [known[chunk] for chunk in chunks if chunk in known]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        file = Path(folder) / "seeds"
        file.write_bytes(pickle.dumps(seeds))
        jobs = [pool.submit(run_chunk, file, arguments.seed, *chunk) for chunk in chunks if chunk not in known]
        try:
            for job in as_completed(jobs):
                log.append(job.result())
                done.append(job.result())
                for line in job.result()["bad"]:
                    print(line, file=sys.stderr)
                show(f"{sum(entry['stop'] - entry['first'] for entry in done):,} of {arguments.count:,} mutants")
        finally:
            pool.shutdown(cancel_futures=True)
    show("")
    return sum((Counter(entry["found"]) for entry in done), Counter())


def show(progress: str) -> None:
    """On a terminal alone."""
    if sys.stderr.isatty():
        print(f"\r{progress:40}\r", end="", file=sys.stderr, flush=True)


def run_only(seeds: list[Seed], number: int, seed: int, save: Path | None) -> None:
    """Prints what becomes of one mutant, and saves it."""
    kind, source, content, weights = mutate(seeds, seed, number)
    print(f"mutant {number} of seed {seed}: {kind}, of {source.name}", flush=True)
    if save is not None:
        save.write_bytes(content)
        if weights is not None:
            save.with_suffix(".weights").write_bytes(weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seeds"
        path.write_bytes(pickle.dumps(seeds))
        subprocess.run([sys.executable, str(WORKER), str(path), str(seed), str(number), str(number + 1)], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--logs", type=Path, help="a folder for counts so far, for an interrupted run")
    parser.add_argument("--only", type=int, help="the number of one mutant")
    parser.add_argument("--save", type=Path, help="with --only: writes it here")
    arguments = parser.parse_args()
    seeds = make_seeds()
    if arguments.only is not None:
        run_only(seeds, arguments.only, arguments.seed, arguments.save)
        return
    found = attack(seeds, arguments)
    entries = [entry for entry in (READER, PREPARE) if any(f"|{entry}|" in key for key in found)]
    print("\n\n".join(table(found, entry) for entry in entries))
    sys.exit(1 if any(key.endswith(BAD) and count for key, count in found.items()) else 0)


if __name__ == "__main__":
    main()
