# SPDX-License-Identifier: Apache-2.0
"""The C API page, made from the public headers: their comments as text, their declarations as code.

Public headers of the C kernels are those that declare an MCUF_API function, and the ones they include; the rest
is internal. From the folder above: the headers that firmware with TensorFlow Lite Micro includes.
"""

from __future__ import annotations

import re
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "tflm_kernels"
TFLM_HEADERS = ("op_resolver.h", "mcuformer_ops.h", "external_context.h", "token_overwrite_planner.h")
CODE = re.compile(r"`[^`]+`|\b[A-Za-z]\w*_\w*\b\*?")  # in a comment: quoted text, and every name_with_parts
INCLUDE = re.compile(r'^#include "(mcuf_\w+\.h)"', re.MULTILINE)
HEAD_COMMENT = re.compile(r"\A(?:/\* SPDX[^\n]*\n(.*?)\*/\n|// SPDX[^\n]*\n((?://[^\n]*\n)*))", re.DOTALL)


def public_headers() -> list[Path]:
    """The headers of the C kernels on the page: shared types first, then one per op, by name."""
    folder = KERNELS / "core"
    ops = {path.name for path in folder.glob("*.h") if re.search(r"^MCUF_API.*\bmcuf_\w+_s8\(", path.read_text(), re.M)}
    shared: set[str] = set()
    left = set(ops)
    while left:
        included = set(INCLUDE.findall((folder / left.pop()).read_text()))
        left |= included - shared - ops
        shared |= included - ops
    return [folder / name for name in (*sorted(shared), *sorted(ops))]


def page() -> str:
    """The whole page, Markdown."""
    parts = [
        "# C API\n",
        "Made from the headers in `tflm_kernels/`. The [op reference](ops.md) says what each op computes; an exported "
        "model has an API of its own, which [the walk for plain C](examples/c/README.md) shows.\n",
        "Every function takes its parameters, inputs, output and scratch in this order, allocates nothing "
        "and returns an `mcuf_status`. Call `_check` once for parameters that you did not make yourself: the kernel "
        "trusts them.\n",
        "## The C kernels, C99\n",
        *map(kernel_section, public_headers()),
        "## The front end of sound, C99\n",
        *map(kernel_section, sorted((KERNELS / "sound").glob("*.h"))),
        "## Firmware with TensorFlow Lite Micro, C++\n",
        *(tflm_section(KERNELS / name) for name in TFLM_HEADERS),
    ]
    return "\n".join(parts)


def kernel_section(path: Path) -> str:
    text = path.read_text()
    parts = [f"### {path.name}\n", prose(head_comment(text))]
    parts += [declaration(comment, code) for comment, code in declarations(body(text))]
    return "\n".join(parts)


def tflm_section(path: Path) -> str:
    text = path.read_text()
    code = body(text).split("\n private:")[0].rstrip()
    closed = "\n};" if code.count("{") - code.count("}") == 2 else ""  # a class cut at its private part
    code = re.sub(r"^namespace mcuformer \{\n+|\n*\}  // namespace mcuformer$", "", code + closed, flags=re.MULTILINE)
    return f"### {path.name}\n\n{prose(head_comment(text))}\n{fenced(code.strip(), 'cpp')}"


def head_comment(text: str) -> str:
    """The comment at the top of a header, without its licence line and comment marks."""
    found = HEAD_COMMENT.match(text)
    return re.sub(r"^(?: \*|//) ?", "", found[1] or found[2] or "", flags=re.MULTILINE).strip("\n ")


def body(text: str) -> str:
    """The text between the include guards, without includes and the C++ brackets."""
    text = HEAD_COMMENT.sub("", text)
    text = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^#(?:ifndef|define) MCUF_\w+_H_\n|^#endif[^\n]*_H_[^\n]*\n|^#include[^\n]*\n", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def declarations(text: str) -> list[tuple[str, str]]:
    """(comment before it, code) of each paragraph: a type, a function, or a group of macros."""
    found = []
    for part in re.split(r"\n\n(?=\S)", text):
        comment, code = re.match(r"((?:/\*.*?\*/\n)?)(.*)", part, re.DOTALL).groups()
        comment = re.sub(r"^/\* ?|^ \* ?", "", comment.strip().removesuffix("*/").rstrip(), flags=re.MULTILINE)
        if "#define MCUF_API" in code:
            continue
        if code.startswith("static inline"):
            code = "\n".join(re.findall(r"^static inline [^{]*(?= \{)", code, re.MULTILINE)) or code
            code = re.sub(r"\)$", ");", code, flags=re.MULTILINE)
        code = re.sub(r"^MCUF_API ", "", code, flags=re.MULTILINE)
        if code or comment:
            found.append((comment, realigned(code)))
    return found


def realigned(code: str) -> str:
    """Aligns a call's arguments under the first one, which is further left without MCUF_API."""
    lines = code.splitlines()
    if len(lines) > 1 and "(" in lines[0] and not lines[0].startswith(("typedef struct", "#")):
        indent = " " * (lines[0].index("(") + 1)
        lines[1:] = [indent + line.strip() if line.startswith("  ") else line for line in lines[1:]]
    return "\n".join(lines)


def declaration(comment: str, code: str) -> str:
    name = re.search(r"\b(mcuf_\w+)\(|\}\s*(mcuf_\w+);|\(\*(mcuf_\w+)\)", code)
    title = next((group for group in name.groups() if group), None) if name else None
    parts = [f"#### `{title}`\n" if title else "", prose(comment) if comment else "", fenced(code, "c") if code else ""]
    return "\n".join(filter(None, parts))


def fenced(code: str, language: str) -> str:
    return f"```{language}\n{code}\n```\n"


def prose(comment: str) -> str:
    """A comment as Markdown: indented lines as code, API names as code, everything else unchanged."""
    out, block = [], []
    for line in [*comment.splitlines(), ""]:
        if line.startswith("  "):
            block.append(line)
            continue
        if block:
            out += ["", "```text", *block, "```", ""]
            block = []
        out.append(escaped(line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n") + "\n"


def escaped(line: str) -> str:
    """Markdown that shows the line; names become code."""
    parts, at = [], 0
    for found in CODE.finditer(line):
        parts += [_literal(line[at : found.start()]), f"`{found[0].strip('`')}`"]
        at = found.end()
    return "".join(parts) + _literal(line[at:])


def _literal(text: str) -> str:
    return re.sub(r"([*_`])", r"\\\1", text.replace("<", "&lt;"))


if __name__ == "__main__":
    print(page())
