"""No secret stays, wherever it stands and however it is cut; and what is no secret stays."""

from __future__ import annotations

import json
import os
import random
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from advisor.host.output import LONGEST_SECRET_BYTES, MAX_LINE_BYTES, BoundedLog
from advisor.host.secrets import REDACTED, Redactor, is_secret_variable

NOTHING = Redactor({})
TOKEN = "hf_" + "Ab3" * 11
SECRETS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=8, max_size=40).filter(
    lambda text: len(text.strip()) >= 8 and len(text.splitlines()) == 1 and text not in REDACTED
)
TEXTS = st.text(max_size=60)


# -- values that are known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "hf_token", "NGC_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"),
        *("MYSQL_PASSWD", "GOOGLE_APPLICATION_CREDENTIALS", "npm_config__auth"),
    ],
)
def test_names_that_say_secret(name: str) -> None:
    assert is_secret_variable(name)
    assert Redactor({name: "swordfish"}).text("the swordfish!") == f"the {REDACTED}!"


@pytest.mark.parametrize(
    "env", [{"HOME": "swordfish"}, {"TOKENIZERS_PARALLELISM": "swordfish"}, {"AUTH": "none"}, {"HF_TOKEN": ""}]
)
def test_other_variables_and_short_values_are_no_secrets(env: dict[str, str]) -> None:
    assert Redactor(env).text("swordfish none") == "swordfish none"


@given(SECRETS, TEXTS, TEXTS)
def test_a_known_secret_goes_in_every_spelling(secret: str, before: str, after: str) -> None:
    redactor = Redactor({"MY_SECRET": secret})
    for spelling in (secret.strip(), json.dumps(secret.strip())[1:-1], quote(secret.strip(), safe="")):
        assert spelling not in redactor.text(f"{before}{spelling}{after}").replace(REDACTED, "")


@given(SECRETS, TEXTS)
def test_redacting_twice_changes_nothing_more(secret: str, text: str) -> None:
    redactor = Redactor({"MY_SECRET": secret})
    for each in (text, f"{text} {secret} {TOKEN} Bearer {secret} http://a:{secret}@h --api-key {secret}"):
        once = redactor.text(each)
        assert redactor.text(once) == once


@given(st.binary(max_size=200))
def test_bytes_without_secrets_pass_as_they_are(data: bytes) -> None:
    assert Redactor({"MY_SECRET": "a secret of some length"}).bytes(data) == data


@given(st.text(max_size=200))
@example("\ud800")
def test_text_without_secrets_passes_as_it_is(text: str) -> None:
    assert Redactor({"MY_SECRET": "a secret of some length"}).text(text) == text


def test_each_line_of_a_long_secret_and_bytes_that_are_no_utf8() -> None:
    redactor = Redactor({"SSH_KEY": "-----BEGIN KEY-----\nMIIEabcdefgh\n", "X_TOKEN": os.fsdecode(b"\xff\xfe123456")})
    assert redactor.bytes(b"a MIIEabcdefgh b\n\xff\xfe123456\n") == b"a [redacted] b\n[redacted]\n"


def test_a_secret_that_begins_like_another_is_taken_whole() -> None:
    redactor = Redactor({"A_TOKEN": "swordfish", "B_TOKEN": "swordfish-and-more"})
    assert redactor.text("swordfish-and-more swordfish") == f"{REDACTED} {REDACTED}"


# -- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {TOKEN}.", "token [redacted]."),
        (f"hf_token={TOKEN}", "hf_token=[redacted]"),
        ("nvapi-ab_cd-1234567 x", "[redacted] x"),
        ("key sk-proj-Ab12Cd34Ef56Gh78 x", "key [redacted] x"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("'authorization': 'Basic dXNlcjpwYXNz'", "'authorization': 'Basic [redacted]'"),
        ("authorization=Negotiate YIIabcdefgh", "authorization=Negotiate [redacted]"),
        ("bearer   ABCDEFGH==", "bearer   [redacted]"),
        ("https://user:pass@host/x", "https://[redacted]@host/x"),
        ("http://:p@ss@host:80", "http://[redacted]@host:80"),
        ("git+https://oauthtoken123@host/x", "git+https://[redacted]@host/x"),
        ("serve --api-key abc --port 1", "serve --api-key [redacted] --port 1"),
        ("serve --hf-token=abc", "serve --hf-token=[redacted]"),
        ("['--api_key', 'abc', 'x']", "['--api_key', '[redacted]', 'x']"),
        ('"api_key": "abcdefgh1"', '"api_key": "[redacted]"'),
        ("HF_TOKEN=abcdefgh", "HF_TOKEN=[redacted]"),
        ("password: hunter2hunter2", "password: [redacted]"),
    ],
)
def test_forms_of_secrets_that_nobody_named(text: str, expected: str) -> None:
    assert NOTHING.text(text) == expected
    assert NOTHING.text(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "from huggingface_hub import hf_hub_download, hf_transfer; hf_quant_config.json hf_model_config",
        "task-scheduler-for-everything-1234 disk-usage sk-learn-is-a-nice-library",
        "Invalid api-key provided; the key is wrong",
        "ssh://git@host/x http://host/a@b https://host:8000/v1 http://[::1]:80/",
        "--max_num_tokens 8192 --tokenizer /models/x --tokens_per_block=32 --max-num-tokens=8192",
        "eos_token: </s>, pad_token_id=2, max_num_tokens=8192, num_ctx_tokens: 120",
        "--no-token --port 8000",
        "[TRT-LLM] [I] Estimated max tokens in KV cache : 86711",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert NOTHING.text(text) == text


def test_hostile_lines_are_read_in_linear_time() -> None:
    """Quadratic matching of any of these would take hours."""
    for seed in ("hf_", "-a", "--a-", "://", "a:", "bearer ", "authorization:", "sk-", "api_key ", "secret"):
        NOTHING.bytes(seed.encode() * (2_000_000 // len(seed)))


# -- command lines ---------------------------------------------------------------------------------------------------


def test_a_command_line_is_shown_without_its_secrets() -> None:
    argv = [
        "docker",
        "run",
        "-e",
        "HF_TOKEN=abc",
        "--env=API_KEY=q q",
        "--export=ALL,A_SECRET=x,B=1",
        "i",
        "trtllm-serve",
    ]
    argv += [
        "--api-key",
        "abc",
        "--hf-token=",
        "--hf-token=x",
        "--set",
        "max_num_tokens=8192",
        "--max_num_tokens",
        "8192",
    ]
    argv += ["--use-auth", "--port", "80", "MAX_NUM_TOKENS=8192", f"x={TOKEN}", "--password"]
    shown = ["docker", "run", "-e", "HF_TOKEN=[redacted]", "--env=API_KEY=[redacted]"]
    shown += ["--export=ALL,A_SECRET=[redacted],B=1", "i", "trtllm-serve", "--api-key", "[redacted]", "--hf-token="]
    shown += ["--hf-token=[redacted]", "--set", "max_num_tokens=8192", "--max_num_tokens", "8192"]
    shown += ["--use-auth", "--port", "80", "MAX_NUM_TOKENS=8192", "x=[redacted]", "--password"]
    assert NOTHING.argv(argv) == shown


def test_what_a_flag_said_is_a_secret_everywhere() -> None:
    redactor = Redactor({}, ["trtllm-serve", "--api-key", "swordfish", "-e", "X_TOKEN=marlinspike"])
    assert redactor.text("swordfish marlinspike") == f"{REDACTED} {REDACTED}"


# -- in pieces -------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["plain ", TOKEN, " swordfish ", "\n", "\r", "x" * 50]), max_size=30), st.randoms())
def test_a_secret_cut_anywhere_is_caught(parts: list[str], draw: random.Random) -> None:
    redactor = Redactor({"A_TOKEN": "swordfish"})
    data = "".join(parts).encode()
    passed = b""
    with BoundedLog(None, redactor.bytes) as log:
        while data:
            cut = draw.randint(1, 40)
            passed += log.write(data[:cut])
            data = data[cut:]
        passed += log.close()
    assert passed == redactor.bytes("".join(parts).encode())


@pytest.mark.parametrize("offset", range(0, LONGEST_SECRET_BYTES, 1_777))
def test_a_secret_in_a_line_without_end_is_caught_where_the_line_is_cut(offset: int) -> None:
    filler = b"loading " * 10_000
    for start in (MAX_LINE_BYTES - LONGEST_SECRET_BYTES + offset, MAX_LINE_BYTES + offset):
        line = filler[:start] + b" " + TOKEN.encode() + b" " + filler
        with BoundedLog(None, NOTHING.bytes) as log:
            passed = b"".join(log.write(line[i : i + 1000]) for i in range(0, len(line), 1000)) + log.close()
        assert passed == line.replace(TOKEN.encode(), REDACTED.encode())
