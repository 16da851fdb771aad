"""Migration between releases: the meaning stays, and whatever does not is listed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import changed
from advisor.engines.trtllm.command import to_argv, to_yaml
from advisor.engines.trtllm.dialects import dialect
from advisor.engines.trtllm.documents import flatten, in_yaml, nested
from advisor.engines.trtllm.identify import objections
from advisor.engines.trtllm.migrate import Migration, migrate
from advisor.engines.trtllm.options import every_option, table
from advisor.engines.trtllm.read_config import config_from_yaml
from advisor.engines.trtllm.spellings import spellings
from advisor.engines.words import as_mapping, flag_words
from tests.engines.trtllm.builders import EVERY_RELEASE, MAVERICK, configs, deployments, sayable

GUIDE = (
    "{enable_attention_dp: true, stream_interval: 4, cuda_graph_config: {max_batch_size: 1024, padding_enabled: true}}"
)
GRAPHS = {"max_batch_size": 1024, "enable_padding": True}


def moved(text: str, old: str, new: str) -> Migration:
    return migrate(flatten(yaml.safe_load(text)), dialect(old), dialect(new))


def listed(migration: Migration) -> set[tuple[str, str, str | None]]:
    return {(change.kind, change.path, change.to) for change in migration.changes}


# --- the guide's own file ---

MODERN = (
    {"enable_attention_dp": True, "stream_interval": 4, "cuda_graph_config": GRAPHS},
    {("renamed", "cuda_graph_config.padding_enabled", "cuda_graph_config.enable_padding")},
)
PATHS = {
    "0.20.0": "pytorch_backend_config.",
    "0.21.0": "",
}


@pytest.mark.parametrize("release", ["1.0.0", "1.1.0", "1.2.0", "1.3.0rc", "main"])
def test_guide_since_1_0(release: str) -> None:
    found = moved(GUIDE, "1.0.0rc1", release)
    assert (found.document, listed(found)) == MODERN
    assert found.flags == {}


@pytest.mark.parametrize(("release", "stream"), [("0.20.0", "ignored"), ("0.21.0", "dropped")])
def test_guide_before_1_0(release: str, stream: str) -> None:
    found, under = moved(GUIDE, "1.0.0rc1", release), PATHS[release]
    assert listed(found) == {
        (stream, "stream_interval", None),
        ("moved", "cuda_graph_config.max_batch_size", f"{under}cuda_graph_max_batch_size"),
        ("moved", "cuda_graph_config.padding_enabled", f"{under}cuda_graph_padding_enabled"),
        ("added", f"{under}use_cuda_graph", f"{under}use_cuda_graph"),
    }
    flat = {"use_cuda_graph": True, "cuda_graph_max_batch_size": 1024, "cuda_graph_padding_enabled": True}
    graphs = found.document.get("pytorch_backend_config", found.document)
    assert flat.items() <= graphs.items()
    assert found.document["enable_attention_dp"] is True
    assert found.flags == {"--backend": "pytorch"}


def test_guide_is_as_it_should_be_for_the_pre_releases_it_was_written_for() -> None:
    found = moved(GUIDE, "1.0.0rc1", "1.0.0rc1")
    assert found.document == yaml.safe_load(GUIDE)
    assert found.changes == ()


@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_the_guides_spelling_of_the_fraction(release: str) -> None:
    found = moved("kv_cache_free_gpu_mem_fraction: 0.7", release, release)
    assert found.document == {"kv_cache_config": {"free_gpu_memory_fraction": 0.7}}
    assert listed(found) == {("moved", "kv_cache_free_gpu_mem_fraction", "kv_cache_config.free_gpu_memory_fraction")}


# --- laws ---


@given(release=st.sampled_from(EVERY_RELEASE), deployment=deployments, asked=configs)
def test_migrating_to_the_same_release_changes_nothing(
    release: str, deployment: Deployment, asked: ServingConfig
) -> None:
    spoken, (deployment, asked) = dialect(release), sayable(release, deployment, asked)
    document = as_mapping(to_yaml(spoken, deployment, asked, 5120))
    found = migrate(flatten(document), spoken, spoken)
    assert (found.document, found.changes) == (document, ())


@given(
    pair=st.tuples(st.sampled_from(EVERY_RELEASE), st.sampled_from(EVERY_RELEASE)),
    deployment=deployments,
    asked=configs,
)
def test_meaning_stays_between_all_pairs(pair: tuple[str, str], deployment: Deployment, asked: ServingConfig) -> None:
    """read(migrate(x)) == read(x) on what both can say, and what only one can say is listed."""
    old, new = dialect(pair[0]), dialect(pair[1])
    for release in pair:
        deployment, asked = sayable(release, deployment, asked)
    document = as_mapping(to_yaml(old, deployment, asked, 5120))
    argv = to_argv(old, deployment, asked, 5120, host="a", port=1, config_path="x.yml")[2:]
    before = config_from_yaml(document, old, deployment, argv).config
    found = migrate(flatten(document), old, new)
    after = config_from_yaml(found.document, new, deployment, [*argv, *flag_words(found.flags)]).config
    assert {name: getattr(after, name) for name in FOUR_SETTINGS} == {
        name: getattr(before, name) for name in FOUR_SETTINGS
    }
    assert after.options == before.options
    lost = {change.path for change in found.changes if change.to is None}
    assert lost <= {"stream_interval"}


def sensible(path: str) -> st.SearchStrategy[Any]:
    """A value that some release takes for an option."""
    cells = [column[path] for column in table().values() if path in column]
    kinds = {
        "int": st.integers(1, 9),
        "float": st.sampled_from([0.25, 0.5]),
        "str": st.sampled_from([choice for cell in cells for choice in cell.choices] or ["x"]),
        "bool": st.booleans(),
        "list": st.just([1, 2]),
        "mapping": st.just({}),
        "null": st.none(),
    }
    return st.one_of([kinds[name] for name in sorted({name for cell in cells for name in cell.types})])


NO_FLAGS = sorted(path for path in every_option() if path[0] not in "-$")


def as_document(leaves: dict[str, Any]) -> dict[str, Any]:
    """Leaves of one kind per mapping, with the key that selects it."""
    kinds: dict[str, str] = {}
    for path in leaves:
        if "[" in path:
            mapping, _, rest = path.partition("[")
            kinds.setdefault(mapping, rest.partition("]")[0])
    kept = {
        path: value for path, value in leaves.items() if "[" not in path or f"[{kinds[path.partition('[')[0]]}]" in path
    }
    selectors = {f"{mapping}.{spellings().kinds[mapping]}": kind for mapping, kind in kinds.items()}
    spelled = {
        "skipsoftmax": "skip_softmax",
        "deepseekv4": "deepseek_v4",
        "minimaxm3": "minimax_m3",
        "quantizationforcoldpage": "quantization_for_cold_page",
    }
    return nested({**kept, **{path: spelled.get(kind, kind) for path, kind in selectors.items()}})


ANY_DOCUMENT = (
    st.lists(st.sampled_from(NO_FLAGS), max_size=6, unique=True)
    .flatmap(lambda paths: st.fixed_dictionaries({path: sensible(path) for path in paths}))
    .map(as_document)
)


@settings(max_examples=60)
@given(document=ANY_DOCUMENT, old=st.sampled_from(EVERY_RELEASE), new=st.sampled_from(EVERY_RELEASE))
def test_every_key_stays_or_is_listed_and_the_new_release_has_nothing_against_it(
    document: dict[str, Any], old: str, new: str
) -> None:
    spoken, leaves = dialect(new), flatten(document)
    found = migrate(leaves, dialect(old), spoken)
    after = flatten(found.document)
    assert [each for each in objections(spoken, after) if each.kind != "unchecked"] == []
    kept = {path for path, value in leaves.items() if path in after and after[path] == value}
    assert {in_yaml(path) for path in set(leaves) - kept} <= {change.path for change in found.changes}
    for change in found.changes:
        if change.to is not None and change.to.startswith("--"):
            assert found.flags.get(change.to, False) == change.new_value
    again = migrate(after, spoken, spoken)
    assert again.document == found.document
    assert {change.kind for change in again.changes} <= {"unchecked"}


# --- what a default did before, and what becomes of single keys ---


@pytest.mark.parametrize(
    ("text", "old", "new", "document"),
    [
        ("{}", "1.2.0", "0.21.0", {"use_cuda_graph": True}),
        ("{}", "0.21.0", "1.2.0", {"cuda_graph_config": None}),
        ("cuda_graph_config: null", "1.2.0", "0.20.0", {"pytorch_backend_config": {"use_cuda_graph": False}}),
        ("use_cuda_graph: false", "0.21.0", "1.2.0", {"cuda_graph_config": None}),
        ("use_cuda_graph: true", "0.21.0", "1.2.0", {"cuda_graph_config": {}}),
        ("cuda_graph_max_batch_size: 96", "0.21.0", "1.2.0", {"cuda_graph_config": None}),
        (
            "{use_cuda_graph: true, cuda_graph_max_batch_size: 96}",
            "0.21.0",
            "1.2.0",
            {"cuda_graph_config": {"max_batch_size": 96}},
        ),
        ("torch_compile_config: {enable_fullgraph: false}", "0.21.0", "0.20.0", None),
    ],
)
def test_switches(text: str, old: str, new: str, document: dict[str, Any] | None) -> None:
    nested = {"torch_compile_enabled": True, "torch_compile_fullgraph": False}
    assert moved(text, old, new).document == (document or {"pytorch_backend_config": nested})


@pytest.mark.parametrize(
    ("text", "old", "new", "document", "flags"),
    [
        ("max_batch_size: 64", "1.2.0", "1.0.0", {}, {"--max_batch_size": 64}),
        ("build_config: {max_batch_size: 64}", "1.0.0", "1.2.0", {"max_batch_size": 64}, {}),
        ("build_config: {max_batch_size: 64}", "1.0.0", "1.1.0", {"build_config": {"max_batch_size": 64}}, {}),
        (
            "{build_config: {max_batch_size: 64}, max_num_tokens: 4096}",
            "1.1.0",
            "1.0.0",
            {"build_config": {"max_batch_size": 64, "max_num_tokens": 4096}},
            {},
        ),
        ("fail_fast_on_attention_window_too_large: true", "1.2.0", "1.3.0rc", {},
         {"--fail_fast_on_attention_window_too_large": True}),
        ("fail_fast_on_attention_window_too_large: false", "1.2.0", "1.3.0rc", {}, {}),
        ("sampler_type: TRTLLMSampler", "1.2.0", "1.0.0", {"enable_trtllm_sampler": True}, {}),
        ("sampler_type: TorchSampler", "1.2.0", "1.0.0", {}, {}),
        ("mixed_sampler: true", "0.21.0", "1.0.0", {"enable_mixed_sampler": True, "cuda_graph_config": None}, {}),
        ("enable_mixed_sampler: true", "1.0.0", "1.1.0", {}, {}),
        ("speculative_config: {decoding_type: UserProvided, max_draft_len: 2}", "1.2.0", "1.3.0rc",
         {"speculative_config": {"decoding_type": "User_Provided", "max_draft_len": 2}}, {}),
        ("speculative_config: {decoding_type: MTP, BEGIN_THINKING_PHASE_TOKEN: 7}", "1.2.0", "1.3.0rc",
         {"speculative_config": {"decoding_type": "MTP", "begin_thinking_phase_token": 7}}, {}),
        ("kv_cache_config: {tokens_per_block: 64}", "1.1.0", "1.0.0", {}, {}),
        ("{kv_cache_config: {dtype: fp8}, kv_cache_dtype: auto}", "1.2.0", "1.2.0",
         {"kv_cache_config": {"dtype": "fp8"}}, {}),
    ],
)  # fmt: skip
def test_one_by_one(text: str, old: str, new: str, document: dict[str, Any], flags: dict[str, Any]) -> None:
    found = moved(text, old, new)
    assert (found.document, found.flags) == (document, flags)
    left_out = {change.kind for change in found.changes if change.to is None}
    assert left_out <= {"dropped"}
    two_say_it = "kv_cache_dtype" in text
    assert bool(left_out) == (two_say_it or (document == {} and not flags and "false" not in text))


def test_members_go_with_the_kind_that_the_new_release_does_not_have() -> None:
    found = moved("speculative_config: {decoding_type: PARD, max_draft_len: 2}", "1.3.0rc", "1.2.0")
    assert found.document == {}
    assert {change.path for change in found.changes if change.to is None} == {
        "speculative_config.decoding_type",
        "speculative_config.max_draft_len",
    }


def test_what_is_illegal_everywhere_is_said_with_the_nearest_key() -> None:
    found = moved("{max_batchsize: 3, stream_interval: 0}", "1.2.0", "1.2.0")
    assert found.document == {}
    assert listed(found) == {("illegal", "max_batchsize", None), ("illegal", "stream_interval", None)}
    assert "Did you mean 'max_batch_size'?" in found.changes[0].why


def test_key_nobody_knows_is_kept_where_not_all_are_known() -> None:
    found = moved("brand_new_option: 3", "1.2.0", "main")
    assert found.document == {"brand_new_option": 3}
    assert listed(found) == {("unchecked", "brand_new_option", "brand_new_option")}


def test_what_the_old_release_ignored_and_the_new_one_obeys_is_said() -> None:
    assert ("obeyed", "stream_interval", "stream_interval") in listed(moved("stream_interval: 4", "0.20.0", "1.2.0"))
    assert listed(moved("max_batch_size: 64", "1.0.0", "1.2.0")) == {("obeyed", "max_batch_size", "max_batch_size")}


def test_changed_default_of_the_moe_backend_is_noted() -> None:
    (note,) = moved("enable_attention_dp: true", "1.2.0", "1.3.0rc").notes
    assert "moe_config.backend" in note
    assert moved("moe_config: {backend: CUTLASS}", "1.2.0", "1.3.0rc").notes == ()


def test_graph_sizes_lose_their_maximum_where_both_are_refused() -> None:
    text = "cuda_graph_config: {batch_sizes: [1, 3], max_batch_size: 3}"
    found = moved(text, "1.3.0rc", "1.2.0")
    assert found.document == {"cuda_graph_config": {"batch_sizes": [1, 3]}}
    assert listed(found) == {("dropped", "cuda_graph_config.max_batch_size", None)}


def test_members_of_a_mapping_that_moves_as_a_whole_are_looked_at_too() -> None:
    found = moved("pytorch_backend_config: {moe_load_balancer: {num_slots: 288, typo: 1}}", "0.20.0", "1.2.0")
    assert found.document == {"moe_config": {"load_balancer": {"num_slots": 288}}, "cuda_graph_config": None}
    assert ("dropped", "moe_config.load_balancer.typo", None) in listed(found)


@pytest.mark.parametrize(
    "text",
    [
        "{use_cuda_graph: sometimes, cuda_graph_config: 5, pytorch_backend_config: null, speculative_config: [1]}",
        "{cuda_graph_config: {batch_sizes: [1, a], max_batch_size: 3}, kv_cache_config: 7, '': 1}",
        "{speculative_config: {decoding_type: 3, max_draft_len: 1}, sparse_attention_config: {seq_len_threshold: 1}}",
        "{kv_cache_config: {free_gpu_memory_fraction: .nan}, stream_interval: .inf}",
    ],
)
@pytest.mark.parametrize("release", EVERY_RELEASE)
def test_values_that_make_no_sense_are_left_out_and_nothing_breaks(text: str, release: str) -> None:
    found = moved(text, release, release)
    assert {each.kind for each in objections(dialect(release), flatten(found.document))} <= {"unchecked"}
    assert len(found.changes) > 0


def test_deployment_option_read_from_a_migrated_file_is_the_same() -> None:
    found = moved("{enable_chunked_prefill: true, kv_cache_dtype: fp8}", "0.21.0", "main")
    plain = changed(MAVERICK, attention_dp=False, stream_interval=1)
    read = config_from_yaml(found.document, dialect("main"), plain).config
    assert read.options == {"enable_chunked_prefill": True, "kv_cache_dtype": "fp8"}
