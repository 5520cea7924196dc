"""What is written down of an address holds no secret, and what is printed of a name is only shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.common.addresses import printable, refuse_password, shown, without_assigned_secrets, without_secrets
from warmkit.errors import UsageError

SECRET = "S3CRET"


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a?X-Signature=S3CRET",
        "GET https://host/a/b.safetensors?a=1&sig=S3CRET: 403 Forbidden for url",
        "HTTPS://host/a#S3CRET",
        "s3://key:S3CRET@bucket/a",
        "ftp://me:S3CRET@host:21/a",
        "'https://host/a?sig=S3CRET' and \"https://host/b?sig=S3CRET\"",
    ],
)
def test_signatures_and_passwords_are_cut_out_of_any_text(text: str) -> None:
    assert SECRET not in without_secrets(text)
    assert "host" in without_secrets(text) or "bucket" in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    ["https://host/a", "hf://owner/name@refs/pr/1", "runs/a?b", "owner/name@v2", "abfss://box@account/x", "see https://h/a."],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text
    refuse_password(text)


@pytest.mark.parametrize(
    "source",
    [
        "s3://key:S3CRET@bucket/a",
        "memory://key:S3CRET@bucket/a",
        "ftp://S3CRET@host/a",
        "https://S3CRET@host/a",
        "s3://key:S3/CRET@bucket/a",
        "abfss://box:S3CRET@account/x",
        "runs/base+https://u:S3CRET@host/a",
        "zip://x::https://u:S3CRET@host/a.zip",
    ],
)
def test_a_user_or_password_is_refused_for_every_scheme(source: str) -> None:
    with pytest.raises(UsageError, match="without user and password") as error:
        refuse_password(source)
    assert "CRET" not in str(error.value)


def test_what_a_command_assigns_to_a_secret_is_cut_out() -> None:
    command = "export OPENAI_API_KEY=S3CRET; WANDB_TOKEN='S3 CRET' python score.py --steps=3 {}"
    assert (
        without_assigned_secrets(command) == "export OPENAI_API_KEY=[secret]; WANDB_TOKEN=[secret] python score.py --steps=3 {}"
    )


@given(st.text(alphabet=st.characters()))
def test_a_printable_text_can_be_written_and_obeys_nobody(text: str) -> None:
    said = printable(text)
    said.encode()
    assert not any(each in said for each in "\x1b\x9b\x07\r\n\u202e\x00")


def test_ordinary_names_in_any_language_are_shown_as_they_are() -> None:
    for name in ("модель-1", "模型", "café", "a b [c]"):
        assert shown(name) == name
    assert shown("a\x1b]0;x\x07") == "a\\x1b]0;x\\x07"
    assert shown("caf\udce9") == "caf\\xe9"
