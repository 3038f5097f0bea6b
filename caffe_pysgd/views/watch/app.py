"""The terminal application: parameters to sort, filter and open; curves; events."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Dict, List, Optional, Tuple

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from caffe_pysgd.errors import UserError
from caffe_pysgd.views.watch.frame import bar, curve, number, progress, status
from caffe_pysgd.views.watch.reading import Pace, ParameterNow, Reading, history, look
from caffe_pysgd.views.watch.rows import ORDERS, Row, fitted, rows_of, shown

# Title, width, and the order that a press on the heading gives.
_COLUMNS: Tuple[Tuple[str, int, str], ...] = (
    ("parameter", 0, "net"),
    ("upd/data", 10, "largest ratio"),
    ("", 7, "largest ratio"),
    ("|grad|", 9, "largest gradient"),
    ("zero", 5, "zero gradients"),
    ("|data|", 9, "net"),
    (" mark", 11, "marked"),
)
_OTHERS = sum(width for _, width, _ in _COLUMNS) + 3  # and the scroll bar
_COLOURS = {"not finite": "bold red", "zero grad": "yellow", "high": "magenta", "low": "magenta"}


class Watch(App[Optional[str]]):
    """A run; returns why it had to end, if it had to.

    Args:
        run: a run directory, or an audit.
        interval: seconds from one look at the audit to the next.
    """

    CSS = """
    #top { height: auto; padding: 0 1; }
    TabbedContent { height: 1fr; }
    TabPane { padding: 0; }
    DataTable { height: 1fr; }
    #filter { display: none; height: 1; border: none; padding: 0 1; }
    #filter.open { display: block; }
    #said { height: 1; padding: 0 1; color: $text-muted; }
    .curve { height: auto; padding: 0 1 1 1; color: $secondary; }
    """
    BINDINGS: ClassVar[List[BindingType]] = [
        ("q", "quit", "Quit"),
        ("s", "sort", "Sort"),
        ("slash", "filter", "Filter"),
        ("b", "statistics", "Stats"),
        ("h", "open", "History"),
        ("p", "tab('parameters')", "Params"),
        ("c", "tab('curves')", "Curves"),
        ("e", "tab('events')", "Events"),
        ("escape", "clear", ""),
    ]
    ENABLE_COMMAND_PALETTE = False
    TITLE = "caffe-pysgd watch"

    def __init__(self, run: Path, interval: float = 1.0) -> None:
        super().__init__()
        self.path, self._interval = run, interval
        self._pace = Pace()
        self.reading: Optional[Reading] = None
        self.order, self.words, self.statistics = "net", "", False
        self.rows: List[Row] = []
        self._wide = 80  # columns of the terminal

    def compose(self) -> ComposeResult:
        yield Static(id="top", markup=False)
        with TabbedContent(id="tabs"):
            with TabPane("Parameters", id="parameters"):
                table: DataTable[Text] = DataTable(id="table", cursor_type="row", cell_padding=0)
                yield table
            with TabPane("Curves", id="curves"), VerticalScroll():
                yield Static(id="loss", classes="curve", markup=False)
                yield Static(id="scores", classes="curve", markup=False)
            with TabPane("Events", id="events"), VerticalScroll():
                yield Static(id="said-events", classes="curve", markup=False)
        yield Input(placeholder="words in the name; Enter keeps, Esc clears", id="filter")
        yield Static(id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._table().focus()
        self.set_interval(self._interval, self.look)
        self.look()

    def _table(self) -> DataTable[Text]:
        return self.query_one("#table", DataTable)

    # -- what is shown ----------------------------------------------------------------------------

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Read the audit; the screen stays alive meanwhile."""
        try:
            reading = look(self.path)
        except UserError as error:
            self.call_from_thread(self.exit, str(error))
            return
        self.call_from_thread(self.show, reading)

    def show(self, reading: Optional[Reading]) -> None:
        """Show a reading; None before there is an audit."""
        self.reading = reading
        if reading is None:
            self.query_one("#top", Static).update(f"waiting for an audit in {self.path}")
            return
        self._pace.see(reading.session, reading.done)
        self._show_top(reading)
        self._show_rows()
        self._show_curves(reading)
        events = [f"iteration {at:,}  {kind}: {message}" for at, kind, message in reading.events]
        said = "\n".join(reversed(events)) or "no events"
        self.query_one("#said-events", Static).update(said)

    def _show_top(self, reading: Reading) -> None:
        last = reading.last
        heading = Text(fitted(str(reading.path), max(20, self._wide - 30)), style="bold")
        heading.append(f"  session {reading.session}", style="dim")
        heading.append(f", {reading.host}" if reading.host else "", style="dim")
        line = Text(no_wrap=True, overflow="ellipsis")
        if last:
            told = [("loss", last["loss"]), ("averaged", last["smoothed_loss"])]
            told += [("rate", last["rate"]), ("|gradient|", last["gradient_l2"])]
            for name, value in told:
                if value is not None:
                    line.append(f"{name} ", style="dim").append(f"{number(value)}  ")
        scores = Text(no_wrap=True, overflow="ellipsis")
        for name, _, value in reading.tests:
            scores.append(f"test {name} ", style="dim").append(f"{number(value, 4)}  ")
        parts: List[RenderableType] = [
            heading,
            progress(reading, self._pace.speed() or reading.speed),
            line,
        ]
        if scores:
            parts.append(scores)
        if reading.alarms:
            parts.append(Text(f"! {reading.alarms[-1]}", style="bold red", no_wrap=True))
        self.query_one("#top", Static).update(Group(*parts))

    def _show_rows(self) -> None:
        if self.reading is None:
            return
        table = self._table()
        before = self._chosen()
        self.rows, hidden = shown(
            rows_of(self.reading.parameters), self.words, self.statistics, self.order
        )
        longest = max((len(row.name) for row in self.rows), default=0)
        width = max(12, min(longest, self._wide - _OTHERS))
        cells = {str(row.number): _cells(row, width) for row in self.rows}
        if [key.value for key in table.rows] == list(cells) and len(table.columns) == len(_COLUMNS):
            for key, values in cells.items():
                for column, value in zip(list(table.columns), values):
                    table.update_cell(key, column, value)
        else:
            table.clear(columns=True)
            for title, wide, _ in _COLUMNS:
                heading = Text(title)
                if wide and title.strip() != "mark":
                    heading.justify = "right"
                table.add_column(heading, width=wide or width)
            for key, values in cells.items():
                table.add_row(*values, key=key)
            numbers = [row.number for row in self.rows]
            if before is not None and before in numbers:
                table.move_cursor(row=numbers.index(before))
        self._say(hidden)

    def _say(self, hidden: int) -> None:
        assert self.reading is not None
        parts = [f"{len(self.rows):,} parameters by {self.order}"]
        if self.words:
            parts.append(f"with '{self.words}'")
        if hidden:
            parts.append(f"{hidden:,} statistics hidden")
        state = status(self.reading, self._pace.still_seconds())
        parts.append("the session has ended" if self.reading.ended else state)
        self.query_one("#said", Static).update(" · ".join(part for part in parts if part))

    def _show_curves(self, reading: Reading) -> None:
        wide = self._wide - 4
        loss = ["loss over the iterations", *curve(reading.losses, wide, 6)]
        self.query_one("#loss", Static).update("\n".join(loss))
        scores = []
        for name, values in reading.scores.items():
            scores += [f"test {name}", *curve(values, wide, 3), ""]
        self.query_one("#scores", Static).update("\n".join(scores))

    def on_resize(self, event: Resize) -> None:
        """Called when the terminal has another size: the names' column with it."""
        self._wide = event.size.width
        self._table().clear(columns=True)
        self.show(self.reading)

    # -- what keys do -----------------------------------------------------------------------------

    def action_sort(self) -> None:
        """Sort by the next order."""
        orders = list(ORDERS)
        self._sort(orders[(orders.index(self.order) + 1) % len(orders)])

    def _sort(self, order: str) -> None:
        self.order = order
        self._show_rows()
        self._table().move_cursor(row=0)

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Called with the heading that was pressed."""
        self._sort(_COLUMNS[event.column_index][2])

    def action_statistics(self) -> None:
        """Show or hide the running statistics."""
        self.statistics = not self.statistics
        self._show_rows()

    def action_tab(self, name: str) -> None:
        """Show a tab."""
        self.query_one("#tabs", TabbedContent).active = name
        if name == "parameters":
            self._table().focus()

    def action_filter(self) -> None:
        """Ask for words that names must have."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Called with what is typed so far."""
        self.words = event.value
        self._show_rows()

    def on_input_submitted(self) -> None:
        """Called when the words are kept."""
        self.query_one("#filter", Input).remove_class("open")
        self._table().focus()

    def action_clear(self) -> None:
        """Show all parameters again."""
        self.query_one("#filter", Input).value = ""
        self.on_input_submitted()

    def on_data_table_row_selected(self) -> None:
        """Called when Enter is pressed on a row, or it is clicked."""
        self.action_open()

    def action_open(self) -> None:
        """Show the history of the row under the cursor."""
        chosen = self._chosen()
        if chosen is not None and self.reading is not None:
            one = next(p for p in self.reading.parameters if p.parameter.parameter == chosen)
            self.push_screen(History(self.path, one))

    def _chosen(self) -> Optional[int]:
        table = self._table()
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return None if key is None else int(key)


class History(Screen[None]):
    """One parameter over the run.

    Args:
        run: a run directory, or an audit.
        one: the parameter.
    """

    CSS = "History Static { padding: 0 1; height: auto; }"
    BINDINGS: ClassVar[List[BindingType]] = [
        ("escape", "app.pop_screen", "Back"),
        ("q", "app.pop_screen", "Back"),
    ]

    def __init__(self, run: Path, one: ParameterNow) -> None:
        super().__init__()
        self._run_path, self._one = run, one

    def compose(self) -> ComposeResult:
        p = self._one.parameter
        shape = " × ".join(map(str, p.shape)) or "scalar"  # noqa: RUF001
        what = "a running statistic" if p.statistic else f"rule {p.rule}"
        heading = Text(p.name, style="bold")
        heading.append(f"  {shape}, {p.count:,} values, lr_mult {p.lr_mult:g}, {what}", style="dim")
        yield Static(heading)
        with VerticalScroll():
            yield Static("reading …", id="curves-of-one", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.look()

    @work(thread=True)
    def look(self) -> None:
        """Read the history."""
        found = history(self._run_path, self._one.parameter.parameter)
        self.app.call_from_thread(self.show, found)

    def show(self, found: Dict[str, Tuple[np.ndarray, np.ndarray]]) -> None:
        """Draw the history."""
        lines: List[str] = []
        titles = {"ratio": "|update| / |data|"}
        for name in ("ratio", "gradient", "update", "data"):
            if name in found:
                at, values = found[name]
                span = f"iterations {at[0]:,} to {at[-1]:,}"
                lines.append(f"{titles.get(name, f'|{name}|')}, {span}, last {number(values[-1])}")
                lines += [*curve(values, self.size.width - 4, 3), ""]
        text = "\n".join(lines) or "no figures were recorded of it"
        self.query_one("#curves-of-one", Static).update(text)


def _cells(row: Row, width: int) -> List[Text]:
    style = _COLOURS.get(row.mark, "dim" if row.is_statistic else "")

    def right(value: Optional[float]) -> Text:
        return Text(number(value, 3), style=style, justify="right")

    zeros = "-" if row.zeros is None else f"{row.zeros:.0%}"
    return [
        Text(fitted(row.name, width), style=style),
        right(row.ratio),
        Text(f" {bar(row.ratio, 6)}", style="cyan"),
        right(row.gradient),
        Text(zeros, style=style, justify="right"),
        right(row.data),
        Text(f" {row.mark}", style=style),
    ]
