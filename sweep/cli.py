"""The command line of a config: tyro's, with every mistake told in one line."""

import inspect
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tyro

from sweep.config import Config, flag_name
from sweep.errors import UserError, unknown
from sweep.presets import PRESETS
from sweep.processes import Place

_PLACE = ("--coordinator", "--processes", "--process")


def parse(arguments: Sequence[str], default: Config | None = None) -> Config:
    """The config that these command line arguments ask for; `--help` prints and exits.

    `--preset NAME` is where the other flags' defaults come from; without it they are `default`'s, or the quickstart's.

    Raises:
      UserError: an unknown flag or preset, a value of the wrong type or number, or whatever `Config` itself refuses.
    """
    _check(arguments)
    preset, arguments = _preset(arguments)
    start = PRESETS[preset or "quickstart"]() if preset or default is None else default
    summaries = "\n".join(f"  {name}: {(make.__doc__ or '').splitlines()[0]}" for name, make in PRESETS.items())
    description = "\n\n".join(
        (
            str(inspect.getdoc(Config)),
            "--resume RUN goes on with a run that was interrupted, or, with a larger --steps, one that was not.",
            "--plan says what a sweep would take of memory and time, and stops.",
            "--distributed makes this one of several processes that are one run: found by themselves on SLURM, "
            "Kubernetes and TPU pods, or told by --coordinator HOST:PORT --processes N --process I.",
            f"--preset NAME first sets what a known experiment needs:\n{summaries}",
        )
    )
    return tyro.cli(Config, args=arguments, prog="train.py", default=start, description=description)


def resumed(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The run that `--resume` names, if it is given, and the other arguments.

    Raises:
      UserError: it is given twice or without a folder.
    """
    name, rest = _taken("--resume", arguments)
    return None if name is None else Path(name), rest


def placed(arguments: Sequence[str]) -> tuple[Place | None, list[str]]:
    """The process's place among those that are one run, if `--distributed` says that there are several.

    Raises:
      UserError: a part of it is no number, or given without `--distributed`.
    """
    rest = [argument for argument in arguments if argument != "--distributed"]
    several = len(rest) < len(arguments)
    values: dict[str, str | None] = {}
    for flag in _PLACE:
        values[flag], rest = _taken(flag, rest)
        if values[flag] is not None and not several:
            raise UserError(f"{flag} is of --distributed; give that too")
    coordinator, *numbers = values.values()
    for flag, value in values.items():
        if flag != "--coordinator" and value is not None and not (value.isascii() and value.isdigit()):
            raise UserError(f"{flag} takes a whole number, got {value!r}")
    processes, process = (None if value is None else int(value) for value in numbers)
    if processes is not None and process is not None and process >= processes:
        raise UserError(f"--process must be below --processes {processes}, got {process}")
    return Place(coordinator, processes, process) if several else None, rest


def _preset(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The preset that is asked for, if one is, and the other arguments."""
    name, rest = _taken("--preset", arguments)
    if name is not None and name not in PRESETS:
        raise unknown("--preset", name, PRESETS)
    return name, rest


def _taken(wanted: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of a flag that is none of a config's, if it is given, and the other arguments."""
    values, rest, following = [], [], iter(arguments)
    for argument in following:
        flag, equals, value = argument.partition("=")
        if flag != wanted:
            rest.append(argument)
            continue
        value = value if equals else next(following, "")
        if not value or value.startswith("--"):
            raise UserError(f"{wanted} is empty; give a value")
        values.append(value)
    if len(values) > 1:
        raise UserError(f"{wanted} is given twice; give it once")
    return values[0] if values else None, rest


def _check(arguments: Sequence[str]) -> None:
    """Finds what tyro would report over many lines."""
    hints = get_type_hints(Config)
    flags = {flag_name(field.name): hints[field.name] for field in fields(Config)}
    switches = {"--no-" + flag[2:]: bool for flag, hint in flags.items() if hint is bool}
    switches |= dict.fromkeys(("--plan", "--distributed", "--help", "-h"), bool)
    known = {**flags, **switches, **dict.fromkeys(("--preset", "--resume", *_PLACE), str)}
    flag, values = None, []
    for argument in (*arguments, None):
        is_value = argument is not None and (not argument.startswith("-") or _is_number(argument))
        if is_value and flag is None:
            raise UserError(f"unexpected argument {argument!r}; every value belongs to a flag, see --help")
        if argument is not None and is_value:
            values.append(argument)
            continue
        if flag is not None:
            _check_values(flag, known[flag], values)
        if argument is not None:
            flag, equals, value = argument.partition("=")
            flag = flag.replace("_", "-")
            if flag not in known:
                raise unknown("flag", flag, known)
            values = [value] if equals else []


def _check_values(flag: str, hint: Any, values: list[str]) -> None:
    if hint is bool:
        if values:
            raise UserError(f"{flag} takes no value, got {' '.join(values)!r}")
        return
    several = any(get_origin(kind) is tuple for kind in (hint, *get_args(hint)))
    if not values:
        raise UserError(f"{flag} is empty; give {'at least one' if several else 'a'} value")
    if len(values) > 1 and not several:
        raise UserError(f"{flag} takes one value, got {' '.join(values)!r}")
    kinds = _scalars(hint)
    for value in values:
        if not any(_reads_as(kind, value) for kind in kinds):
            names = " or ".join({int: "a whole number", float: "a number"}[k] for k in kinds if k in (int, float))
            raise UserError(f"{flag} takes {names}, got {value!r}")


def _scalars(hint: Any) -> list[type]:
    """The plain types inside a hint: int of `tuple[int, ...] | None`."""
    if get_args(hint):
        return [kind for inner in get_args(hint) if inner not in (..., type(None)) for kind in _scalars(inner)]
    return [hint]


def _reads_as(kind: type, value: str) -> bool:
    if kind in (str, Path):
        return True
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    return _reads_as(float, text)
