"""A mistake of the user's, told in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """What was asked cannot be done; the message is one line: the thing, what was given, what was expected."""


def unknown(what: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is none of `known`: names the nearest one, or all where none is near."""
    known = list(known)
    near = get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(known)}"
    return UserError(f"unknown {what} {given!r}; {hint}")
