"""The terminal application, driven by keys as a user would."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Awaitable, Callable, List

import pytest
from helpers.audits import write_audit
from helpers.large import write_large_audit
from textual.widgets import Static

from caffe_pysgd.audit.store import Store
from caffe_pysgd.views.watch.app import History, Watch
from caffe_pysgd.views.watch.rows import fitted

DEAD, SLOW = "scale3b_branch2a/0", "conv2a_branch1/0"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large_audit(tmp_path_factory.mktemp("large"), iterations=30)


class Screen:
    """What is seen at 80 x 24."""

    def __init__(self, app: Watch, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.app.workers.wait_for_complete()
        await self.pilot.pause()

    def names(self) -> List[str]:
        return [row.name for row in self.app.rows]

    def text(self, which: str) -> str:
        return str(self.app.screen.query_one(which, Static).render())

    def lines(self) -> List[str]:
        """Return the screen line by line."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]


def seen(run: Path, look: Callable[[Screen], Awaitable[None]], size: Any = (80, 24)) -> None:
    """Open the application and look at it."""

    async def open_and_look() -> None:
        app = Watch(run, interval=3600)
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, pilot)
            await screen.press()
            await look(screen)

    # In a thread: a browser of another test may have a loop of its own in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, open_and_look()).result()


def test_all_of_it_can_be_read_at_80_columns(large: Path) -> None:
    async def look(screen: Screen) -> None:
        lines = screen.lines()
        assert len(lines) == 24 and all(len(line) == 80 for line in lines)
        with Store(large) as store:
            for parameter in store.parameters()[:1]:
                (line,) = (one for one in lines if one.startswith(parameter.name))
                number = parameter.parameter
                for value in (
                    store.updates(number, "ratio")[1][-1],
                    store.figures(number, "gradient", "l2")[1][-1],
                    store.figures(number, "data", "l2")[1][-1],
                ):
                    assert f"{value:.3g}" in line.split()
        assert any("30 of 30 updates" in line for line in lines)
        assert any("99 statistics hidden" in line for line in lines)

    seen(large, look)


def test_every_parameter_is_reached_by_scrolling(large: Path) -> None:
    async def look(screen: Screen) -> None:
        assert len(screen.names()) == 103
        await screen.press("ctrl+end")
        assert any(line.startswith("fc_aux/1") for line in screen.lines())
        await screen.press("b")
        assert len(screen.names()) == 202
        await screen.press("b")
        assert len(screen.names()) == 103

    seen(large, look)


def test_parameters_are_sorted_and_marked(large: Path) -> None:
    async def look(screen: Screen) -> None:
        marks = {row.name: row.mark for row in screen.app.rows if row.mark}
        assert marks == {DEAD: "zero grad", SLOW: "low"}
        for order in (
            "largest ratio",
            "smallest ratio",
            "largest gradient",
            "zero gradients",
            "marked",
        ):
            await screen.press("s")
            assert screen.app.order == order
            if order == "largest ratio":
                ratios = [row.ratio for row in screen.app.rows]
                assert ratios == sorted(ratios, reverse=True)
            if order == "smallest ratio":
                assert screen.names()[0] == SLOW
            if order == "zero gradients":
                assert screen.names()[0] == DEAD
        assert set(screen.names()[:2]) == {DEAD, SLOW}
        assert "parameters by marked" in screen.text("#said")

    seen(large, look)


def test_parameters_are_filtered_and_the_history_of_one_is_opened(large: Path) -> None:
    async def look(screen: Screen) -> None:
        await screen.press("slash", *"fc1000")
        assert screen.names() == ["fc1000/0", "fc1000/1"]
        await screen.press("enter")
        await screen.press("down", "enter")
        assert isinstance(screen.app.screen, History)
        shown = screen.text("#curves-of-one")
        with Store(large) as store:
            number = next(p.parameter for p in store.parameters() if p.name == "fc1000/1")
            _, ratios = store.updates(number, "ratio")
        assert f"|update| / |data|, iterations 0 to 29, last {ratios[-1]:.6g}" in shown
        assert f"{ratios.max():.3g}" in shown and f"{ratios.min():.3g}" in shown
        await screen.press("escape")
        assert not isinstance(screen.app.screen, History)
        await screen.press("escape")
        assert len(screen.names()) == 103

    seen(large, look)


def test_curves_and_events_have_their_pages(workdir: Path) -> None:
    run = write_audit(workdir / "audit.sqlite", 120, nonfinite_at=80)

    async def look(screen: Screen) -> None:
        await screen.press("c")
        shown = "\n".join(screen.lines())
        assert "loss over the iterations" in shown and "test accuracy" in shown and "█" in shown
        await screen.press("e")
        shown = "\n".join(screen.lines())
        assert "iteration 81  nonfinite: conv1/0: 2 values of the gradient" in shown

    seen(run, look)


def test_what_is_recorded_meanwhile_is_shown(workdir: Path) -> None:
    run = workdir / "audit.sqlite"

    async def look(screen: Screen) -> None:
        assert "waiting for an audit" in screen.text("#top")
        write_audit(run, 7, ended=None)
        screen.app.look()
        await screen.press()
        assert any("7 updates" in line for line in screen.lines())
        assert screen.names() == ["conv1/0", "conv1/1", "ip1/0", "ip1/1"]

    seen(run, look)


def test_a_wide_and_a_narrow_terminal(large: Path) -> None:
    async def look(screen: Screen) -> None:
        await screen.pilot.resize_terminal(60, 20)
        await screen.press()
        assert all(len(line) == 60 for line in screen.lines())
        await screen.pilot.resize_terminal(140, 40)
        await screen.press()
        assert any("conv2a_branch2a/0" in line for line in screen.lines())

    seen(large, look)


def test_names_are_cut_so_that_they_are_told_apart() -> None:
    names = [f"inception_5b/double3x3_reduce/{number}" for number in (0, 1)]
    cut = [fitted(name, 20) for name in names]
    assert cut[0] != cut[1] and {len(name) for name in cut} == {20}
    assert fitted("ip/0", 20) == "ip/0"
