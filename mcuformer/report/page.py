# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file, with its style and script inside. A policy in it forbids the browser every request."""

from __future__ import annotations

import string
from collections.abc import Sequence
from html import escape
from importlib import metadata, resources

from mcuformer.report.folder import Material
from mcuformer.report.sections import Section, summary, table


def page(material: Material, parts: Sequence[Section]) -> str:
    """The whole page. parts: sections(material)."""
    shown = [part for part in parts if part.content]
    missing = [(part.title, part.missing) for part in parts if part.missing]
    name = material.folder.resolve().name
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for what, value in summary(material)
    )  # fmt: skip
    body = "".join(
        f'<section id="{_anchor(part)}"><h2>{escape(part.title)}</h2>{part.content}</section>' for part in shown
    )
    if missing:
        body += f'<section id="missing"><h2>Missing here</h2>{table(("what", "made by"), missing)}</section>'
    links = "".join(f'<a href="#{_anchor(part)}">{escape(part.title)}</a>' for part in shown)
    return string.Template(_text("page.html")).substitute(
        title=escape(name), version=escape(metadata.version("mcuformer")), cards=cards, links=links, body=body,
        style=_text("page.css"), script=_text("page.js"),
    )  # fmt: skip


def _anchor(part: Section) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in part.title.lower())


def _text(name: str) -> str:
    return resources.files("mcuformer.report").joinpath(name).read_text(encoding="utf-8")
