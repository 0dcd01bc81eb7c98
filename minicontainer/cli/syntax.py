"""The parameters of a command as data, and a parser that knows no more than them.

click takes several times as long to import as a container to start. So ``run``, ``exec`` and ``kvm-boot`` state their
parameters as data: cli/command.py makes click's command of them, which is the definition of help, errors and
completion; ``Syntax.parse`` reads words that are plainly right, as click would, and leaves all others to click.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple
else:
    from minicontainer.records import NamedTuple

SUFFIX = "-to"  # of the hidden option beside a flag whose value is optional (cli/command.py, OptionalValues)


class Option:
    """An option. ``settings``: those of click.Option; the parser reads ``is_flag``, ``multiple`` and ``default``."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names, self.settings, self.name = names, settings, ""
        self.on: list[str] = []
        self.off: list[str] = []  # --no-x of --x/--no-x
        for name in names:
            if name[0] != "-":
                self.name = name  # the parameter's name, where it is not the option's
                continue
            on, _, off = name.partition("/")
            self.on.append(on)
            if off:
                self.off.append(off)
        if not self.name:
            self.name = next(name for name in self.on if name[1] == "-")[2:].replace("-", "_")
        self.is_flag = "is_flag" in settings or bool(self.off)
        self.multiple = "multiple" in settings
        self.default = () if self.multiple else settings.get("default", False if self.is_flag else None)


class Argument:
    """A positional argument. ``settings``: those of click.Argument."""

    def __init__(self, name: str, *, completes: str = "", **settings: Any) -> None:
        self.name, self.completes, self.settings = name, completes, settings
        self.takes_rest = settings.get("nargs") == -1
        self.required = settings.get("required", not self.takes_rest)


class Words(NamedTuple):
    """What was read: each parameter's value, and how each option was typed last (``-m`` or ``--memory``)."""

    values: dict[str, Any]
    spelled: dict[str, str]


class Syntax:
    """A command: its function, which takes the values by keyword and returns the exit code, and its parameters.

    The help is the function's docstring, of ``width`` columns at most, and the ``epilog``. ``interspersed``: options
    may follow positional arguments."""

    def __init__(
        self,
        name: str,
        function: Callable[..., int],
        options: Sequence[Option],
        arguments: Sequence[Argument],
        *,
        interspersed: bool = True,
        width: int | None = None,
        epilog: str | None = None,
    ) -> None:
        self.name, self.function, self.options, self.arguments = name, function, options, arguments
        self.interspersed, self.width, self.epilog = interspersed, width, epilog

    def spellings(self) -> dict[str, str]:
        """The parameter of each option, by each of its names."""
        return {spelled: option.name for option in self.options for spelled in option.on}

    def parse(self, words: Sequence[str]) -> Words | None:
        """The parameters, as click finds them; None where click has to say what is wrong, or to show help."""
        return _Reading(self).read(words)


class _Reading:
    """One command line that is read."""

    def __init__(self, syntax: Syntax) -> None:
        self.syntax = syntax
        self.on = {name: option for option in syntax.options for name in option.on}
        self.off = {name: option for option in syntax.options for name in option.off}
        self.values: dict[str, Any] = {option.name: option.default for option in syntax.options}
        self.spelled: dict[str, str] = {}

    def read(self, words: Sequence[str]) -> Words | None:
        rest = list(reversed(words))
        plain: list[str] = []
        while rest:
            word = rest.pop()
            if word == "--":
                break
            if word[:1] != "-" or word == "-":
                plain.append(word)
                if not self.syntax.interspersed:
                    break
            elif not (self._long(word, rest) if word[1] == "-" else self._letters(word, rest)):
                return None
        return Words(self.values, self.spelled) if self._arguments([*plain, *reversed(rest)]) else None

    def _long(self, word: str, rest: list[str]) -> bool:
        """Read ``--option``, ``--option=value`` or ``--option value``; False if click has to."""
        name, equals, value = word.partition("=")
        option = self.on.get(name)
        if option is None:
            option = self.off.get(name)
            return option is not None and not equals and self._set(option, name, False)
        if not option.is_flag:
            if not equals and not rest:
                return False
            return self._set(option, name, value if equals else rest.pop())
        beside = self.on.get(name + SUFFIX)
        if not equals:
            return self._set(option, name, True)
        return beside is not None and self._set(option, name, True) and self._set(beside, name + SUFFIX, value)

    def _letters(self, word: str, rest: list[str]) -> bool:
        """Read ``-it``, ``-m64m`` or ``-m 64m``; False if click has to."""
        for end, letter in enumerate(word[1:], 2):
            option = self.on.get(f"-{letter}")
            if option is None:
                return False
            if not option.is_flag:
                if end == len(word) and not rest:
                    return False
                return self._set(option, f"-{letter}", word[end:] or rest.pop())
            self._set(option, f"-{letter}", True)
        return True

    def _set(self, option: Option, spelled: str, value: Any) -> bool:
        self.values[option.name] = (*self.values[option.name], value) if option.multiple else value
        self.spelled[option.name] = spelled
        return True

    def _arguments(self, words: list[str]) -> bool:
        """Assign the positional arguments; False if there are too few or too many."""
        for argument in self.syntax.arguments:
            if argument.required and not words:
                return False
            if argument.takes_rest:
                self.values[argument.name], words = tuple(words), []
            else:
                self.values[argument.name] = words.pop(0) if words else None
        return not words
