"""The loader of the Lua files: turns a header into code, so that KEYS and ARGV have names.

Each file says in its header which keys and arguments it takes; an include brings its own. The
loader joins them, writes ``local positions = KEYS[2]`` for each, and remembers the order, so
that Python passes everything by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import msgpack

_FOLDER = "lua"
_SECTION = re.compile(r"-- (KEYS|ARGV|RETURNS|ERRORS) ?(.*)")
_INCLUDE = re.compile(r"-- @include (\w+)")
_ENTRY = re.compile(r"(\w+)(?:  +(\S.*))?")


_pack: Final = msgpack.Packer().pack


@dataclass(frozen=True, slots=True)
class Script:
    """One transition: its whole text, and the names of what it takes, in their order."""

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    ints: tuple[str, ...]
    """The whole numbers in ARGV, packed into one argument: from text Lua reads them slowly."""
    args: tuple[str, ...]
    """The others, of one value each."""
    each: str
    """The last, which stands for any number of values; empty where there is none."""
    errors: frozenset[str]

    def argv(self, given: Mapping[str, Any], *values: str | bytes | int) -> list[str | bytes | int]:
        """ARGV: what is given by names, and the values of the argument of the kind "each"."""
        args = [given[name] for name in self.args]
        if self.ints:
            args.insert(0, b"".join([_pack(given[name]) for name in self.ints]))
        args.extend(values)
        return args


@dataclass(slots=True)
class _Header:
    keys: dict[str, str]
    args: dict[str, str]
    errors: set[str]
    includes: list[str]


@cache
def _parse_header(source: str) -> _Header:
    header = _Header({}, {}, set(), [])
    section = ""
    for line in source.splitlines():
        if not line.startswith("--"):
            break
        if include := _INCLUDE.fullmatch(line):
            header.includes.append(include[1])
            continue
        if started := _SECTION.fullmatch(line):
            section, content = started[1], started[2].strip()
        elif line.startswith("--     "):
            content = line[2:].strip()
        else:
            section, content = "", ""
        entry = _ENTRY.fullmatch(content)
        if section == "ERRORS":
            header.errors.update(content.split())
        elif entry and section in {"KEYS", "ARGV"}:
            target = header.keys if section == "KEYS" else header.args
            target[entry[1]] = entry[2] or ""
    return header


@cache
def _read(name: str) -> str:
    path = resources.files(__package__).joinpath(_FOLDER, *name.split("/"))
    return path.read_text(encoding="utf-8")


def _collect(name: str, overrides: Mapping[str, str], seen: dict[str, tuple[_Header, str]]) -> None:
    """Add the includes of a file, then the file itself, each once, dependencies first."""
    if name in seen:
        return
    source = overrides.get(name) or _read(f"{name}.lua")
    header = _parse_header(source)
    for include in header.includes:
        _collect(f"includes/{include}", overrides, seen)
    seen[name] = (header, source)


def _preamble(
    keys: Iterable[str], ints: Sequence[str], args: Sequence[str], each: str
) -> Iterator[str]:
    yield from (f"local {key} = KEYS[{at}]" for at, key in enumerate(keys, 1))
    if ints:
        yield f"local {', '.join(ints)} = cmsgpack.unpack(ARGV[1])"
    first = 2 if ints else 1
    yield from (f"local {arg} = ARGV[{at}]" for at, arg in enumerate(args, first))
    if each:
        yield f"local {each} = {first - 1 + len(args)}"


def load(name: str, overrides: Mapping[str, str] | None = None) -> Script:
    """The script ``lua/<name>.lua`` with its includes.

    ``overrides`` maps file names (such as ``includes/now``) to text to be used instead; tests
    give a clock that they move.
    """
    seen: dict[str, tuple[_Header, str]] = {}
    _collect(name, overrides or {}, seen)
    keys: dict[str, str] = {}
    args: dict[str, str] = {}
    errors: set[str] = set()
    for header, _ in seen.values():
        keys |= header.keys
        args |= header.args
        errors |= header.errors
    kinds = {arg: said.split(maxsplit=1)[0] if said else "" for arg, said in args.items()}
    ints = tuple(arg for arg, kind in kinds.items() if kind == "int")
    single = tuple(arg for arg, kind in kinds.items() if kind not in {"int", "each"})
    each = next((arg for arg, kind in kinds.items() if kind == "each"), "")
    text = "\n".join(
        [*_preamble(keys, ints, single, each), *(source for _, source in seen.values())]
    )
    return Script(
        name=name,
        text=text,
        sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        keys=tuple(keys),
        ints=ints,
        args=single,
        each=each,
        errors=frozenset(errors),
    )


@cache
def names() -> tuple[str, ...]:
    """The names of all transitions: one Lua file each."""
    folder = resources.files(__package__).joinpath(_FOLDER)
    return tuple(
        sorted(
            entry.name.removesuffix(".lua")
            for entry in folder.iterdir()
            if entry.name.endswith(".lua")
        )
    )
