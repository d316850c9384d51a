# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
from command_line import mcuformer, mistake
from conftest import TINY, lively_subnet, structured_images

from mcuformer import convert, measured
from mcuformer.board_file import with_time, write_board
from mcuformer.boards import BOARDS, Measurement, get_board
from mcuformer.cli.boards import boards
from mcuformer.cli.inspect import inspect
from mcuformer.converter.export.registry import export
from mcuformer.errors import ConfigError, McuformerError


@pytest.mark.parametrize(
    ("name", "sram_kb", "flash_kb", "clock_mhz"),
    [
        ("nano33ble", 256, 1024, 64),
        ("portenta-h7", 512, 2048, 480),
        ("stm32f427", 256, 1024, 180),
        ("stm32f746", 320, 1024, 216),
        ("stm32h743", 512, 2048, 480),
        ("corstone300", 4096, None, None),
        ("pico", 264, 2048, 133),
        ("pico2", 520, 4096, 150),
        ("pico2-riscv", 520, 4096, 150),
        ("nrf5340dk", 512, 1024, 128),
        ("nrf52840dk", 256, 1024, 64),
        ("b-u585i", 768, 2048, 160),
        ("nucleo-h563zi", 640, 2048, 250),
        ("blackpill-f411", 128, 512, 100),
        ("nucleo-h743zi", 512, 2048, 480),
        ("giga-r1", 512, 2048, 480),
        ("nicla-vision", 512, 2048, 480),
        ("openmv-h7", 512, 2048, 480),
        ("uno-r4", 32, 256, 48),
        ("nano-esp32", 512, 16384, 240),
        ("esp32-s3", 512, 8192, 240),
        ("xiao-esp32s3-sense", 512, 8192, 240),
        ("esp32-c3", 400, 4096, 160),
        ("alif-e3", 4096, 5632, 400),
        ("ek-ra8m1", 896, 2048, 480),
    ],
)
def test_board_has_the_memory_of_its_chip(name, sram_kb, flash_kb, clock_mhz):
    board = get_board(name)
    assert board.name == name
    assert board.sram_bytes == sram_kb * 1024
    assert board.flash_bytes == (None if flash_kb is None else flash_kb * 1024)
    assert board.clock_mhz == clock_mhz


def test_every_board_says_where_its_sizes_are_from():
    assert [board.name for board in BOARDS.values() if not board.source.startswith("https://")] == []


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_firmware_leaves_part_of_the_memory_to_the_model(board):
    assert 0 < board.sram_budget < board.sram_bytes
    if board.flash_bytes is None:
        assert board.flash_budget is None
    else:
        assert 0 < board.flash_budget < board.flash_bytes


def test_arena_of_stm32f427_is_one_piece():
    assert get_board("stm32f427").sram_budget <= 192 * 1024


def test_user_can_override_what_firmware_keeps():
    board = dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=1000, reserved_flash_bytes=0)
    assert board.sram_budget == 256 * 1024 - 1000
    assert board.flash_budget == 1024 * 1024


def test_unknown_board_names_all_boards():
    with pytest.raises(ConfigError) as error:
        get_board("uno")
    assert str(error.value) == f"board 'uno' is unknown; choose one of {', '.join(BOARDS)}, or give a YAML file"
    assert isinstance(error.value, McuformerError)


@pytest.mark.parametrize("reserved", [-1, 256 * 1024 + 1])
def test_reserving_more_than_there_is_or_less_than_nothing_is_an_error(reserved):
    with pytest.raises(ConfigError, match=r"nano33ble: reserved SRAM of -?\d+ bytes is outside .* give a value"):
        dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=reserved)


MINE = """
name: my-board
mcu: STM32F446
core: Cortex-M4
clock_mhz: 180
sram_bytes: 128 KB
flash_bytes: 524288
reserved_sram_bytes: 24KB
reserved_flash_bytes: 96KB
"""


@pytest.fixture
def mine(tmp_path):
    """Writes a board's file, with some of its text replaced; returns its path."""

    def write(old="", new=""):
        assert old in MINE
        (tmp_path / "mine.yaml").write_text(MINE.replace(old, new) if old else MINE)
        return str(tmp_path / "mine.yaml")

    return write


def test_a_board_in_a_yaml_file(mine):
    board = get_board(mine())
    assert (board.name, board.core, board.sram_budget) == ("my-board", get_board("nano33ble").core, 104 * 1024)
    assert get_board(mine("flash_bytes: 524288", "flash_bytes: null")).flash_budget is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mcu:", "cpu:", "'cpu' is no key of a board; it has name, mcu, core, "),
        ("mcu: STM32F446", "", "mcu is missing; a board needs name, mcu, core, clock_mhz, "),
        ("128 KB", "128 kilobytes", "sram_bytes = '128 kilobytes': must be a whole number of bytes, or text such as "),
        ("128 KB", "yes", "sram_bytes = True: must be a whole number"),
        ("128 KB", "-1", "sram_bytes = -1: must be a whole number of bytes, .*, at least 1"),
        (
            "clock_mhz: 180",
            "clock_mhz: 180\ncycle_factor: 0",
            "cycle_factor = 0: must be a number above 0, at most 1000",
        ),
        ("180", "fast", "clock_mhz = 'fast': must be a whole number of MHz, at least 1"),
        ("STM32F446", "446", "mcu = 446: must be one line of text"),
        ("Cortex-M4", "Cortex-A53", "core 'Cortex-A53' is unknown; choose one of "),
        ("24KB", "129KB", "board my-board: reserved SRAM of 132096 bytes is outside"),
        (MINE, "- a\n- b\n", "holds no keys; a board has name, "),
        (MINE, "a: [", "not YAML"),
    ],
)
def test_a_mistake_in_a_boards_file_is_one_line(old, new, message, mine):
    path = mine(old, new)
    with pytest.raises(ConfigError, match=f"^{path}: {message}") as error:
        get_board(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="none.yml: cannot be read"):
        get_board("none.yml")


def test_a_model_made_for_a_board_in_a_file_keeps_its_name_and_core(mine, tmp_path):
    made = convert(lively_subnet(TINY, 1), structured_images(TINY, 4), board=mine("Cortex-M4", "Cortex-M55"))
    assert (made.board, made.core) == ("my-board", "m55") and str(tmp_path) not in str(made.info)
    made.save(tmp_path / "mine.tflite")
    exported = export(tmp_path / "mine.tflite", "c", tmp_path / "out")
    assert any(line.startswith("weights packed for") and "Cortex-M55" in line for line in exported.lines)


def test_boards_are_listed_by_core_and_models_fitted(mine, tmp_path):
    model = convert(lively_subnet(TINY, 1), structured_images(TINY, 4))
    model.save(tmp_path / "tiny.tflite")
    listed = boards([tmp_path / "tiny.tflite"])
    cores = [board.core.key for board in listed.boards]
    assert len(set(cores)) == sum(a != b for a, b in zip(cores, [None, *cores[:-1]], strict=True))
    found = {fit.board: fit for fit in listed.fits}
    assert list(found) == [board.name for board in listed.boards] and set(found) == set(BOARDS)
    assert all(fit.fits and fit.ms is None for fit in found.values())
    assert found["pico"].arena_bytes == model.arena_bytes("pico") and found["pico"].model_bytes == model.model_bytes
    assert found["ek-ra8m1"].instructions is None is found["esp32-s3"].instructions
    assert found["pico"].instructions > found["nano33ble"].instructions > found["corstone300"].instructions > 1000
    small = mine("128 KB", "25 KB")
    [fit] = boards([tmp_path / "tiny.tflite"], small).fits
    assert not fit.fits and fit.arena_over == fit.arena_bytes - 1024 and fit.model_over == 0


def test_a_measured_time_is_the_boards(tiny_model, tmp_path):
    """And of this model alone."""
    path = tmp_path / "tiny.tflite"
    tiny_model.save(path)
    measured.write(measured.path_of(path), path.read_bytes(), {"nano33ble": {"ms": 41.25}})
    assert {fit.board: fit.ms for fit in boards([path]).fits if fit.ms is not None} == {"nano33ble": 41.25}
    measured.write(measured.path_of(path), b"another model", {"nano33ble": {"ms": 41.25}})
    assert all(fit.ms is None for fit in boards([path]).fits)


def test_the_command_says_whether_models_fit(mine, tmp_path):
    convert(lively_subnet(TINY, 1), structured_images(TINY, 4)).save(tmp_path / "tiny.tflite")
    done = mcuformer("boards", "--board", mine("128 KB", "25 KB"), "--model", tmp_path / "tiny.tflite")
    assert "my-board" in done.stdout and "no: arena " in done.stdout
    assert " about " in done.stdout and "without the wait states of flash and cache misses" in done.stdout
    assert "choose one of nano33ble" in mistake("boards", "--board", "none")
    converted = mistake("inspect", tmp_path / "tiny.tflite", "--board", mine("Cortex-M4", "Cortex-A53"))
    assert "mine.yaml: core 'Cortex-A53' is unknown" in converted


def time_of(model, instructions, ms):
    return Measurement(
        f"{model}.tflite", measured.identity(model.encode()), instructions, ms, 20, "0.1.0", "2026-11-27"
    )


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_measured_time_is_added_to_a_boards_file_beside_what_is_there(ends, mine):
    path = mine("core:", "# which one?\ncore:")
    commented = MINE.replace("core:", "# which one?\ncore:").strip().replace("\n", ends)
    with open(path, "w", newline="") as file:
        file.write(commented)  # without an end of its last line
    before = get_board(path)
    for time in (time_of("a", 1000, 4.0), time_of("b", None, 7.0), time_of("a", 1000, 5.0)):
        text = with_time(path, time)
        with open(path, "w", newline="") as file:
            file.write(text)
        assert text.startswith(commented) and text.count("measured:") == 1
    times = (time_of("b", None, 7.0), time_of("a", 1000, 5.0))
    assert get_board(path) == dataclasses.replace(before, measured=times)
    behind = f"{text}note: behind the times{ends}"
    with open(path, "w", newline="") as file:
        file.write(behind)
    again = with_time(path, time_of("c", 9, 1.0))
    assert again.endswith(f"note: behind the times{ends}") and again.count("measured:") == 1
    assert again.count("model:") == 3


def test_a_file_that_no_time_can_be_added_to_is_one_line(tmp_path):
    path = tmp_path / "flow.yaml"
    pairs = ", ".join(line for line in MINE.strip().splitlines())
    path.write_text(f"{{{pairs}}}")
    assert get_board(str(path)).name == "my-board"
    with pytest.raises(ConfigError, match=r"flow.yaml: .* cannot be added .* write each key on a line of its own"):
        with_time(path, time_of("a", 1, 1.0))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("measured: 4 ms", "measured = '4 ms': must be a list, as check-board writes it"),
        ("measured: [{ms: 4}]", r"measured\[0\] = {'ms': 4}: must have model, sha256, instructions, ms"),
        ("measured: [{model: a, sha256: b, instructions: 0, ms: 1, images: 1, version: v, date: 2026-11-27}]",
         r"measured\[0\].instructions = 0: cannot be; remove this entry"),
        ("measured: [{model: a, sha256: b, instructions: 1, ms: .inf, images: 1, version: v, date: 2026-11-27}]",
         r"measured\[0\].ms = inf: cannot be"),
    ],
)  # fmt: skip
def test_a_mistake_in_measured_times_is_one_line(section, message, mine, tmp_path):
    path = mine("name:", f"{section}\nname:")
    with pytest.raises(ConfigError, match=f"^{path}: {message}"):
        get_board(path)


def test_times_are_estimated_from_the_nearest_measured_model(mine, tmp_path):
    """And not where the instructions of one or the other are unknown."""
    board = get_board(mine())
    assert board.estimated_ms(1000) is None and board.estimate_rule(1000) == ""
    times = (time_of("small", 1000, 4.0), time_of("large", 100_000, 300.0), time_of("unknown", None, 1.0))
    board = dataclasses.replace(board, measured=times)
    assert board.estimated_ms(2000) == 8.0 and board.estimated_ms(50_000) == 150.0
    assert board.estimated_ms(9_999) == pytest.approx(39.996)
    assert board.estimated_ms(10_001) == pytest.approx(30.003)
    assert board.estimated_ms(None) is None
    rule = "my-board: about 8.000 ms an image, an estimate: 4.000 ms measured for small.tflite, times 2,000 predicted"
    assert board.estimate_rule(2000) == f"{rule} instructions over its 1,000"
    assert board.measured_ms(times[1].sha256) == 300.0 and board.measured_ms("") is None


def test_without_a_measured_model_cycles_are_estimated(mine, tmp_path):
    """On a core whose instructions' cycles are published, at the board's clock, by the rule that commands print."""
    model = convert(lively_subnet(TINY, 1), structured_images(TINY, 4), board="nano33ble")
    model.save(tmp_path / "tiny.tflite")
    path = mine("clock_mhz: 180", "clock_mhz: 180\ncycle_factor: 1.5")
    board = get_board(path)
    assert board.estimated_ms(1000, 180_000) == 1.5 and board.estimated_ms(1000) is None
    assert dataclasses.replace(board, measured=(time_of("a", 500, 4.0),)).estimated_ms(1000, 180_000) == 8.0
    assert dataclasses.replace(board, clock_mhz=None).estimated_ms(1000, 180_000) is None
    inspected = inspect(tmp_path / "tiny.tflite", board=path)
    total = sum(row.cycles for row in inspected.ops)
    assert inspected.estimated_ms == pytest.approx(1.5 * total / 180_000)
    printed = mcuformer("inspect", tmp_path / "tiny.tflite", "--board", path).stdout
    assert (
        f"my-board: about {inspected.estimated_ms:.3f} ms an image, an estimate: {total:,} cycles times 1.5" in printed
    )
    assert f"about {total:,} cycles, " in printed and "without the wait states of flash and cache misses" in printed
    fits = {fit.board: fit for fit in boards([tmp_path / "tiny.tflite"]).fits}
    assert fits["nano33ble"].estimated_ms == pytest.approx(total / 64_000)
    assert fits["stm32h743"].instructions and fits["stm32h743"].estimated_ms is fits["stm32h743"].cycles is None
    printed = mcuformer("inspect", tmp_path / "tiny.tflite", "--board", "stm32h743").stdout
    assert "cycles on Cortex-M7 are unknown: " in printed and " ms an image" not in printed


def test_the_commands_estimate_the_times_of_other_models(mine, tmp_path):
    model = convert(lively_subnet(TINY, 1), structured_images(TINY, 4), board="nano33ble")
    model.save(tmp_path / "tiny.tflite")
    path = mine()
    (fit,) = boards([tmp_path / "tiny.tflite"], path).fits
    assert (
        fit.ms is None and fit.estimated_ms == pytest.approx(fit.cycles / 180_000) and fit.cycles > fit.instructions > 0
    )
    (tmp_path / "mine.yaml").write_text(with_time(path, time_of("other", 2 * fit.instructions, 8.0)))
    (estimated,) = boards([tmp_path / "tiny.tflite"], path).fits
    assert estimated.estimated_ms == 4.0 and estimated.ms is None
    rule = "my-board: about 4.000 ms an image, an estimate: 8.000 ms measured for other.tflite"
    for command in (("boards", "--model"), ("inspect",)):
        assert rule in mcuformer(*command, tmp_path / "tiny.tflite", "--board", path).stdout
    own = dataclasses.replace(time_of("tiny", 1, 3.0), sha256=measured.identity(model.content))
    (tmp_path / "mine.yaml").write_text(with_time(path, own))
    assert boards([tmp_path / "tiny.tflite"], path).fits[0].ms == 3.0
    assert inspect(tmp_path / "tiny.tflite", board=path).measured == {"my-board": 3.0}


def test_a_board_of_the_table_becomes_a_file(tmp_path):
    for name in BOARDS:
        write_board(tmp_path / f"{name}.yaml", get_board(name))
        assert get_board(str(tmp_path / f"{name}.yaml")) == get_board(name)
    path = tmp_path / "pico.yaml"
    assert "is there already; give another name" in mistake("boards", "--board", "pico", "--write", path)
    assert "of which board? Give --board too" in mistake("boards", "--write", tmp_path / "a.yaml")
    assert "ends in .yaml or .yml" in mistake("boards", "--board", "pico", "--write", tmp_path / "a.txt")
    done = mcuformer("boards", "--board", "pico", "--write", tmp_path / "a.yaml")
    assert f"wrote {tmp_path / 'a.yaml'}" in done.stdout and (tmp_path / "a.yaml").read_text() == path.read_text()
