# SPDX-License-Identifier: Apache-2.0
"""Weights: a state dict of another library that accounts for each of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from mcuformer.errors import ModelError

Reasons = Iterable[tuple[str, str]]
"""(regular expression of a tensor's name, why)."""


class Weights:
    """The tensors of a state dict by name. Each is taken, left out with a reason, or refused.

    source: what messages call it, such as the file's name.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], source: str):
        self.tensors = dict(tensors)
        self.source = source
        self.left_out: dict[str, str] = {}
        self._taken: set[str] = set()
        self._missed: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def error(self, text: str) -> ModelError:
        return ModelError(f"{self.source}: {text}")

    def refuse(self, foreign: Reasons) -> None:
        """Raises ModelError for the first tensor that one of the expressions finds, with its reason."""
        for name in self.tensors:
            for expression, reason in foreign:
                if re.search(expression, name):
                    raise self.error(f"tensor '{name}': {reason}")

    def leave_out(self, reasons: Reasons) -> None:
        """Marks the tensors that the expressions find as known and not needed."""
        for name in self.tensors:
            for expression, reason in reasons:
                if name not in self._taken and re.search(expression, name):
                    self.left_out[name] = reason

    def shape(self, name: str) -> tuple[int, ...]:
        """At least one size. ModelError if there is no such tensor, or it is one number."""
        shape = tuple(self._tensor(name).shape)
        if not shape:
            raise self.error(f"tensor '{name}' is one number, not a matrix")
        return shape

    def take(self, name: str, *shape: int | None) -> torch.Tensor:
        """The tensor as float64. shape: what it must have; None: any size. ModelError if it is missing or differs,
        holds no numbers, or NaN or infinity."""
        value = self._tensor(name)
        fits = len(shape) == value.ndim and all(
            want is None or want == have for want, have in zip(shape, value.shape, strict=True)
        )
        if not fits:
            needs = ", ".join("any" if want is None else str(want) for want in shape)
            raise self.error(f"tensor '{name}' has shape {list(value.shape)}, needs [{needs}]")
        if not value.is_floating_point():
            raise self.error(f"tensor '{name}' holds {str(value.dtype).removeprefix('torch.')}: needs float weights")
        value = value.detach().double() if value.is_meta else value.detach().cpu().double()
        if not value.is_meta and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise self.error(f"tensor '{name}' holds NaN or infinity: {bad:,} of its {value.numel():,} values")
        self._taken.add(name)
        return value

    def maybe(self, name: str, *shape: int | None) -> torch.Tensor | None:
        """take(), or None if there is no such tensor."""
        if name in self.tensors:
            return self.take(name, *shape)
        self._missed.add(name)
        return None

    def count(self, form: str) -> int:
        """How many of form.format(0), form.format(1), ... begin the name of a tensor."""
        count = 0
        while any(name.startswith(form.format(count)) for name in self.tensors):
            count += 1
        return count

    def finish(self) -> None:
        """Raises ModelError if a tensor was neither taken nor left out, or if one layer lacks what another has."""
        forms = {_form(name): name for name in self._taken if _form(name) != name}
        for name in sorted(self._missed):
            if (other := forms.get(_form(name))) is not None:
                raise self.error(f"tensor '{name}' is missing, and '{other}' is there: the checkpoint is cut short")
        unknown = [name for name in self.tensors if name not in self._taken and name not in self.left_out]
        if unknown:
            others = "" if len(unknown) == 1 else f" (and {len(unknown) - 1} more)"
            raise self.error(
                f"tensor '{unknown[0]}'{others} is unknown: this network does more than the importer knows"
            )

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            raise self.error(f"tensor '{name}' is missing: the checkpoint is cut short, or of another network")
        return self.tensors[name]


def _form(name: str) -> str:
    """The name without the layer's number."""
    return re.sub(r"(blocks\.|layers?\.|layer_)\d+\.", r"\1*.", name, count=1)
