"""Mutations of what JSON says: keys, types, numbers, paths and texts. A `.jsonl` file has one value a line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

_MARK = "put the raw value here"

TYPES = ("null", "true", "0", "1.5", '"text"', "[]", "{}", "[1, 2]", '{"a": 1}')
NUMBERS = (
    "-1",
    "0",
    "1",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e308",
    "-0.0",
    "0.1",
    f"{2**31}",
    f"{2**63}",
    f"{10**30}",
)
MONSTERS = {
    "a number of 5,000 digits": "9" * 5000,
    "10,000 nested lists": "[" * 10_000 + "]" * 10_000,
    "10,000 nested objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "a text of a million letters": json.dumps("x" * 10**6),
    "a list of 100,000 numbers": json.dumps([0] * 100_000),
}
TEXTS = (
    "",
    " ",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\u202egnp.exe",
    "\u2028",
    "\x00",
    "\ud800",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "%s %d {0}",
    "CON",
    "日本語" * 40,
)


def _keys(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    found: list[tuple[Any, ...]] = []
    for key, item in inner:
        found += [(*place, key), *_keys(item, (*place, key))]
    return found


def _choose(value: Any, rng: Random, wanted: Callable[[Any], bool] = lambda _: True) -> tuple[Any, ...] | None:
    """A place, every field as often as any other however many entries of a list have it."""
    by_field: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for place in _keys(value):
        if wanted(_at(value, place)):
            by_field[".".join("#" if isinstance(key, int) else key for key in place)].append(place)
    return rng.choice(by_field[rng.choice(sorted(by_field))]) if by_field else None


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _edit(path: Path, rng: Random, edit: Callable[[Any], str | None]) -> str | None:
    """Change the value of a file, or of one of its lines, in place; a value equal to the mark becomes raw text."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        number = rng.randrange(len(lines))
        value = json.loads(lines[number])
    except ValueError:
        return None
    done = edit(value)
    if done is None:
        return None
    raw, _, words = done.partition("\t")
    lines[number] = json.dumps(value).replace(json.dumps(_MARK), raw)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return words + (f" in line {number + 1}" if path.suffix == ".jsonl" else "")


def _set(path: Path, rng: Random, raw: str, words: str, wanted: Callable[[Any], bool] = lambda _: True) -> str | None:
    def edit(value: Any) -> str | None:
        place = _choose(value, rng, wanted)
        if place is None:
            return None
        _at(value, place[:-1])[place[-1]] = _MARK
        return f"{raw}\tput {words} at {'.'.join(map(str, place))}"

    return _edit(path, rng, edit)


def delete_key(path: Path, rng: Random, _: Path) -> str | None:
    """Take a key or an entry out."""

    def edit(value: Any) -> str | None:
        place = _choose(value, rng)
        if place is None:
            return None
        del _at(value, place[:-1])[place[-1]]
        return f"\tdeleted {'.'.join(map(str, place))}"

    return _edit(path, rng, edit)


def repeat_entry(path: Path, rng: Random, _: Path) -> str | None:
    """Put a list's entry there twice."""

    def edit(value: Any) -> str | None:
        place = _choose(value, rng, lambda found: isinstance(found, list) and bool(found))
        if place is None:
            return None
        entries = _at(value, place)
        entries.append(rng.choice(entries))
        return f"\trepeated an entry of {'.'.join(map(str, place))}"

    return _edit(path, rng, edit)


def change_type(path: Path, rng: Random, _: Path) -> str | None:
    """Put a value of some type there."""
    raw = rng.choice(TYPES)
    return _set(path, rng, raw, raw)


def change_number(path: Path, rng: Random, _: Path) -> str | None:
    """Put another number in a number's place: negative, huge, not finite."""
    raw = rng.choice(NUMBERS)
    return _set(path, rng, raw, raw, lambda found: isinstance(found, (int, float)) and not isinstance(found, bool))


def put_monster(path: Path, rng: Random, _: Path) -> str | None:
    """Put something very deep or very long there."""
    words = rng.choice(sorted(MONSTERS))
    return _set(path, rng, MONSTERS[words], words)


def change_text(path: Path, rng: Random, _: Path) -> str | None:
    """Put a text with controls, markup or nothing in a text's place."""
    text = rng.choice(TEXTS)
    return _set(path, rng, json.dumps(text), ascii(text), lambda found: isinstance(found, str))


def point_out(path: Path, rng: Random, outside: Path) -> str | None:
    """Put a path out of the run in a text's place."""
    target = rng.choice(
        (str(outside / "made"), "../../../../outside/made", "..", "/dev/zero", "/", "a/../../../outside/made")
    )
    return _set(path, rng, json.dumps(target), ascii(target), lambda found: isinstance(found, str))


def change_key(path: Path, rng: Random, _: Path) -> str | None:
    """Give an object's key another name."""

    def edit(value: Any) -> str | None:
        place = _choose(value, rng)
        if place is None or not isinstance(place[-1], str):
            return None
        owner, name = _at(value, place[:-1]), rng.choice(TEXTS)
        owner[name] = owner.pop(place[-1])
        return f"\trenamed {'.'.join(map(str, place))} to {name!a}"

    return _edit(path, rng, edit)


def change_line(path: Path, rng: Random, _: Path) -> str | None:
    """Drop, double or move a line of a `.jsonl` file."""
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    if path.suffix != ".jsonl" or len(lines) < 2:
        return None
    number = rng.randrange(len(lines))
    what = rng.choice(("dropped", "doubled", "moved"))
    line = lines.pop(number)
    if what == "doubled":
        lines[number:number] = [line, line]
    elif what == "moved":
        lines.insert(rng.randrange(len(lines)), line)
    path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return f"{what} line {number + 1}"


def other_document(path: Path, rng: Random, _: Path) -> str | None:
    """Put another whole document there."""
    words, raw = rng.choice([*((raw, raw) for raw in TYPES), *sorted(MONSTERS.items())])
    path.write_text(raw, encoding="utf-8")
    return f"replaced by {words}"


MUTATIONS = (
    delete_key,
    delete_key,
    change_type,
    change_type,
    change_number,
    change_number,
    put_monster,
    change_text,
    point_out,
    change_key,
    repeat_entry,
    change_line,
    other_document,
)
