# SPDX-License-Identifier: Apache-2.0
"""The table of cores: what it says is what the compiler does, and a core with gaps is no dead end."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY, structured_images

from mcuformer import convert, sources
from mcuformer.boards import BOARDS, KB, Board, get_board
from mcuformer.cli.budget import describe
from mcuformer.cli.firmware import choose_machine
from mcuformer.converter.ops.packed_weights import PAIRS
from mcuformer.converter.passes.packing import packing_of
from mcuformer.cores import CORES, ISAS, Core, get_core
from mcuformer.errors import ConfigError
from mcuformer.nas.cost import Budget, board_budget, cost_of
from mcuformer.simulator import arduino_build, firmware, firmware_model

CORE = Core("m35p", "Cortex-M35P", "Cortex-M35P", "dsp", "pairs", ("-mthumb", "-mcpu=cortex-m35p"))
M35P = Board(
    name="my-m35p", mcu="a chip", core=CORE, clock_mhz=100, sram_bytes=256 * KB, flash_bytes=1024 * KB,
    reserved_sram_bytes=32 * KB, reserved_flash_bytes=128 * KB,
)  # fmt: skip
every_core = pytest.mark.parametrize("core", CORES.values(), ids=CORES)


@pytest.fixture
def m35p(monkeypatch) -> Board:
    """A board whose core has neither a machine nor coefficients, in the table of boards."""
    monkeypatch.setitem(BOARDS, M35P.name, M35P)
    assert M35P.core.machine is None and M35P.core.coefficients is None
    return M35P


@every_core
def test_flags_choose_the_kernels_that_the_table_names(core):
    skip_without_tools(core)
    header = sources.c_kernel_folder() / "mcuf_target.h"
    command = [f"{core.toolchain}gcc", *core.flags, "-E", "-dM", "-include", str(header), "-x", "c", "-"]
    macros = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    chosen = [isa for isa in ISAS if f"#define MCUF_{isa.upper()} 1" in macros]
    assert chosen == [core.isa]
    assert core.packing == ("pairs" if core.isa == "dsp" else "rows")


def skip_without_tools(core):
    if missing := firmware.missing_tools(core):
        pytest.skip(missing)


@pytest.mark.parametrize("core", [core for core in CORES.values() if core.machine is None], ids=lambda core: core.key)
def test_kernels_compile_for_cores_that_nothing_simulates(core, tmp_path):
    skip_without_tools(core)
    objects = firmware.compile_objects(
        sources.c_kernel_sources(), core, tmp_path, [sources.c_kernel_folder()], firmware_model.MODEL_FLAGS
    )
    listing = subprocess.run(
        [f"{core.toolchain}objdump", "-d", *objects], capture_output=True, text=True, check=True
    ).stdout
    assert ("\tsmlad" in listing) == (core.isa == "dsp")


def test_a_name_a_key_or_a_core_and_nothing_else():
    assert get_core("Cortex-M4F") is get_core("Cortex-M4") is get_core("m4") is CORES["m4"]
    assert get_board("nano33ble").core is CORES["m4"] and M35P.core is CORE
    names = ", ".join(core.name for core in CORES.values())
    with pytest.raises(ConfigError, match=f"core 'Cortex-A53' is unknown; choose one of {names.replace('+', '.')}"):
        dataclasses.replace(M35P, core="Cortex-A53")
    with pytest.raises(ConfigError, match="packing 'quads' must be one of rows, pairs"):
        dataclasses.replace(CORES["m4"], packing="quads")


@every_core
def test_a_machine_belongs_to_its_core(core):
    if core.machine is None:
        pytest.skip("nothing simulates it")
    assert core.machine.core is core and firmware.get_machine(core.machine.name).core is core
    other = dataclasses.replace(core, flags=("-Os",))
    assert other.machine.core is other and core.machine.core is core


def test_arduino_builds_with_its_own_flags():
    machine = arduino_build.machine_of(get_board("nano33ble"))
    assert machine.name == "mps2-an386" and "-mfloat-abi=softfp" in machine.core.flags
    assert arduino_build.machine_of(get_board("corstone300")) is None and arduino_build.machine_of(M35P) is None


def test_a_model_for_an_m35p_has_its_weights_in_pairs(m35p, tiny_net, tiny_images):
    assert packing_of(m35p) == PAIRS
    model = convert(tiny_net, tiny_images[:4], board=m35p.name)
    assert PAIRS in {getattr(op.options, "packing", None) for op in model.graph.ops}


def test_a_board_that_nothing_simulates_is_one_line(m35p):
    message = r"--board my-m35p has a Cortex-M35P, which nothing here simulates; .* mps2-an386 \(Cortex-M4\), "
    for on in (None, "mps2-an386"):
        with pytest.raises(ConfigError, match=message):
            choose_machine(on, m35p.name, None, None)


def test_instructions_are_unknown_until_a_budget_asks_for_them(m35p):
    cost = cost_of(TINY, m35p)
    assert cost.instructions is None and cost.sram > 0 and cost.flash > 0
    assert describe(TINY, cost).endswith("bytes, instructions unknown")
    budget = board_budget(m35p, None, None, None)
    assert budget == Budget(m35p.sram_budget, m35p.flash_budget) and budget.admits(cost)
    with pytest.raises(
        ConfigError, match=r"my-m35p: the instructions of its Cortex-M35P are unknown \(known: Cortex-M0\+, "
    ):
        board_budget(m35p, None, None, 10**6)
    with pytest.raises(ConfigError, match="a budget of instructions: "):
        Budget(instructions=10**6).admits(cost)


def command_with_it(*arguments) -> subprocess.CompletedProcess:
    """The command line, with one more board."""
    fields = {f.name: getattr(M35P, f.name) for f in dataclasses.fields(M35P)} | {"core": None}
    core = {f.name: getattr(CORE, f.name) for f in dataclasses.fields(CORE)}
    code = (
        "from mcuformer.boards import BOARDS, Board; from mcuformer.cores import Core; from mcuformer.cli import main; "
        f"BOARDS['my-m35p'] = Board(**{fields!r} | dict(core=Core(**{core!r}))); main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_commands_with_such_a_board(tiny_net, tiny_images, tmp_path):
    images, labels = structured_images(TINY, 12), np.arange(12) % TINY.num_classes
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6])
    convert(tiny_net, tiny_images, class_names=list("abcde")).save(tmp_path / "model.tflite")
    done = command_with_it("run", tmp_path / "model.tflite", "--data", tmp_path / "data.npz", "--board", "my-m35p")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: --board my-m35p has a Cortex-M35P") and done.stderr.count("\n") == 1
    done = command_with_it(
        "inspect", tmp_path / "model.tflite", "--board", "my-m35p", "--json", tmp_path / "inspect.json"
    )
    assert done.returncode == 0 and "instructions on Cortex-M35P are unknown" in done.stdout
    rows = json.loads((tmp_path / "inspect.json").read_text())["ops"]
    assert sum(row["macs"] for row in rows) == TINY.macs and {row["instructions"] for row in rows} == {None}
    done = command_with_it("boards", "--json", tmp_path / "boards.json")
    listed = {row["name"]: row["core"] for row in json.loads((tmp_path / "boards.json").read_text())["boards"]}
    assert listed["my-m35p"] == "Cortex-M35P" and listed["nano33ble"] == "Cortex-M4F"


def test_a_new_core_is_one_entry():
    core = Core("m52", "Cortex-M52", "Cortex-M52", "mve", "rows", ("-mthumb", "-mcpu=cortex-m52"))
    board = dataclasses.replace(M35P, core=core)
    assert board.core is core and cost_of(TINY, board).instructions is None
