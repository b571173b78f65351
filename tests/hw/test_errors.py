"""The error's text: what must be, what was, and the nearest match."""

from hw import InputError, unknown_name


def test_names_the_choices_and_the_nearest() -> None:
    error = unknown_name("family", "trunkated", ["array", "truncated"])
    assert isinstance(error, InputError)
    assert str(error) == (
        "family must be one of array, truncated, not 'trunkated'; did you mean 'truncated'?"
    )


def test_says_nothing_where_nothing_is_near() -> None:
    assert str(unknown_name("family", "zzz", ["array"])) == "family must be one of array, not 'zzz'"
