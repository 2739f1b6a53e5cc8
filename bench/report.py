"""What a benchmark prints: a table for people, or one JSON object for scripts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

Row = Mapping[str, Any]

_WIDE: Final = 110


class Goal(NamedTuple):
    """What a benchmark asks for, and whether it was met this time."""

    text: str
    value: float
    met: bool


@dataclass
class Report:
    """The outcome of one benchmark; ``ratios`` become keys of their own in the JSON."""

    name: str
    rows: Sequence[Row]
    ratios: dict[str, float]
    goals: list[Goal]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """One object: ``name``, ``rows``, the ratios, ``goals`` and ``notes``."""
        ratios = {name: round(value, 4) for name, value in self.ratios.items()}
        return json.dumps(
            {
                "name": self.name,
                "rows": [dict(row) for row in self.rows],
                **ratios,
                "goals": [goal._asdict() for goal in self.goals],
                "notes": self.notes,
            }
        )

    def print_table(self) -> None:
        """The table, then each goal with the value found."""
        console = Console()
        if not console.is_terminal:
            console.width = _WIDE  # else 80, which shortens the figures of a wide table
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = Table(title=self.name, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for number, column in enumerate(columns):
            justify: JustifyMethod = "right" if number else "left"
            table.add_column(column.replace("_", " "), justify=justify, no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*(_cell(row.get(column, "")) for column in columns))
        console.print(table)
        for goal in self.goals:
            mark = "[green]met[/]" if goal.met else "[yellow]not met here[/]"
            console.print(f"{goal.text}: {_cell(goal.value)}  {mark}", highlight=False)
        for note in self.notes:
            console.print(note, style="dim", highlight=False)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def medians(name: str, runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    """One row of the table: the median of each figure over several runs."""
    figures = {key: statistics.median(run[key] for run in runs) for key in keys}
    return {"what": name, **figures}


def paired_ratio(
    subjects: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> float:
    """The rates of each subject over those of the reference that ran just before it: the median.

    What else the machine does comes and goes within a benchmark, but mostly hits both of a pair.
    """
    ratios: list[float] = [
        subject["per_second"] / reference["per_second"]
        for subject, reference in zip(subjects, references, strict=True)
    ]
    return statistics.median(ratios)


def at_least(text: str, value: float, least: float) -> Goal:
    """A goal that grows."""
    return Goal(text, value, value >= least)


def at_most(text: str, value: float, most: float) -> Goal:
    """A goal that shrinks."""
    return Goal(text, value, value <= most)
