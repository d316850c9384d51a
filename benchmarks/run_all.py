# SPDX-License-Identifier: Apache-2.0
"""Runs all benchmarks and writes benchmarks/RESULTS.md: every table with its command, date, machine and versions.

    make bench                                 # installs the `bench` extra (tensorflow), then runs this
    python benchmarks/run_all.py op_error      # only some; the others' sections of RESULTS.md stay

Each section says when and where it was measured. RESULTS.md is written at the end, whole or not at all. Exit status 1
if a benchmark failed or a requirement does not hold; the table says which.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from mcuformer.files import write_bytes
from mcuformer.simulator import firmware

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
TITLES = {
    "networks": "Networks A, B, C against stock tools",
    "host_speed": "The host, beside other runtimes",
    "memory": "The arena of every schedule",
    "many_images": "Many images: one process and two, and the reference",
    "feasibility": "The quick answer against the full plan",
    "op_error": "Errors of single ops",
    "residual_stream": "The residual stream",
    "stock_network": "All stock routes",
    "search": "The architecture search",
    "memory_budgets": "What more memory finds",
    "window": "The window of an evolution of the space",
    "space_choices": "What a choice costs that a supernet holds beside others",
    "paper_rule": "How many subnets fit, by the paper's rule",
    "fashion_mnist": "Fashion-MNIST: supernet, search, int8",
    "baselines": "Small CNNs and Vision Transformers at equal training",
    "baselines --set colour": "Small CNNs and Vision Transformers on a colour set",
    "training_options": "What each option of training is worth",
    "input_path": "Batches from image files",
    "evaluation_time": "Evaluation of a supernet's subnets",
    "training_memory": "Memory of training the paper's supernet",
    "cortex_m": "Instructions on simulated Cortex-M",
    "devices": "Every core",
    "streamed_stem": "A convolution stem as one op",
    "external_flash": "DeiT-Tiny with its weights beside the chip",
    "log_mel": "The log-mel front end of sound",
    "spoken_words": "Ten spoken words",
    "pretrained": "A pretrained Dinov2-small",
    "pretrained_sources": "Where its int8 error comes from",
}
IN_QEMU = ("cortex_m", "devices", "streamed_stem", "external_flash", "log_mel")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
PACKAGES = ("mcuformer", "numpy", "torch", "tflite-micro", "tensorflow-cpu", "ai-edge-litert", "onnxruntime")
LAST_LINES = 5  # of the error output of a benchmark that failed


def machine() -> str:
    """CPU model, cores and system."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def run(name: str) -> tuple[str, bool]:
    """(section of RESULTS.md, whether all went well). Also shows what the benchmark prints."""
    print(f"== {name}", file=sys.stderr, flush=True)
    start = datetime.datetime.now()
    script, *options = name.split()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / f"{script}.py"), *options],
        env={**os.environ, **ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True,
    )  # fmt: skip
    seconds = (datetime.datetime.now() - start).total_seconds()
    shown = done.stdout.rstrip()
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:  # just 1: a requirement does not hold
        words = "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
        shown = f"{shown}\nexit status {done.returncode}\n{words}".strip()
    print(shown, flush=True)
    section = (
        f"## {TITLES[name]}\n\n`python benchmarks/{' '.join([f'{script}.py', *options])}`, {start:%Y-%m-%d %H:%M}, "
        f"{seconds:.0f} s, on {machine()}; {versions()}\n\n"
        f"```\n{shown}\n```\n"
    )
    return section, done.returncode == 0


def sections_of(path: Path) -> dict[str, str]:
    """The sections of an earlier RESULTS.md, by benchmark name."""
    if not path.exists():
        return {}
    parts = re.split(r"^(?=## )", path.read_text(), flags=re.MULTILINE)[1:]
    titles = {title: name for name, title in TITLES.items()}
    found = {titles.get(part.splitlines()[0].removeprefix("## ")): part.rstrip("\n") + "\n" for part in parts}
    return {name: part for name, part in found.items() if name}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(TITLES)} (default: all)")
    names = parser.parse_args().benchmarks
    if not names:
        names = [name for name in TITLES if name not in IN_QEMU or firmware.missing_tools() is None]
    if unknown := [name for name in names if name not in TITLES]:
        parser.error(f"unknown benchmark {unknown[0]!r}: use some of {', '.join(TITLES)}")
    sections, good = zip(*map(run, names), strict=True)
    held = {**sections_of(RESULTS), **dict(zip(names, sections, strict=True))}
    text = (
        "# Results\n\nWritten by `make bench` (`benchmarks/run_all.py`), one after the other, one thread each if the "
        "benchmark\ndoes not say more. What a table means stands at the top of its benchmark.\n\n"
    )
    write_bytes(RESULTS, (text + "\n".join(held[name] for name in TITLES if name in held)).encode())
    print(f"wrote {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
