"""Backbones: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

from typing import Any

import torch

from copl.errors import BackboneError


class ToyBackbone:
    def fingerprint(self) -> str:
        return "abc"

    def load(self) -> object:
        return object()


class AbsentBackbone(ToyBackbone):
    def load(self) -> object:
        raise BackboneError("weights are missing; run make weights")


class RestlessBackbone(ToyBackbone):
    def fingerprint(self) -> str:
        return str(id(self))


class NamelessBackbone(ToyBackbone):
    def fingerprint(self) -> str:
        return ""


class EmptyBackbone(ToyBackbone):
    def load(self) -> object:
        return torch.rand(1) if False else None


def test_backbones(kit: Any) -> None:
    assert kit.not_passed(kit.check("backbone", lambda options: ToyBackbone())) == set()
    absent = kit.check("backbone", lambda options: AbsentBackbone())
    assert {result.outcome for result in absent.values()} == {"passed", "skipped"}
    assert "run make weights" in kit.caught(absent)
    keep: list[RestlessBackbone] = []

    def restless(options: Any) -> RestlessBackbone:
        keep.append(RestlessBackbone())
        return keep[-1]

    assert "the fingerprint changes from" in kit.caught(kit.check("backbone", restless))
    assert "the fingerprint is ''; it must be a text" in kit.caught(
        kit.check("backbone", lambda options: NamelessBackbone())
    )
    assert "load gave nothing" in kit.caught(kit.check("backbone", lambda options: EmptyBackbone()))
