"""Secrets: what is masked, and what must stay readable."""

from __future__ import annotations

import pytest

from wellfit.monitor.masking import mask_arguments, mask_text, names_a_secret


@pytest.mark.parametrize(
    "words",
    [
        ["--token", "GEHEIM"],
        ["--token=GEHEIM"],
        ["--hf-token", "-GEHEIM"],
        ["HF_TOKEN=GEHEIM"],
        ["--api-key", "GEHEIM"],
        ["data.filters.0.arguments.apikey=GEHEIM"],
        ["AWS_SECRET_ACCESS_KEY=GEHEIM"],
        ["db.password=GEHEIM"],
        ["--header", "Authorization: Bearer GEHEIMGEHEIM"],
        ["--source", "https://me:GEHEIM@host/data"],
        ["--source", "https://GEHEIM@host/data"],
        ["--source", "https://host/data?page=2&token=GEHEIM&x=1"],
        ['{"api_key": "GEHEIM with spaces"}'],
        ["--note", "hf_GEHEIMGEHEIMGEHEIM"],
        ["--note", "sk-GEHEIMGEHEIMGEHEIM-1"],
    ],
)
def test_secrets_are_masked(words: list[str]) -> None:
    """Fails if the list of names, the shapes or the addresses are left out (each tried)."""
    masked = mask_arguments(["train", *words, "seed=1"])
    assert "GEHEIM" not in " ".join(masked)
    assert "<masked>" in " ".join(masked)
    assert masked[0] == "train" and masked[-1] == "seed=1"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "recipes/a.yaml", "train.batch_tokens=4096", "--out", "runs/a"],
        ["train.budget.tokens=1e6", "data.tokenizer.file=tokenizer.json"],
        ["--resume", "https://host/path@2/x", "me@host", "name=monk"],
        ["--max-tokens", "5", "generate", "--prompt", "the key of C: a minor"],
    ],
)
def test_everything_else_stays(words: list[str]) -> None:
    assert mask_arguments(words) == words


def test_a_flag_without_a_value_masks_no_other_flag() -> None:
    assert mask_arguments(["--token", "--out", "runs/a"]) == ["--token", "--out", "runs/a"]


def test_text_keeps_its_lines() -> None:
    text = "a: 1\nhub:\n  token: abc # mine\n  keys: [1, 2]\nsecret:\n  b: 2\n"
    assert mask_text(text) == text.replace("abc", "<masked>")


def test_no_setting_is_named_like_a_secret() -> None:
    """The run folder's recipe would lack its value. Break: call a setting `per_token`."""
    from wellfit.recipe.settings import settings

    assert not [one.path for one in settings() if names_a_secret(one.path)]
