"""The error for what a user gave: one line on what must be, what was, and the nearest match."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What a user gave is wrong; the message is one line, fit to be printed as it stands."""


def unknown_name(what: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for ``name`` not being one of ``choices``, with the nearest of them."""
    known = sorted(choices)
    return InputError(
        f"{what} must be one of {', '.join(known)}, not {name!r}{did_you_mean(name, known)}"
    )


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the choice nearest to ``name``; empty where none is near."""
    nearest = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
