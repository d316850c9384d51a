# SPDX-License-Identifier: Apache-2.0
"""mcuformer inspect --board: what every op costs on a core, as the instruction model predicts it."""

from __future__ import annotations

from rich.table import Table

from mcuformer.cli.common import out
from mcuformer.converter.estimate.instructions import op_instructions
from mcuformer.converter.estimate.macs import op_macs
from mcuformer.converter.graph import Graph
from mcuformer.cores import Core


def add_instructions(graph: Graph, core: Core, rows: list[dict]) -> None:
    """Prints MACs and instructions of every op and adds them to the rows for JSON; unknown instructions are None."""
    listing = Table("#", "op", "output", "MACs", "instructions", "a MAC")
    for step, (op, row) in enumerate(zip(graph.ops, rows, strict=True), start=1):
        row["macs"], row["instructions"] = op_macs(graph, op), None
        count, ratio = "unknown", ""
        if core.coefficients is not None:
            row["instructions"] = op_instructions(graph, op, core.coefficients)
            count = f"{row['instructions']:,}"
            ratio = f"{row['instructions'] / row['macs']:.2f}" if row["macs"] else ""
        listing.add_row(str(step), op.kind, row["output"], f"{row['macs']:,}", count, ratio)
    out.print(listing)
    if core.coefficients is None:
        out.print(f"instructions on {core.label} are unknown: no counts have been fitted for it")
        return
    macs, total = (sum(row[name] for row in rows) for name in ("macs", "instructions"))
    out.print(
        f"about {total:,} instructions an image on {core.label}, {total / macs:.3f} a MAC (by the model "
        "fitted to counts in QEMU; neither cycles nor time)"
    )
