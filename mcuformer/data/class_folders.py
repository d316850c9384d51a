# SPDX-License-Identifier: Apache-2.0
"""Folders of files by class, with ImageNet's splits or none: which file is of which class in which split.

What is ambiguous is refused; what is left out is counted in one line.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mcuformer.data.source import Part, Source, is_visible, one_line, say_once, shown
from mcuformer.errors import DataError

# Names of split folders, in lower case. Images in the first of VAL and TEST that is there are the split "test".
TRAIN, VAL, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
SPLIT_NAMES = {*TRAIN, *VAL, *TEST}
MAX_DEPTH = 16


@dataclass(frozen=True)
class Kind:
    """The files that are looked for. suffixes: in lower case; noun, example: what messages call them; left_out: how the
    names of folders begin that are no classes; hints: what to do about files of other suffixes."""

    suffixes: set[str]
    noun: str
    example: str
    left_out: str = ""
    hints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """A folder: its files of the right kind, its other files, its folders; all by name."""

    path: Path
    files: list[Path]
    others: list[Path]
    folders: list[Tree]

    def all_files(self) -> list[Path]:
        """Of the folder and of those in it."""
        return [*self.files, *(path for folder in self.folders for path in folder.all_files())]

    def all_others(self) -> list[Path]:
        return [*self.others, *(path for folder in self.folders for path in folder.all_others())]

    def has_files(self) -> bool:
        return bool(self.files) or any(folder.has_files() for folder in self.folders)

    def has_classes(self) -> bool:
        """Whether it can be a split: its files lie in folders of it."""
        return not self.files and any(folder.has_files() for folder in self.folders)


def read_class_folders(folder: Path, kind: Kind) -> Source:
    """train/CLASS/* with val/ or test/ beside it, or CLASS/* alone. Folders in a class folder belong to the class."""
    top = scan(folder, kind)
    left_out = Counter[str]()
    roots = _split_roots(top, kind, left_out)
    classes = {split: [tree for tree in root.folders if _may_be_class(tree, kind)] for split, root in roots.items()}
    for split, root in roots.items():
        _check_root(root, classes[split], kind)
    first = next(iter(roots))
    names = tuple(tree.path.name for tree in classes[first])
    parts = {}
    for split, root in roots.items():
        paths, labels = _files(root, classes[split], roots[first], names, kind)
        parts[split] = Part(paths, labels)
        _count_left_out(root, classes[split], kind, left_out)
    if top not in roots.values() and top.files:
        left_out[f"{kind.noun} beside the splits"] += len(top.files)
    if left_out:
        listed = ", ".join(f"{count} {what}" for what, count in left_out.items())
        say_once(f"{folder}: left out: {listed}")
    return Source(str(folder), parts, names)


def scan(path: Path, kind: Kind, above: tuple[str, ...] = ()) -> Tree:
    """Everything in a folder. above: the real paths of the folders it lies in, so that links in circles end."""
    files, others, folders = [], [], []
    try:
        with os.scandir(path) as found:
            entries = sorted((entry for entry in found if is_visible(entry.name)), key=lambda entry: entry.name)
            here = (*above, os.path.realpath(path))
            for entry in entries:
                child = path / entry.name
                if entry.is_dir():
                    circular = entry.is_symlink() and os.path.realpath(child) in here
                    if circular or len(here) >= MAX_DEPTH:
                        others.append(child)
                    else:
                        folders.append(scan(child, kind, here))
                elif child.suffix.lower() in kind.suffixes and entry.is_file():
                    files.append(child)
                else:
                    others.append(child)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({one_line(error)}); check its permissions") from error
    return Tree(path, files, others, folders)


def _may_be_class(tree: Tree, kind: Kind) -> bool:
    return not (kind.left_out and tree.path.name.startswith(kind.left_out))


def _split_roots(top: Tree, kind: Kind, left_out: Counter[str]) -> dict[str, Tree]:
    """The folder of each split, "train" and "test"; or the top as "all". Counts what lies beside."""
    folders = [tree for tree in top.folders if _may_be_class(tree, kind)]
    named = [tree for tree in folders if tree.path.name.lower() in SPLIT_NAMES]
    beside = [tree for tree in folders if tree not in named and tree.has_files()]
    if not named:
        return {"all": top}
    if beside and not any(tree.has_classes() for tree in named):
        full = [tree for tree in named if tree.has_files()]
        if [tree.path.name.lower() for tree in full] in ([], ["train"]):  # "train" may be a class, as of vehicles
            return {"all": top}
        raise DataError(
            f"{shown(top.path)}: holds {shown(beside[0].path.name)} beside {full[0].path.name}, the name of a split: "
            f"put classes as train/CLASS/{kind.example} and test/CLASS/{kind.example}, or rename {full[0].path.name}"
        )
    train, val, test = (_the_one(named, names) for names in (TRAIN, VAL, TEST))
    if beside and (train is None or (val is None and test is None)):
        only = next(tree for tree in named if tree.has_classes())
        raise DataError(
            f"{shown(top.path)}: holds {only.path.name} with folders of {kind.noun}, and {shown(beside[0].path.name)} "
            f"beside it: class or split? Give {shown(only.path)}, or move {shown(beside[0].path.name)} away"
        )
    for tree in beside:
        left_out[f"{kind.noun} in {tree.path.name}, which is no split"] += len(tree.all_files())
    if val is not None and test is not None:
        used, unused = (test, val) if test.has_files() and not val.has_files() else (val, test)
        if unused.has_files():
            what = f"{kind.noun} in {unused.path.name}: {used.path.name} has the test {kind.noun}"
            left_out[what] += len(unused.all_files())
        val, test = used, None
    measured = val or test
    return {split: tree for split, tree in (("train", train), ("test", measured)) if tree is not None}


def _the_one(named: list[Tree], names: tuple[str, ...]) -> Tree | None:
    found = [tree for tree in named if tree.path.name.lower() in names]
    if len(found) > 1:
        both = " and ".join(tree.path.name for tree in found)
        raise DataError(
            f"{shown(found[0].path.parent)}: holds {both}, which are the same split; keep one, or put their classes "
            "together"
        )
    return found[0] if found else None


def _check_root(root: Tree, classes: list[Tree], kind: Kind) -> None:
    """Refuses a folder whose classes cannot be told."""
    where = shown(root.path)
    if not any(tree.has_files() for tree in classes):
        if root.files:
            raise DataError(f"{where}: holds {kind.noun} but no class folders; put them as CLASS/{kind.example}")
        raise DataError(
            f"{where}: holds nothing that can be read{_such_as(root, kind)}; give idx files, CIFAR's python files, or "
            "images or WAV files in class folders"
        )
    for tree in classes:
        name = tree.path.name
        inner = [sub.path.name for sub in tree.folders if sub.path.name.lower() in SPLIT_NAMES and sub.has_files()]
        if inner:
            raise DataError(
                f"{shown(tree.path)}: holds {' and '.join(inner)}, names of splits; give this folder if its classes "
                f"are in them, else put the splits above the classes, as {inner[0]}/{shown(name)}"
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{shown(tree.path)}: the name of this class is not UTF-8, so no model can hold it; rename the folder"
            ) from error
    if len(classes) == 1 and not classes[0].files and sum(sub.has_files() for sub in classes[0].folders) > 1:
        inner = [shown(sub.path.name) for sub in classes[0].folders if sub.has_files()]
        raise DataError(
            f"{where}: has one class only, {classes[0].path.name}, whose {kind.noun} lie in {', '.join(inner[:4])}; if "
            f"those are the classes, give {shown(classes[0].path)}"
        )


def _files(
    root: Tree, classes: list[Tree], first: Tree, names: tuple[str, ...], kind: Kind
) -> tuple[list[Path], np.ndarray]:
    """The files of a split and their labels."""
    numbers = {name: number for number, name in enumerate(names)}
    paths: list[Path] = []
    labels: list[int] = []
    deeper = []
    for tree in classes:
        if tree.path.name not in numbers:
            raise DataError(
                f"{shown(tree.path)}: is not a class of {shown(first.path)}; use the same class folders in every split"
            )
        files = tree.all_files()
        if not files and root is first:
            raise DataError(
                f"{shown(tree.path)}: a class without {kind.noun} that can be read{_such_as(tree, kind)}; add some, or "
                "remove the folder"
            )
        deeper += files[len(tree.files) :]
        paths += files
        labels += [numbers[tree.path.name]] * len(files)
    if deeper:
        example = deeper[0].relative_to(root.path)
        say_once(f"{root.path}: {len(deeper)} {kind.noun} are read from folders in class folders, such as {example}")
    return paths, np.array(labels, np.int64)


def _count_left_out(root: Tree, classes: list[Tree], kind: Kind, left_out: Counter[str]) -> None:
    if root.files:
        left_out[f"{kind.noun} in no class folder"] += len(root.files)
    for path in (path for tree in classes for path in tree.all_others()):
        left_out[_what(path, kind)] += 1


def _what(path: Path, kind: Kind) -> str:
    """How a file that is not read is counted."""
    suffix = path.suffix.lower()
    if suffix in kind.suffixes or not suffix:
        return "that are no regular files" if not path.is_file() else "without a suffix"
    return suffix + (f" ({kind.hints[suffix]})" if suffix in kind.hints else "")


def _such_as(tree: Tree, kind: Kind) -> str:
    """What is there instead."""
    others = tree.all_others()
    return f" (only files such as {shown(others[0].name)}: {shown(_what(others[0], kind))})" if others else ""
