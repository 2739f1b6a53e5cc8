from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from booking_worker.cli import output
from booking_worker.cli.output import CommandFailed


def test_a_pipe_gets_each_row_on_one_line(capsys: pytest.CaptureFixture[str]):
    output.print_table(("item", "message"), [("a", "x" * 300), ("b", "")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.split()[0] in "ab"] == [["a", "x" * 300], ["b"]]
    assert all(line == line.rstrip() for line in lines)


def test_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]):
    output.print_table(("n",), [(5,), (1000,)], numbers=("n",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("   5")
    assert lines[-1].endswith("1000")


def test_what_a_peer_says_is_text_and_no_markup(capsys: pytest.CaptureFixture[str]):
    output.print_table(("message",), [("[red]no[/red] [/] \x1b[2J\x07",)])
    output.print_facts({"message": "[bold]\x1b]0;title\x07"})
    output.print_error("\x1b[31mno")
    out, err = capsys.readouterr()
    assert "[red]no[/red] [/]" in out
    assert "[bold]" in out
    assert "\x1b" not in out + err
    assert "\x07" not in out + err


def test_empty_facts_are_left_out(capsys: pytest.CaptureFixture[str]):
    output.print_facts({"event": "concert", "message": "", "capacity": None, "attempts": 0})
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()] == [["event", "concert"], ["attempts", "0"]]


def test_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]):
    output.print_json({"user": "ünal", "n": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"user": "ünal", "n": 1}
    assert err == ""


def test_an_error_comes_with_advice_on_standard_error(capsys: pytest.CaptureFixture[str]):
    output.print_error("no", "do this\nor that")
    assert capsys.readouterr() == ("", "Error: no\ndo this\nor that\n")


@pytest.mark.parametrize(
    "milliseconds, text",
    [
        (0, "0 ms"),
        (850, "850 ms"),
        (12_300, "12 s"),
        (119_000, "119 s"),
        (121_000, "2 min"),
        (3 * 3_600_000, "3 h"),
        (5 * 86_400_000, "5 d"),
    ],
)
def test_durations_have_the_unit_that_says_something(milliseconds: int, text: str):
    assert output.duration(milliseconds) == text


def test_never_is_empty_and_a_moment_is_in_utc():
    assert output.clock_time(0) == ""
    assert output.clock_time(1_767_225_599_999) == "2025-12-31 23:59:59 UTC"


def test_a_ready_file_is_there_whole(tmp_path: Path):
    path = tmp_path / "ready"
    path.write_text("old")
    output.write_ready_file(path, {"pid": 1})
    assert json.loads(path.read_text()) == {"pid": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_ready_file_that_cannot_be_written_is_told_and_no_half_is_left(tmp_path: Path):
    with pytest.raises(CommandFailed, match="--ready-file"):
        output.write_ready_file(tmp_path / "no" / "ready", {})
    directory = tmp_path / "directory"
    directory.mkdir()
    with pytest.raises(CommandFailed, match="--ready-file"):
        output.write_ready_file(directory, {})
    assert list(tmp_path.iterdir()) == [directory]
    for nameless in ("", ".", "/"):
        with pytest.raises(CommandFailed, match="it names no file"):
            output.write_ready_file(Path(nameless), {})


def run_into(target: int, before: str = "") -> tuple[int, str]:
    """The exit code and the errors of a command whose output goes there."""
    program = (
        f"import resource, sys\n{before}\n"
        "from booking_worker.cli import main\n"
        "sys.argv = ['booking-worker', 'config']\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        stdout=target,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stderr


def test_output_that_cannot_be_written_is_told_on_one_line(tmp_path: Path):
    with (tmp_path / "out").open("wb") as file:
        code, said = run_into(file.fileno(), "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))")
    assert (code, said) == (1, f"Error: cannot write: {os.strerror(errno.EFBIG)}\n")


def test_a_reader_that_has_left_hears_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    assert run_into(writer) == (1, "")
    os.close(writer)


def test_another_error_of_the_system_is_not_taken_for_one_of_writing():
    with pytest.raises(ConnectionResetError):
        output.give_up_writing(ConnectionResetError(errno.ECONNRESET, "no"))


def test_a_file_that_takes_nothing_more_is_named():
    full = (
        "import booking_worker.config\n"
        "def load(): raise OSError(28, 'full', '/data/sandbox.db')\n"
        "booking_worker.config.load = load"
    )
    assert run_into(subprocess.DEVNULL, full) == (1, "Error: cannot write /data/sandbox.db: full\n")
