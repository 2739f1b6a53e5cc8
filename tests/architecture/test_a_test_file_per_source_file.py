from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.house import SOURCE, UNIT_TESTS, python_files

WITHOUT: dict[str, str] = {
    "__main__.py": "two lines; every test that starts a process runs them",
    "app.py": "wires the whole: tests/service and tests/faults start it",
    "intake/intake.py": "a Protocol: nothing of it runs",
}
"""Files without a test file of their own, and why. Lines only go."""

COMMANDS = SOURCE / "cli"
"""Commands are tested by running them, in tests/service and tests/acceptance."""


def needs_a_test(path: Path) -> bool:
    return path.name != "__init__.py" and COMMANDS not in path.parents


def place_of_tests(path: Path) -> Path:
    return UNIT_TESTS / path.relative_to(SOURCE).with_name(f"test_{path.name}")


@pytest.mark.parametrize(
    "path",
    [path for path in python_files(SOURCE) if needs_a_test(path)],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_a_source_file_has_a_test_file_or_a_reason(path: Path):
    assert place_of_tests(path).is_file() != (str(path.relative_to(SOURCE)) in WITHOUT)


@pytest.mark.parametrize("name", WITHOUT)
def test_an_exception_is_about_a_file_that_exists(name: str):
    assert (SOURCE / name).is_file()


@pytest.mark.parametrize(
    "path",
    sorted(UNIT_TESTS.rglob("test_*.py")),
    ids=lambda path: str(path.relative_to(UNIT_TESTS)),
)
def test_a_test_file_has_a_source_file(path: Path):
    source = SOURCE / path.relative_to(UNIT_TESTS).with_name(path.name.removeprefix("test_"))
    assert source.is_file()
