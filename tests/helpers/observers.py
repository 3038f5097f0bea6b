"""Observers of an update that keep what they are told."""

from __future__ import annotations

from typing import Any, List, Mapping

from caffe_pysgd.update import Observer, Statistics


class Arrays(Observer):
    """Keeps every array, at every stage."""

    def __init__(self) -> None:
        self.heard: List[Any] = []

    def observe(self, iteration: int, rate: Any, parameter: Any, stage: Any, array: Any) -> None:
        self.heard.append((iteration, rate, parameter.name, stage, array.copy()))


class Figures(Observer):
    """Keeps the figures of every iteration, and asks for no array."""

    def __init__(self) -> None:
        self.heard: List[Any] = []

    def due(self, iteration: int) -> bool:
        return False

    def figures_due(self, iteration: int) -> bool:
        return True

    def measure(
        self, iteration: int, rate: Any, parameter: Any, figures: Mapping[str, Statistics]
    ) -> None:
        self.heard.append((iteration, parameter.name, dict(figures)))
