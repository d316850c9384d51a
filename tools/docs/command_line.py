# SPDX-License-Identifier: Apache-2.0
"""The command line page, made from the commands themselves: their help, arguments, options and defaults."""

from __future__ import annotations

import click

GROUPS = {
    "The whole way": ("demo",),
    "From a network to a microcontroller": ("train", "convert", "run", "inspect", "export", "boards", "check-board"),
    "Search": ("evolve", "search", "finetune"),
}


def commands() -> dict:
    """All commands by name, in the order of GROUPS; those in no group come last."""
    from mcuformer.cli import app

    known = click.Context(app)
    found = {name: app.get_command(known, name) for name in app.list_commands(known)}
    named = [name for names in GROUPS.values() for name in names if name in found]
    return {name: found[name] for name in (*named, *sorted(set(found) - set(named)))}


def page() -> str:
    """The whole page, Markdown."""
    known = commands()
    parts = [
        "# Command line\n",
        "Made from the commands; `mcuformer COMMAND --help` prints the same. A user's mistake gives one line on stderr "
        "and exit status 2. `--json FILE` writes the result for a program to read.\n",
    ]
    titles = {names[0]: title for title, names in GROUPS.items()}
    others = [name for name in known if not any(name in names for names in GROUPS.values())]
    if others:
        titles[others[0]] = "Others"
    for name, command in known.items():
        if name in titles:
            parts.append(f"## {titles[name]}\n")
        parts.append(section(name, command))
    return "\n".join(parts)


def section(name: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option)]
    names = [p.make_metavar(click.Context(command)) for p in arguments]
    usage = " ".join(["mcuformer", name, *names, "[OPTIONS]"])
    rows = [(f"`{name}`", "", p.help) for name, p in zip(names, arguments, strict=True)]
    rows += [(_names(p), "required" if p.required else _default(p), p.help) for p in options]
    parts = [f"### mcuformer {name}\n", f"{_text(command.help)}\n", f"```text\n{usage}\n```\n"]
    if rows:
        parts.append("| option | default | |\n|---|---|---|")
        parts += [f"| {names} | {default} | {_text(words)} |" for names, default, words in rows]
    return "\n".join(parts) + "\n"


def _names(option: click.Option) -> str:
    """The option's spellings, and its type."""
    names = ",&nbsp;".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names}&nbsp;{_takes(option)}"


def _takes(option: click.Option) -> str:
    kind = option.type.name.partition(" ")[0].upper()  # FLOAT RANGE is one of FLOAT
    return {"FLOAT": "NUMBER"}.get(kind, kind) + ("&nbsp;..." if option.multiple else "")


def _default(option: click.Option) -> str:
    value = option.to_info_dict()["default"]
    if value is None or value is False or value == ():
        return ""
    return f"`{value}`" if value is not True else "on"


def _text(words: str | None) -> str:
    """Help as one line of Markdown."""
    line = " ".join((words or "").replace("\b", " ").split())
    return line.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    print(page())
