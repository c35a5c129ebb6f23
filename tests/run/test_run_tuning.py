"""From others' weights, by an adapter, on examples, to what others read: the whole way."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from example_files import write_rows
from run_hub import WORDS, write_base, write_texts

import wellfit
from wellfit.errors import RunError
from wellfit.recipe.load import parse_recipe
from wellfit.run.export import export
from wellfit.run.run import run
from wellfit.run.weights import open_run

transformers = pytest.importorskip("transformers")


def pairs(count: int) -> list[dict[str, Any]]:
    draw = random.Random(1)
    made = [draw.choices(WORDS, k=3) for _ in range(count)]
    return [{"prompt": " ".join(one), "completion": one[0]} for one in made]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_texts(tmp_path)
    write_base(tmp_path)
    write_rows(tmp_path / "pairs.jsonl", pairs(80))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_of(**model: Any) -> dict[str, Any]:
    return {
        "name": "tuned",
        "data": {
            "examples": {
                "train": ["pairs.jsonl"], "validation_share": 0.1, "template": "plain",
            },
        },
        "model": {"weights": "base", "context": 32, **model},
        "train": {
            "budget": {"steps": 6}, "batch_tokens": 256, "precision": "fp32", "threads": 1,
            "optimizer": {"kind": "adamw", "learning_rate": 0.01}, "checkpoint_every": 3,
        },
        "monitor": {"prompts": ["A red ball"], "sampling": {"tokens": 4}},
    }  # fmt: skip


LORA = {"rank": 4, "alpha": 8}
WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lora": {"adapter": LORA},
    "dora": {"adapter": {**LORA, "kind": "dora", "targets": ["query", "down"]}},
    "qlora": {"adapter": LORA, "quantize": {"kind": "nf4"}},
    "lora of transformers": {"adapter": LORA, "architecture": "transformers"},
}
IDS = torch.tensor([[2, 40, 41, 42, 60, 7, 90]])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_exported_computes_what_was_trained(home: Path, way: str) -> None:
    """Merged or whole, transformers gives the logits of the run; the adapter alone, PEFT does. In
    between the run is resumed from its middle. Breaks when an adapter is left out of the export,
    when it is merged with half its scale, and when a module's name is another's."""
    if way == "lora of transformers":
        raw = recipe_of(**WAYS[way])
        raw["data"]["packing"] = "padded"
    else:
        raw = recipe_of(**WAYS[way])
    recipe = parse_recipe(raw)
    outcome = run(recipe, Path("runs/tuned"))
    assert outcome.history.status == "finished", outcome.history.events[-1]
    losses = outcome.history.train_loss.values
    assert losses[-1] < losses[0]
    trained = open_run(Path("runs/tuned"))
    with torch.no_grad():
        ours = trained.model.logits(trained.model.hidden(IDS))
    made = export(Path("runs/tuned"), Path("out"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out", dtype=torch.float32).eval()
    base = transformers.AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32).eval()
    with torch.no_grad():
        logits, before = theirs(IDS).logits, base(IDS).logits
    scale = float(ours.abs().max())
    assert torch.allclose(logits, ours, atol=1e-5 * scale)
    assert not torch.allclose(before, ours, atol=1e-3 * scale)
    card = (home / "out" / "README.md").read_text()
    assert "base" in card
    if way == "whole":
        with pytest.raises(RunError, match="the run trained no adapter"):
            export(Path("runs/tuned"), Path("adapter"), adapter=True)
        return
    assert any("Merged" in one for one in made.told)
    if way == "qlora":  # PEFT would put it on the base in all its bits
        return
    peft = pytest.importorskip("peft")
    export(Path("runs/tuned"), Path("adapter"), adapter=True)
    assert json.loads((home / "adapter" / "adapter_config.json").read_text())["r"] == 4
    with_it = peft.PeftModel.from_pretrained(base, "adapter").eval()
    with torch.no_grad():
        assert torch.allclose(with_it(IDS).logits, ours, atol=1e-5 * scale)


def test_a_conversation_by_the_base_s_own_template(home: Path) -> None:
    """The template beside the tokenizer is taken, its marks are added, and chat and export know
    them. Breaks when the export forgets the template, and when new entries have no weights."""
    config = json.loads((home / "base" / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (home / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    raw = recipe_of()
    raw["data"]["examples"]["template"] = "auto"
    raw["data"]["tokenizer"] = {"new_tokens": ["<|im_start|>", "<|im_end|>"]}
    raw["model"]["context"] = 64
    raw["train"]["budget"] = {"steps": 40}
    outcome = run(parse_recipe(raw), Path("runs/tuned"))
    assert outcome.history.status == "finished", outcome.history.events[-1]
    assert outcome.corpus.report["template"] == "of base"
    assert outcome.corpus.tokenizer().vocabulary_size == 292
    said = wellfit.generate("runs/tuned", "red dog it", tokens=12, temperature=0)
    assert "<|im_end|>" not in said
    export(Path("runs/tuned"), Path("out"))
    theirs = transformers.AutoTokenizer.from_pretrained("out")
    asked = [{"role": "user", "content": "red dog it"}]
    ids = theirs.apply_chat_template(
        asked, tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    model = transformers.AutoModelForCausalLM.from_pretrained("out", dtype=torch.float32).eval()
    end = theirs.convert_tokens_to_ids("<|im_end|>")
    told = model.generate(
        torch.tensor([ids]), max_new_tokens=12, do_sample=False, eos_token_id=end, pad_token_id=0
    )
    new = [one for one in told[0, len(ids) :].tolist() if one != end]
    assert theirs.decode(new) == said
