# SPDX-License-Identifier: Apache-2.0
"""What README, docs and examples show works: imports, dotted names, snippets, commands with their options.

What those of version 0.1.0 showed is written down here, and works for good; what today's show is read from them.
"""

import ast
import dataclasses
import functools
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mcuformer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PROGRAMS = sorted((ROOT / "examples").rglob("*.py"))

# Dotted names of version 0.1.0's documents. Where their module moved, one of this name re-exports them.
SHOWN_IN_0_1_0 = """
mcuformer.SubnetConfig
mcuformer.convert
mcuformer.Interpreter
mcuformer.run_op
mcuformer.data.load
mcuformer.nas.build_subnet
mcuformer.nas.train
mcuformer.nas.SuperNet
mcuformer.nas.search.search
mcuformer.boards.Board
mcuformer.boards.get_board
mcuformer.converter.instructions.instructions
mcuformer.converter.feasibility.arena_bytes
mcuformer.converter.feasibility.board_arena_bytes
""".split()

# "Use it" of its README, and what docs/memory.md went on with.
README_0_1_0 = """
import mcuformer
from mcuformer import SubnetConfig, convert, Interpreter

data = mcuformer.data.load("fashion-mnist", "train")  # uint8 NHWC images and labels
config = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=10)
net = mcuformer.nas.build_subnet(config)  # a torch.nn.Module; train it with mcuformer.nas.train
model = convert(net, calibration=data.images[:256], schedule="streamed", board="nano33ble")
model.save("model.tflite")

interpreter = Interpreter("model.tflite")  # the official interpreter, with our kernels
logits = interpreter(data.images[:100])  # equal, bit for bit, to model.reference(images)
interpreter.arena_used_bytes, interpreter.invoke_ms, interpreter.layer_outputs(data.images[0])
model.plan.head_bytes, model.plan.arena_bytes
model.arena_bytes("nano33ble")
"""

# The entry that docs/add_a_board.md had: the core by its name.
BOARD_0_1_0 = """
Board(
    name="my-board",
    mcu="STM32F446",
    core="Cortex-M4F",
    clock_mhz=180,
    sram_bytes=128 * KB,
    flash_bytes=512 * KB,
    reserved_sram_bytes=24 * KB,
    reserved_flash_bytes=96 * KB,
)
"""

COMMANDS_0_1_0 = """
mcuformer train --data DATA --set depth=4 -o subnet.pt
mcuformer train --space fashion-mnist --data fashion-mnist-full --init supernet.pt --checkpoint state.pt -o supernet.pt
mcuformer evolve --space mcuformer --board stm32f427 --folder evolution -o space.yaml
mcuformer search supernet.pt --board nano33ble --sram 32KB --instructions 50M --log-file search.jsonl --plot front.png
mcuformer finetune subnet.pt --quantised -o finetuned.pt
mcuformer convert subnet.pt --data DATA --board nano33ble --report --strips --images 100 -o model.tflite
mcuformer run model.tflite --data DATA --reference
mcuformer run model.tflite --on mps2-an386 --ram-bytes 1000 --flash-bytes 1000 --json result.json
mcuformer inspect model.tflite --plot plan.png --board nano33ble --sizes
mcuformer export model.tflite --to c --image caller -o DIR
mcuformer export model.tflite --to arduino --data DATA -o DIR --zip
mcuformer boards --json boards.json
mcuformer demo --json demo.json
""".strip().splitlines()


def resolve(name: str):
    """The object of a dotted name: the longest module, then attributes, as a program reaches it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[count:], found)
    raise ModuleNotFoundError(name)


def python_of(path: Path) -> list[str]:
    if path.suffix == ".py":
        return [path.read_text()]
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def names_in_code(code: str) -> set[str]:
    """Imports, with what they take, and attributes of `mcuformer`, as far as the dots go."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if re.fullmatch(r"mcuformer(\.\w+)+", dotted):
                names.add(dotted)
    return {name for name in names if name.split(".")[0] == "mcuformer"}


def names_in_text(text: str) -> set[str]:
    """Dotted names and imports in backticks; what a call in them names, without its arguments."""
    names = set()
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if match := re.fullmatch(r"from (mcuformer[\w.]*) import (\w+(?:, \w+)*)", quoted):
            names.update(f"{match[1]}.{name}" for name in match[2].split(", "))
        elif match := re.match(r"(?:import )?(mcuformer(?:\.\w+)+)(?:\(.*\))?$", quoted):
            names.add(match[1])
    return names


def shown_today() -> list[str]:
    names = set()
    for path in [*DOCUMENTS, *PROGRAMS]:
        for code in python_of(path):
            names |= names_in_code(code)
        if path.suffix == ".md":
            names |= names_in_text(path.read_text())
    return sorted(names)


def commands_today() -> list[str]:
    """Lines and quotations that call mcuformer, also as a module under torchrun."""
    found = set()
    for path in DOCUMENTS:
        text = re.sub(r"\\\n", " ", path.read_text())
        lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
        for quoted in [*re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text), *lines]:
            if match := re.match(r"(?:torchrun .*-m )?(mcuformer [a-z]+(?: .*)?)$", quoted):
                found.add(match[1])
    return sorted(found)


@functools.cache
def options_of(command: str) -> set[str]:
    """The options that a command's --help lists."""
    code = "from mcuformer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "300", "TERM": "dumb"},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", done.stdout))


def check_command(line: str) -> None:
    command, *words = line.split()[1:]
    unknown = [word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word) and word not in options_of(command)]
    assert not unknown, f"{line}: mcuformer {command} has no {', '.join(unknown)}"


@pytest.mark.parametrize("name", SHOWN_IN_0_1_0)
def test_a_name_that_was_shown(name):
    assert resolve(name) is not None


def test_moved_names_are_the_same_objects():
    from mcuformer.converter.estimate import feasibility, instructions

    assert resolve("mcuformer.converter.instructions.instructions") is instructions.instructions
    assert resolve("mcuformer.converter.feasibility.board_arena_bytes") is feasibility.board_arena_bytes


# Modules that the documents of 0.1.0 named by their files -> where they are now, and a name of each.
MOVED_FILES = {
    "mcuformer.converter.stream": "mcuformer.converter.passes.streamed.streamed",
    "mcuformer.converter.strips": "mcuformer.converter.passes.strips.in_strips",
    "mcuformer.converter.staging": "mcuformer.converter.passes.staging.staged",
    "mcuformer.converter.memory_plan": "mcuformer.converter.memory.plan.plan",
    "mcuformer.converter.macs": "mcuformer.converter.estimate.macs.op_macs",
    "mcuformer.firmware": "mcuformer.simulator.firmware.get_machine",
}


@pytest.mark.parametrize("old", MOVED_FILES)
def test_a_module_that_was_named_by_its_file_is_still_there(old):
    new = MOVED_FILES[old]
    assert resolve(f"{old}.{new.rpartition('.')[2]}") is resolve(new)


@pytest.mark.parametrize("name", shown_today())
def test_a_name_that_is_shown(name):
    assert resolve(name) is not None


def test_the_documents_are_read():
    """Their names are found in code, in backticks, and as imports in backticks."""
    assert {"mcuformer.convert", "mcuformer.data.load", "mcuformer.nas.SuperNet"} <= set(shown_today())
    assert any(line.startswith("mcuformer export") for line in commands_today())
    assert names_in_text("see `from mcuformer.nas.search import search, front_of`, `mcuformer.run_op(x, 1)`") == {
        "mcuformer.nas.search.search", "mcuformer.nas.search.front_of", "mcuformer.run_op",
    }  # fmt: skip
    with pytest.raises((ModuleNotFoundError, AttributeError)):
        resolve("mcuformer.converter.no_such_module.name")


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if python_of(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_snippets_are_python(path):
    for code in python_of(path):
        ast.parse(code)


@pytest.mark.parametrize("line", sorted({*COMMANDS_0_1_0, *commands_today()}))
def test_a_command_that_is_shown_has_its_options(line):
    check_command(line)


def test_an_option_that_is_not_there_is_noticed():
    with pytest.raises(AssertionError, match="has no --no-such"):
        check_command("mcuformer boards --no-such 1")


def run_snippet(code: str, folder: Path, monkeypatch) -> dict:
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def readme_0_1_0(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return folder, run_snippet(README_0_1_0, folder, monkeypatch)


def test_the_first_snippet_of_0_1_0_runs(readme_0_1_0):
    _, shown = readme_0_1_0
    assert np.array_equal(shown["logits"], shown["model"].reference(shown["data"].images[:100]))


def test_the_first_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    shown = run_snippet(python_of(ROOT / "README.md")[0], tmp_path, monkeypatch)
    assert any(isinstance(value, mcuformer.Interpreter) for value in shown.values())


def test_the_python_example_runs(readme_0_1_0):
    folder, _ = readme_0_1_0
    program = ROOT / "examples" / "python" / "classify.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(mcuformer.__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, str(program), "model.tflite"], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "logits equal to the numpy reference: True" in done.stdout


def test_run_op_as_shown():
    """IntLayerNorm with the arguments of 0.1.0's README."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 4, 8), dtype=np.int8)
    gamma, beta = rng.integers(1, 1000, 8).astype(np.int16), rng.integers(-1000, 1000, 8).astype(np.int32)
    y = mcuformer.run_op("IntLayerNorm", {"input": x}, {"gamma": gamma, "beta": beta}, {"zero_point": 0, "epsilon": 40})
    assert y.shape == x.shape and y.dtype == np.int8


@pytest.mark.parametrize("of", ["0.1.0", "today"])
def test_a_board_as_docs_add_a_board_shows_it(of):
    """An entry of the table in mcuformer/boards.py, with the names that module has."""
    from mcuformer import boards

    shown = BOARD_0_1_0.strip() if of == "0.1.0" else python_of(ROOT / "docs" / "add_a_board.md")[0]
    board = eval(shown, dict(vars(boards)))
    assert isinstance(board, boards.Board) and 0 < board.sram_budget < board.sram_bytes
    smaller = dataclasses.replace(boards.get_board("nano33ble"), reserved_sram_bytes=48 * 1024)
    assert smaller.sram_budget == 208 * 1024
