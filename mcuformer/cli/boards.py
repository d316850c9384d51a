# SPDX-License-Identifier: Apache-2.0
"""mcuformer boards: the boards, and the memory they leave for a model."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from mcuformer.boards import BOARDS, Board
from mcuformer.cli.common import JsonOption, app, out, write_json


@dataclass(frozen=True)
class BoardList:
    """All boards, in the table's order."""

    boards: tuple[Board, ...]

    def to_dict(self) -> dict:
        """What --json writes."""
        rows = [
            {
                "name": board.name, "mcu": board.mcu, "core": board.core.name, "sram_bytes": board.sram_bytes,
                "sram_budget": board.sram_budget, "flash_bytes": board.flash_bytes, "flash_budget": board.flash_budget,
                "external_flash_bytes": board.external_flash_bytes,
            }
            for board in self.boards
        ]  # fmt: skip
        return {"boards": rows}


def boards() -> BoardList:
    """The boards that a model can be fitted to."""
    return BoardList(tuple(BOARDS.values()))


def show(listed: BoardList) -> None:
    table = Table("board", "MCU", "core", "SRAM", "for the arena", "flash", "for the model", "flash beside it")
    for board in listed.boards:
        flash = "-" if board.flash_bytes is None else f"{board.flash_bytes:,}"
        budget = "-" if board.flash_budget is None else f"{board.flash_budget:,}"
        clock = "" if board.clock_mhz is None else f" {board.clock_mhz} MHz"
        table.add_row(
            board.name,
            board.mcu,
            board.core.name + clock,
            f"{board.sram_bytes:,}",
            f"{board.sram_budget:,}",
            flash,
            budget,
            f"{board.external_flash_bytes:,}" if board.external_flash_bytes else "-",
        )
    out.print(table)
    out.print("All sizes in bytes; the budgets are what the firmware leaves (estimates, see mcuformer/boards.py).")


@app.command("boards")
def command(json_file: JsonOption = None) -> None:
    """List the boards and the memory they leave for a model."""
    listed = boards()
    show(listed)
    write_json(json_file, listed.to_dict())
