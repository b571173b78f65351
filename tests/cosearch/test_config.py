"""The configuration: defaults, TOML in and out, overrides, and one line for everything wrong."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosearch.config import (
    Config,
    Hardware,
    Search,
    Space,
    config_from_table,
    differing_keys,
    load_config,
    overridden,
    parse_config,
)
from hw.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_defaults_survive_toml() -> None:
    assert parse_config(Config().to_toml()) == Config()


@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(1e-300, 1e300),
    cells=st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=40),
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True),
)
def test_any_configuration_survives_toml(seed: int, rate: float, cells: str, name: str) -> None:
    search = Search(alpha_learning_rate=rate)
    config = Config(name=name, seed=seed, search=search, hardware=Hardware(cells=cells))
    assert parse_config(config.to_toml()) == config


def test_every_setting_says_what_it_means() -> None:
    for section in (Config(), *vars(Config()).values()):
        if dataclasses.is_dataclass(section):
            for setting in dataclasses.fields(section):
                assert "meaning" in setting.metadata or dataclasses.is_dataclass(setting.type)


def test_overrides_are_read_as_the_type_of_their_key() -> None:
    config = load_config(
        None,
        [
            "search.epochs=3",
            "search.energy_weight=2",
            "train.learning_rate=.5",
            "space.operations=none, skip_connect",
            'multipliers.built_also=["mul8u_array"]',
            "name=123",
        ],
        seed=7,
    )
    assert config.search.epochs == 3
    assert config.search.energy_weight == 2.0
    assert isinstance(config.search.energy_weight, float)
    assert config.train.learning_rate == 0.5
    assert config.space.operations == ("none", "skip_connect")
    assert config.multipliers.built_also == ("mul8u_array",)
    assert (config.name, config.seed) == ("123", 7)


def test_overrides_take_effect_at_once() -> None:
    """Warm-up and epochs are valid together only, in whatever order they are given."""
    config = load_config(
        None, ["search.weight_learning_rate_min=0.5", "search.weight_learning_rate=0.6"]
    )
    assert config.search.weight_learning_rate_min == 0.5


def test_an_override_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("seed = 5\n[search]\nepochs = 9\n")
    config = load_config(path, ["search.epochs=4"])
    assert (config.seed, config.search.epochs, config.train.epochs) == (5, 4, Config().train.epochs)


def test_a_cell_library_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "my.lib").write_text("library (x) {}")
    path = tmp_path / "config.toml"
    path.write_text('[hardware]\ncells = "my.lib"\n')
    assert load_config(path).hardware.cells == str(tmp_path / "my.lib")


def test_resolving_writes_the_number_of_threads() -> None:
    assert Config().resolved().threads >= 1
    assert Config(threads=3, device="cpu").resolved() == Config(threads=3, device="cpu")


def test_resolving_writes_the_device() -> None:
    assert Config().resolved().device == "cpu"
    assert Config(device="auto").resolved().device in ("cpu", "cuda")


def test_differing_keys_are_named() -> None:
    other = overridden(Config(), ["search.epochs=3", "seed=1"])
    assert differing_keys(Config(), other) == ("seed", "search.epochs")


def test_the_shipped_configurations_are_valid() -> None:
    paths = sorted(CONFIGS.glob("*.toml"))
    assert paths
    for path in paths:
        load_config(path)


def test_the_shipped_digits_configuration_is_the_default() -> None:
    """``Config().to_toml()`` writes it anew after a change of the defaults."""
    assert (CONFIGS / "digits.toml").read_text() == Config().to_toml()


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("digits-s2", "skip_connect,sep_conv_3x3"),
        ("digits-s3", "none,skip_connect,sep_conv_3x3"),
        ("digits-s4", "noise,sep_conv_3x3"),
    ],
)
def test_the_robust_subspaces_differ_in_their_operations_alone(name: str, operations: str) -> None:
    config = overridden(Config(), [f"space.operations={operations}"], name=name)
    assert (CONFIGS / f"{name}.toml").read_text() == config.to_toml()


def test_the_presets_of_cifar10_have_the_published_sizes() -> None:
    darts, partial = (load_config(CONFIGS / f"{n}darts-cifar10.toml") for n in ("", "pc-"))
    assert (darts.space.channels, darts.space.cells, darts.space.nodes) == (16, 8, 4)
    assert (darts.train.channels, darts.train.cells, darts.train.epochs) == (36, 20, 600)
    others = {"name", "search.strategy", "search.warmup_share"}
    assert set(differing_keys(darts, partial)) == others


def test_the_preset_of_one_multiplier_differs_in_it_alone() -> None:
    fixed = "search.fixed_multiplier=mul8s_truncated_k7"
    config = overridden(Config(), [fixed], name="digits-fixed")
    assert (CONFIGS / "digits-fixed.toml").read_text() == config.to_toml()


@pytest.mark.parametrize(
    "other",
    ["search.beta_grain=layer", "space.approximated=depthwise", "search.selection=perturbation"],
)
def test_a_selection_within_a_budget_is_of_the_default_grain(other: str) -> None:
    with pytest.raises(InputError, match="selection_budget"):
        overridden(Config(), ["search.selection_budget=0.5", other])


def test_candidates_of_an_operation_are_numbers_of_candidates() -> None:
    entries = ["sep_conv_3x3: mul8s_truncated_k7 mul8s_array", "classifier: mul8s_array"]
    config = config_from_table({"multipliers": {"by_operation": entries}})
    assert config.multipliers.allowed() == {"sep_conv_3x3": (0, 2), "classifier": (0,)}
    assert parse_config(config.to_toml()) == config


def test_a_configuration_without_the_newer_settings_loads() -> None:
    old = parse_config('[search]\nstrategy = "darts"\nepochs = 15\nenergy_weight = 0.1\n')
    assert old == Config()


WRONG_TABLES = {
    "unknown section": (
        {"serach": {}},
        "configuration key must be one of data, device, hardware, multipliers, name, precision, "
        "search, seed, space, tensorboard, threads, train, not 'serach'; did you mean 'search'?",
    ),
    "unknown key": (
        {"data": {"nam": "digits"}},
        "key of [data] must be one of crop_padding, flip, most_images, name, path, test_share, "
        "validation_share, not 'nam'; did you mean 'name'?",
    ),
    "no table": ({"search": 3}, "search must be a table, [search], not 3"),
    "text for a number": (
        {"search": {"epochs": "x"}},
        "search.epochs must be a whole number, not 'x'",
    ),
    "fraction": ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
    "truth value": ({"seed": True}, "seed must be a whole number, not True"),
    "number for text": ({"name": 3}, "name must be text, not 3"),
    "not finite": (
        {"search": {"energy_weight": float("nan")}},
        "search.energy_weight must be a finite number, not nan",
    ),
    "beyond the floats": (
        {"train": {"weight_decay": 10**400}},
        f"train.weight_decay must be a finite number, not {10**400}",
    ),
    "negative seed": ({"seed": -1}, "seed must be at least 0 and at most 4294967295, not -1"),
    "no epochs": (
        {"search": {"epochs": 0}},
        "search.epochs must be at least 1 and at most 100000, not 0",
    ),
    "rate of zero": (
        {"train": {"learning_rate": 0}},
        "train.learning_rate must be more than 0, not 0.0",
    ),
    "momentum of one": (
        {"train": {"momentum": 1}},
        "train.momentum must be at least 0 and less than 1, not 1.0",
    ),
    "clock of zero": (
        {"hardware": {"clock_mhz": 0}},
        "hardware.clock_mhz must be more than 0, not 0.0",
    ),
    "unknown operation": (
        {"space": {"operations": ["sep_conf_3x3"]}},
        "space.operations must be one of avg_pool_3x3, dil_conv_3x3, dil_conv_5x5, max_pool_3x3, "
        "noise, none, sep_conv_3x3, sep_conv_5x5, skip_connect, not 'sep_conf_3x3'; "
        "did you mean 'sep_conv_3x3'?",
    ),
    "no list": (
        {"space": {"operations": "none"}},
        "space.operations must be a list of names, not 'none'",
    ),
    "empty list": (
        {"space": {"operations": []}},
        "space.operations must hold at least one name, not an empty list",
    ),
    "twice": (
        {"space": {"operations": ["none", "none"]}},
        "space.operations must name each once, not 'none' 2 times",
    ),
    "none alone": (
        {"space": {"operations": ["none"]}},
        "space.operations must hold an operation beside 'none', not it alone",
    ),
    "noise alone": (
        {"space": {"operations": ["none", "noise"]}},
        "space.operations must hold an operation that passes something on, not 'none' and 'noise' "
        "alone",
    ),
    "unknown strategy": (
        {"search": {"strategy": "dart"}},
        "search.strategy must be one of darts, darts_second_order, drnas, gdas, "
        "pc_darts, not 'dart'; did you mean 'darts'?",
    ),
    "unknown data set": (
        {"data": {"name": "digit"}},
        "data.name must be one of cifar10, digits, image_folder, not 'digit'; "
        "did you mean 'digits'?",
    ),
    "exact multiplier not first": (
        {"multipliers": {"candidates": ["mul8s_truncated_k4"]}},
        "multipliers.candidates must begin with the exact multiplier 'mul8s_array', "
        "not 'mul8s_truncated_k4'",
    ),
    "named in both lists": (
        {"multipliers": {"built_also": ["mul8s_array"]}},
        "multipliers.built_also must name multipliers beside the candidates, not 'mul8s_array'",
    ),
    "warm-up too long": (
        {"search": {"warmup_share": 1.0}},
        "search.warmup_share must be at least 0 and less than 1, not 1.0",
    ),
    "rate that rises": (
        {"search": {"weight_learning_rate": 0.01, "weight_learning_rate_min": 0.1}},
        "search.weight_learning_rate_min must be at most search.weight_learning_rate (0.01), "
        "not 0.1",
    ),
    "temperature that rises": (
        {"search": {"temperature": 1.0, "temperature_end": 2.0}},
        "search.temperature_end must be at most search.temperature (1.0), not 2.0",
    ),
    "partial channels that do not divide": (
        {"search": {"strategy": "pc_darts", "partial_channels": 3}},
        "search.partial_channels must divide space.channels (8), not 3",
    ),
    "nothing to replace skips with": (
        {"space": {"operations": ["none", "skip_connect"]}, "search": {"most_skips": 1}},
        "search.most_skips must be -1 where space.operations holds nothing to replace a skip with, "
        "not 1",
    ),
    "fixed multiplier that is no candidate": (
        {"search": {"fixed_multiplier": "mul8s_truncated_k4"}},
        "search.fixed_multiplier must be one of mul8s_array, mul8s_broken_array_h2_v7, "
        "mul8s_truncated_k5, mul8s_truncated_k7, mul8s_truncated_k8, mul8s_truncated_k9, "
        "not 'mul8s_truncated_k4'; did you mean 'mul8s_truncated_k9'?",
    ),
    "unknown line of energy": (
        {"search": {"energy_lines": ["register"]}},
        "search.energy_lines must be one of accumulators, multiplications, off_chip_memory, "
        "on_chip_memory, registers, not 'register'; did you mean 'registers'?",
    ),
    "no line of energy": (
        {"search": {"energy_lines": []}},
        "search.energy_lines must hold at least one name, not an empty list",
    ),
    "candidates of an unknown operation": (
        {"multipliers": {"by_operation": ["sep_conv_3x4: mul8s_array"]}},
        "operation of multipliers.by_operation must be one of classifier, dil_conv_3x3, "
        "dil_conv_5x5, preprocess, sep_conv_3x3, sep_conv_5x5, skip_connect, stem, "
        "not 'sep_conv_3x4'; did you mean 'sep_conv_3x3'?",
    ),
    "an operation without candidates": (
        {"multipliers": {"by_operation": ["sep_conv_3x3"]}},
        "multipliers.by_operation of sep_conv_3x3 must hold at least one name, not an empty list",
    ),
    "candidates of operations in one row of betas": (
        {
            "multipliers": {"by_operation": ["sep_conv_3x3: mul8s_array"]},
            "search": {"beta_grain": "network"},
        },
        "search.beta_grain must be edge_operation or layer with multipliers.by_operation, "
        "not network",
    ),
    "candidates of operations in Dirichlet distributions": (
        {
            "multipliers": {"by_operation": ["sep_conv_3x3: mul8s_array"]},
            "search": {"strategy": "drnas"},
        },
        "search.strategy must be another than drnas with multipliers.by_operation: "
        "a Dirichlet distribution knows no share of zero",
    ),
    "name with a slash": (
        {"name": "a/b"},
        "name must be 1 to 64 letters, digits, '.', '_' or '-', beginning with none of '.' and "
        "'-', not 'a/b'",
    ),
    "line break": (
        {"hardware": {"cells": "a\nb"}},
        "hardware.cells must be printable text, not 'a\\nb'",
    ),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_what_is_wrong_is_one_line(case: str) -> None:
    table, message = WRONG_TABLES[case]
    with pytest.raises(InputError) as error:
        config_from_table(table)
    assert str(error.value) == message


WRONG_OVERRIDES = {
    "search.epoch=3": "must be one of search.alpha_learning_rate, search.alpha_weight_decay, ",
    "epochs": "override must be key=value, not 'epochs'",
    "=3": "override must be key=value, not '=3'",
    "search.epochs=": "search.epochs must be a whole number, not ''",
    "space.operations=[": "override '[' must be valid TOML: ",
    "multipliers.candidates=mul8s_array,mul8s_trunkated_k4": "did you mean 'truncated'?",
    "multipliers.candidates=mul8s_array,mul8u_truncated_k5": (
        "multipliers.candidates must be signed, not unsigned as 'mul8u_truncated_k5'"
    ),
    "multipliers.built_also=mul4s_array": (
        "multipliers must have operands of 8 bits, not of 4 and 4 as 'mul4s_array'"
    ),
    "hardware.cells=/no/such.lib": (
        "hardware.cells must be a Liberty file, but there is none at '/no/such.lib'"
    ),
}


@pytest.mark.parametrize("override", WRONG_OVERRIDES)
def test_a_wrong_override_is_one_line(override: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(None, [override])
    message = str(error.value)
    assert WRONG_OVERRIDES[override] in message
    assert "\n" not in message


def test_an_unknown_key_of_a_known_section_lists_that_section_alone() -> None:
    with pytest.raises(InputError) as error:
        load_config(None, ["search.epoch=3"])
    assert "train." not in str(error.value)
    assert str(error.value).endswith("not 'search.epoch'; did you mean 'search.epochs'?")


def test_a_multiplier_parameter_out_of_range_is_one_line() -> None:
    with pytest.raises(InputError, match="99"):
        load_config(None, ["multipliers.built_also=mul8u_truncated_k99"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "configuration must be a TOML file, but there is none at"),
        (b"seed = ", "must be valid TOML"),
        (b"\xff\xfe", "must be a TOML file in UTF-8"),
        (b"a = " + b"[" * 5000, "must be valid TOML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_sections_check_themselves() -> None:
    with pytest.raises(InputError, match=r"space\.nodes must be at least 1 and at most 8, not 0"):
        Space(nodes=0)
