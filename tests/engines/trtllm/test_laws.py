"""Laws over all releases: what is written is legal there, reads back as it was meant, and survives every migration."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deployment import GRAPH_SIZES, OPTION_FIELDS, Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import changed
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import Dialect, dialect
from advisor.engines.trtllm.documents import flatten
from advisor.engines.trtllm.environment import asked_environment, to_environment, variables
from advisor.engines.trtllm.identify import objections
from advisor.engines.trtllm.migrate import migrate
from advisor.engines.trtllm.options import table
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.words import as_mapping, flag_words
from tests.engines.trtllm.builders import EVERY_RELEASE, GUIDE, MAVERICK, config, configs, deployments, sayable

VALUES = {
    "bool": st.booleans(),
    "int": st.integers(-3, 70),
    "float": st.sampled_from([-0.5, 0.0, 0.5, 1.0, 1.5]),
    "str": st.sampled_from(["", "x", "auto", "AUTO", "pytorch", "TRTLLM", "1"]),
    "list": st.sampled_from(["[]", "[1, 2]", "[0.5, 0.5]", '["cutlass"]', "x", "{}"]),
    "sizes": st.sampled_from(["auto", "powers_of_2", "every_8", "[1, 2, 64]", "[0]", "x"]),
}


def argv_of(spoken: Dialect, deployment: Deployment, asked: ServingConfig) -> tuple[str, ...]:
    return to_argv(spoken, deployment, asked, 5120, host="127.0.0.1", port=8000, config_path="a.yml")


@st.composite
def with_any_options(draw: st.DrawFn, release: str) -> ServingConfig:
    """A configuration with further options of the release, sensible or not."""
    known = {**dialect(release).options, GRAPH_SIZES: "sizes"}
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    return changed(draw(configs), options={name: draw(VALUES[known[name]]) for name in names})


@pytest.mark.parametrize("release", EVERY_RELEASE)
@settings(max_examples=40)
@given(data=st.data(), deployment=deployments)
def test_nothing_illegal_is_ever_written(release: str, data: st.DataObject, deployment: Deployment) -> None:
    """Asked for anything at all, a dialect writes what its release obeys, or refuses."""
    spoken, asked = dialect(release), data.draw(with_any_options(release))
    try:
        document = as_mapping(to_yaml(spoken, deployment, asked, 5120))
        argv = argv_of(spoken, deployment, asked)
    except BadInput:
        return
    assert objections(spoken, flatten(document)) == ()
    words = list(argv[2:])
    while words:
        flag = words.pop(0)
        option = spoken.table[flag]
        if "flag" not in option.types:
            value: Any = words.pop(0)
            number = {"int": int, "float": float}.get(option.types[0], str)
            assert option.refusal(number(value)) is None


def meant(spoken: Dialect, document: dict[str, Any], deployment: Deployment, argv: tuple[str, ...]) -> dict[str, Any]:
    """Everything a server would do with a file and a command line, in neutral names."""
    read = config_from_yaml(document, spoken, deployment, argv).config
    stated = deployment.with_options(read.options)
    further = {name: value for name, value in read.options.items() if name not in OPTION_FIELDS}
    return {
        **{name: getattr(read, name) for name in FOUR_SETTINGS},
        **{name: getattr(stated, field) for name, field in OPTION_FIELDS.items()},
        **further,
    }


@pytest.mark.parametrize(("old", "new"), list(itertools.product(EVERY_RELEASE, repeat=2)))
@settings(max_examples=4)
@given(deployment=deployments, asked=configs)
def test_migration_keeps_what_the_new_release_can_say_and_lists_the_rest(
    old: str, new: str, deployment: Deployment, asked: ServingConfig
) -> None:
    before, after = dialect(old), dialect(new)
    deployment, asked = sayable(old, deployment, asked)
    document = as_mapping(to_yaml(before, deployment, asked, 5120))
    argv = argv_of(before, deployment, asked)
    found = migrate(flatten(document), before, after)
    # another study's deployment, so that silence of the new file cannot be taken for the wanted value
    blank = changed(deployment, moe_backend=None, kv_cache_dtype="auto")
    was = meant(before, document, blank, argv)
    new_argv = (*argv[:2], *flag_words(found.flags), *argv[2:])
    now = meant(after, found.document, blank, new_argv)
    lost = {change.path.rpartition(".")[2] for change in found.changes if change.to is None}
    kept = {name for name in was if before.keys.get(name, name).rpartition(".")[2] not in lost}
    assert {name: now.get(name) for name in kept} == {name: was[name] for name in kept}
    assert lost <= {"stream_interval", "backend", "moe_backend"}
    if old == new:
        assert (found.document, found.changes) == (document, ())


@given(release=st.sampled_from(EVERY_RELEASE), deployment=deployments, folder=st.booleans())
def test_environment_is_what_the_release_reads(release: str, deployment: Deployment, folder: bool) -> None:
    spoken = dialect(release)
    deployment, plain = sayable(release, changed(deployment, model="./here" if folder else "org/model"), GUIDE)
    found = to_environment(spoken, deployment, plain)
    assert found["TLLM_LOG_LEVEL"] == "INFO"
    assert ("HF_HUB_OFFLINE" in found) == folder
    assert {f"${name}" for name in found} <= set(spoken.table)
    assert asked_environment(spoken, plain) == {}


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_variable_that_an_option_asks_for_stands_in_the_environment_alone(release: str) -> None:
    spoken, plain = dialect(release), changed(MAVERICK, stream_interval=1)
    asked = config(options={"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:8192", "TLLM_LOG_LEVEL": "DEBUG"})
    assert to_environment(spoken, plain, asked).items() >= asked.options.items()
    assert to_yaml(spoken, plain, asked, 5120) == to_yaml(spoken, plain, GUIDE, 5120)
    assert argv_of(spoken, plain, asked) == argv_of(spoken, plain, GUIDE)
    cached = config(options={"TLLM_AUTOTUNER_CACHE_PATH": "tuned.json"})
    if release in ("0.20.0", "0.21.0", "1.0.0rc1", "1.0.0", "1.1.0"):
        with pytest.raises(BadInput, match="has no option 'TLLM_AUTOTUNER_CACHE_PATH'"):
            to_environment(spoken, plain, cached)
    else:
        assert to_environment(spoken, plain, cached)["TLLM_AUTOTUNER_CACHE_PATH"] == "tuned.json"


def test_every_variable_is_in_both_tables() -> None:
    known = {path.removeprefix("$") for column in table().values() for path in column if path.startswith("$")}
    assert {each.name for each in variables()} == known
    assert all(each.value is None or each.when != "asked" for each in variables())
