"""The rooms of csrc/: which may include or call which, and that no file leads back to itself.

Read from the text: an include is an edge between files, and so is the use of a function that one other file defines:
of any room where its name begins with mc_, else of the same room. libc's functions, which helpers/freestanding.c
defines for programs without libc, are nobody's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from graphs import circles

CSRC = Path(__file__).resolve().parents[2] / "csrc"
ROOMS: dict[str, set[str]] = {
    "plan": set(),
    "start": {"plan"},
    "kvm": {"plan"},
    "monitor": {"plan", "helpers"},
    "helpers": {"plan", "monitor"},
    "compiled": {"plan", "start", "monitor", "helpers", "vmm"},
    "guest": {"plan", "monitor", "helpers"},
    "virtio": {"plan"},
    "vmexec": {"guest"},
    "vmm": {"plan", "guest", "kvm", "virtio"},
    "floors": {"plan", "helpers"},
    "probe": {"plan"},
    "guests": set(),
}
LIBC = "helpers/freestanding.c"


@cache
def texts() -> dict[str, str]:
    """Each file by its name below csrc/, without comments and strings."""
    found = {}
    for path in sorted(CSRC.rglob("*.[chS]")):
        code = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found[str(path.relative_to(CSRC))] = code
    return found


def includes(name: str) -> set[str]:
    """The headers of ours that a file includes; a name without a room is of the file's own."""
    words = re.findall(r'^\s*#\s*include "([^"]+)"', texts()[name], re.MULTILINE)
    return {word if "/" in word else f"{name.partition('/')[0]}/{word}" for word in words}


@cache
def definitions() -> dict[str, str]:
    """Each function that is not static, and the one file that defines it."""
    found = defaultdict(set)
    for name, code in texts().items():
        if name.endswith(".c") and not name.startswith("guests/") and name != LIBC:
            defined = re.findall(r"^(?!static)[a-z][\w \t*]*?\b(\w+)\([^;{}]*\)\s*\{", code, re.MULTILINE)
            for function in [*defined, *re.findall(r"\.globl (mc_\w+)", code)]:
                found[function].add(name)
    return {function: files.pop() for function, files in found.items() if len(files) == 1 and function != "main"}


def calls(name: str) -> set[str]:
    """The files whose functions are used; a static function of the same name hides another's."""
    code = re.sub(r'"(\\.|[^"\\\n])*"', '""', texts()[name])
    own = set(re.findall(r"^static [\w \t*]*?\b(\w+)\(", code, re.MULTILINE))
    called = set(re.findall(r"\b([a-z]\w*)\(", code)) - own
    given = set(re.findall(r"(?<!struct )\b(mc_\w+)\b", code))  # its address, too
    room = name.partition("/")[0]
    found = {(word, definitions()[word]) for word in (called | given) & set(definitions())}
    return {file for word, file in found if word.startswith("mc_") or file.startswith(f"{room}/")} - {name}


def edges() -> dict[str, set[str]]:
    return {name: includes(name) | (calls(name) if name.endswith(".c") else set()) for name in texts()}


def test_there_are_files_and_functions_to_look_at() -> None:
    assert {name.partition("/")[0] for name in texts()} == set(ROOMS)
    assert definitions()["mc_spawn"] == "plan/spawn.c"
    assert {"plan/walk.c", "plan/clone.c", "plan/walk.h"} <= edges()["plan/spawn.c"]


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


def test_no_file_leads_back_to_itself() -> None:
    assert circles(edges()) == []


def test_rooms_include_and_call_what_they_may() -> None:
    wrong = [
        f"{name} -> {other}"
        for name, others in edges().items()
        for other in others
        if (here := name.partition("/")[0]) != (there := other.partition("/")[0]) and there not in ROOMS[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walk_clones_nothing_and_the_clone_is_called_by_those_above() -> None:
    assert "plan/spawn.c" not in edges()["plan/walk.c"]
    assert {name for name, others in edges().items() if "plan/clone.c" in others} == {
        "floors/floor.c",
        "plan/parent.c",
        "plan/program.c",
        "plan/spawn.c",
    }
