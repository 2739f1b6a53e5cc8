from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values
from prometheus_client import Metric

from booking_worker.config import Settings, explain, load
from booking_worker.domain.model import TRANSITIONS, Status
from booking_worker.telemetry.metrics import Metrics
from tests.architecture.house import LUA, ROOT

ENV_EXAMPLE = (ROOT / "env.example").read_text(encoding="utf-8")
STATE_MACHINE = (ROOT / "docs" / "state_machine.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([\w, ]+) \|", STATE_MACHINE, re.MULTILINE)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return load()


def test_env_example_has_every_setting_in_the_order_of_the_code():
    written = dotenv_values(stream=StringIO(ENV_EXAMPLE))
    assert list(written) == [name.upper() for name in Settings.model_fields]


def test_env_example_gives_the_defaults(settings: Settings, tmp_path: Path):
    (tmp_path / "all.env").write_text(ENV_EXAMPLE)
    assert load(tmp_path / "all.env").model_dump() == settings.model_dump()


def test_env_example_explains_each_setting_as_the_code_does(settings: Settings):
    explained = dict(re.findall(r"^# (.+)\n([A-Z_]+)=", ENV_EXAMPLE, re.MULTILINE))
    assert {name: text for text, name in explained.items()} == {
        one.name: one.explanation for one in explain(settings)
    }


def test_the_table_of_the_state_machine_is_the_code():
    drawn = [(before, after) for before, after, _ in ROWS]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(str(a), str(b)) for a, many in TRANSITIONS.items() for b in many}


def test_the_table_of_the_state_machine_names_scripts_that_exist():
    named = {name for *_, scripts in ROWS for name in scripts.split(", ")}
    assert named <= {path.stem for path in LUA.glob("*.lua")}


def test_the_picture_of_the_state_machine_has_every_status():
    picture = STATE_MACHINE.split("```")[1]
    assert {status for status in Status if not re.search(rf"\b{status}\b", picture)} == set()


def exposed() -> dict[str, Metric]:
    return {metric.name: metric for metric in Metrics().registry.collect()}


@pytest.mark.parametrize(
    "name, kind, labels",
    [
        ("booking_worker_queue_length", "gauge", ("event",)),
        ("booking_worker_items_processed", "counter", ("task", "outcome")),  # shown with _total
        ("booking_worker_processing_duration_seconds", "histogram", ("task",)),
        ("booking_worker_errors", "counter", ("kind",)),  # shown with _total
    ],
)
def test_the_metrics_of_the_design_keep_their_names(name: str, kind: str, labels: tuple[str, ...]):
    assert exposed()[name].type == kind
    (collector,) = (one for one in vars(Metrics()).values() if getattr(one, "_name", None) == name)
    assert collector._labelnames == labels


def test_all_metrics_have_our_prefix_and_a_text():
    for name, metric in exposed().items():
        assert name.startswith("booking_worker_")
        assert metric.documentation
