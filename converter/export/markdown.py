# SPDX-License-Identifier: Apache-2.0
"""Lines of generated Markdown, which names of models make longer than any template shows."""

from __future__ import annotations

import textwrap

WIDTH = 120


def wrapped(text: str) -> str:
    """The text with its paragraphs and list entries filled again where a line is too long. Headings, tables and code
    stay as they are."""
    done: list[str] = []
    block: list[str] = []
    fenced = False

    def finish() -> None:
        if any(len(line) > WIDTH for line in block):
            start = block[0][: len(block[0]) - len(block[0].lstrip())]
            hanging = start + ("  " if block[0].lstrip().startswith("- ") else "")
            words = " ".join(line.strip() for line in block)
            done.extend(
                textwrap.wrap(
                    words, WIDTH, initial_indent=start, subsequent_indent=hanging, break_long_words=False,
                    break_on_hyphens=False,
                )
            )  # fmt: skip
        else:
            done.extend(block)
        block.clear()

    for line in text.split("\n"):
        bare = line.lstrip()
        fence = bare.startswith("```")
        if fenced or fence or not bare or bare.startswith(("#", "|")):
            finish()
            done.append(line)
            fenced ^= fence
        elif bare.startswith("- "):
            finish()
            block.append(line)
        else:
            block.append(line)
    finish()
    return "\n".join(done)
