from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.house import LUA, SOURCE

SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua"))
RUNNERS = {"_run", "_run_for", "_run_status", "_settle"}
"""The ways in which a method of BookingQueue runs a script by its name."""


def runs() -> Iterator[tuple[str, str]]:
    """(script, method) for each script that a method of the queue runs."""
    for path in sorted((SOURCE / "queue").glob("*.py")):
        for method in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(method):
                    match call:
                        case ast.Call(
                            func=ast.Attribute(attr=runner),
                            args=[ast.Constant(value=str(name)), *_],
                        ) if runner in RUNNERS:
                            yield name, f"{path.stem}.{method.name}"


METHODS = list(runs())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_exactly_one_method(script: str):
    assert len([method for name, method in METHODS if name == script]) == 1


def test_no_method_runs_a_script_that_is_not_there():
    assert {name for name, _ in METHODS} <= set(SCRIPTS)
    assert METHODS


def test_every_include_is_included():
    text = "\n".join(path.read_text(encoding="utf-8") for path in LUA.rglob("*.lua"))
    wanted = {line.split()[-1] for line in text.splitlines() if line.startswith("-- @include ")}
    assert wanted == {path.stem for path in (LUA / "includes").glob("*.lua")}
