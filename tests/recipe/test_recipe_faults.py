"""Every fault at once, each in one line of our own words."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.errors import RecipeError
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.settings import leaves

Faults = Callable[..., list[str]]

MANY = """\
name: 7
seed: 1
seed: 2
data:
  sources:
    - path: my-text
      fromat: txt
    - format: txt
  split: {validation: 0.6, test: 0.5}
  duplicates: {exact: yes}
model:
  size: huge
  n_embd: 384
  layers: 0
  width: 250
  heads: 4
  context: 100
train:
  lr: 3e-4
  batch_tokens: 250
  budget: {minutes: 2, steps: 5}
  optimizer: {kind: adamw, momentum: 0.9, learning_rate: "1e-3"}
learning_rate: 3
"""

EXPECTED = [
    ("recipe.yaml:1: name = 7: a number stands here; give text", "quotes make it text"),
    ("recipe.yaml:3: seed stands twice, in lines 2 and 3", "keep one"),
    ("recipe.yaml:7: data.sources.0.fromat = txt: unknown setting", "did you mean format?"),
    ("recipe.yaml:8: data.sources.1.path is missing: A file, a folder", "Give text"),
    ("recipe.yaml:8: data.sources.1.format = txt: not one of", "did you mean text?"),
    ("recipe.yaml:9: data.split: validation 0.6 + test 0.5", "leave nothing to train on"),
    ("recipe.yaml:10: data.duplicates.exact = yes: text stands here", "write true"),
    ("recipe.yaml:12: model.size = huge: not one of", "give one of nano, micro"),
    ("recipe.yaml:13: model.n_embd = 384: unknown setting", "is model.width here"),
    ("recipe.yaml:14: model.layers = 0: too small", "a whole number from 1 to 512"),
    ("recipe.yaml:16: model: width 250 is not a multiple of heads 4", "try heads 5"),
    ("recipe.yaml:19: train.lr = 0.0003: unknown", "is train.optimizer.learning_rate here"),
    ("recipe.yaml:20: train.batch_tokens 250 is not a multiple of", "model.context 100; try 200"),
    ("recipe.yaml:21: train.budget: give exactly one", "here steps and minutes"),
    ("recipe.yaml:22: train.optimizer.learning_rate = 1e-3: text", "write it without quotes"),
    (
        "recipe.yaml:22: train.optimizer.momentum = 0.9: a setting of muon and sgd only",
        "learning_rate",
    ),
    ("recipe.yaml:23: learning_rate = 3: unknown", "is train.optimizer.learning_rate here"),
    ("command line: model.dropout = 2: too large", "a number from 0 to below 1"),
    ("command line: foo: a change is `key=value`", "train.budget.steps=100"),
]


def test_every_fault_at_once_in_reading_order(faults: Faults) -> None:
    """Breaks when `validate` stops after its first round, or mends nothing between rounds."""
    found = faults(MANY, "model.dropout=2", "foo")
    assert len(found) == len(EXPECTED), "\n".join(found)
    for fault, (head, tail) in zip(found, EXPECTED, strict=True):
        assert fault.startswith(head), fault
        assert tail in fault, fault


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("model: 5", "recipe.yaml:7: model = 5: a number stands here; give a section with size"),
        ("model: [1]", "model = [1]: a list stands here; give a section"),
        ("model: {layers: true}", "model.layers = true: true or false stands here; give a whole"),
        ("model: {layers: 2.5}", "model.layers = 2.5: a number stands here; give a whole number"),
        ("model: {layers: }", "model.layers = null: nothing stands here; give a whole number"),
        ("model: {rope_base: .inf}", "model.rope_base = inf: not a finite number"),
        ("model: {rope_base: .nan}", "model.rope_base = nan: not a finite number"),
        ("model: {bias: 1}", "model.bias = 1: a number stands here; give true or false"),
        ("model: {bias: 'False'}", "write false"),
        ("model: {activation: silu}", "did you mean swiglu?"),
        ("model: {heads: 3}", "model: width 256 is not a multiple of heads 3; try heads 2"),
        ("model: {heads: 4, kv_heads: 3}", "heads 4 is not a multiple of kv_heads 3"),
        ("model: {width: 30, heads: 10}", "rotary positions need an even head width, not 3"),
        ("monitor: {prompts: The}", "monitor.prompts = The: text stands here; give a list"),
        ("monitor: {prompts: [1, a]}", "monitor.prompts.0 = 1: a number stands here; give text"),
        ("monitor: {sampling: {top_p: 0}}", "monitor.sampling.top_p = 0: too small; give a number"),
        ("evaluate: {evry: 5}", "unknown setting; did you mean every? evaluate has every, tokens"),
        ("evalute: {every: 5}", "unknown setting; did you mean evaluate?"),
        ("output_dir: x", "output_dir of Hugging Face"),
        ("nonsense: x", "nonsense = x: unknown setting; a recipe has name, seed, data"),
        ("rope_base: 1", "unknown setting; did you mean model.rope_base?"),
        ("n_head: 4", "n_head of nanoGPT, Hugging Face, litgpt is model.heads here"),
        ("every: 4", "unknown setting; did you mean evaluate.every?"),
        ("seed: -1", "seed = -1: too small; give a whole number from 0 to below 2^63"),
        ("seed: 9223372036854775808", "too large"),
        ("seed: 1e300", "seed = 1e+300: "),
        ("1: 2", "1 = 2: unknown setting"),
    ],
)
def test_each_kind_of_fault(faults: Faults, smallest: str, extra: str, words: str) -> None:
    (fault,) = faults(f"{smallest}{extra}\n")
    assert fault.startswith("recipe.yaml:7: ")
    assert words in fault


@pytest.mark.parametrize(
    ("train", "words", "more"),
    [
        ("optimizer: adamw", "train.optimizer = adamw: text", "optimizer: {kind: adamw}"),
        ("optimizer: {kind: adam}", "train.optimizer.kind = adam: not one", "did you mean adamw?"),
        ("optimizer: {kind: adagrad}", "train.optimizer.kind = adagrad", "one of adamw, muon"),
        ("optimizer: {kind: paged_adamw_8bit}", "kind = paged_adamw_8bit", "mean adamw_8bit?"),
        (
            "optimizer: {kind: sgd, nesterov: true, momentum: 0}",
            "nesterov looks ahead along the momentum, and momentum is 0",
            "train.optimizer: ",
        ),
        (
            "optimizer: {kind: lion, groups: {heads: {rate: 2}}}",
            "unknown setting; did you mean head?",
            "train.optimizer.groups has embedding, position, matrix, norm, bias, router, head",
        ),
        (
            "optimizer: {groups: {head: {rate: -1}}}",
            "train.optimizer.groups.head.rate = -1: too small",
            "give a number of at least 0",
        ),
        (
            "optimizer: {cpu_offload: true}",
            "cpu_offload of torchtune, Hugging Face is train.optimizer.states here",
            "offload",
        ),
        ("schedule: {kind: inverse_square_root}", "not one of", "did you mean inverse_sqrt?"),
        ("schedule: {kind: constant_with_warmup}", "not one of", "did you mean constant?"),
        ("optimizer: {learning_rate: 0}", "learning_rate = 0: too small", "above 0"),
        ("optimizer: {kind: adamw, matrix_learning_rate: 1}", "a setting of muon only", "beta1"),
        ("batch_tokens: 100", "train.batch_tokens 100 is not a multiple of", "try 256"),
        ("per_device_train_batch_size: 8", "is train.micro_batch here", "sequences in one pass"),
        ("gradient_accumulation_steps: 8", "is train.batch_tokens here", "not counted in passes"),
        ("warmup_ratio: 8", "is train.schedule.warmup here", "a share of all steps if below 1"),
        ("max_steps: 8", "is train.budget.steps here", "train.max_steps = 8"),
        ("precision: half", "not one of the choices", "did you mean fp16?"),
        ("gradient_checkpointing: true", "is train.activation_checkpointing here", "one of none"),
        ("torch_compile: true", "is train.compile here", "one of auto, on, off"),
    ],
)  # fmt: skip
def test_faults_of_training(
    faults: Faults, smallest: str, train: str, words: str, more: str
) -> None:
    (fault,) = faults(f"{smallest}  {train}\n")
    assert fault.startswith("recipe.yaml:7: ")
    assert words in fault
    assert more in fault


def test_missing_keys_are_named_with_their_sentence(faults: Faults) -> None:
    assert faults("seed: 1\n") == [
        "recipe.yaml: name is missing: Names the run and the corpus folder. Give text of letters, "
        "digits, dot, underscore and hyphen, beginning with a letter or digit",
        "recipe.yaml: data is missing: Documents → shards. Give at least "
        "`data: {sources: [{path: FOLDER}]}`",
        "recipe.yaml: train.budget is missing: How long to train. Give one of steps, tokens, "
        "epochs, minutes",
    ]
    (fault,) = faults("name: x\ndata: {sources: []}\ntrain: {budget: {steps: 1}}\n")
    assert fault == (
        "recipe.yaml:2: data.sources = []: empty; give a list of at least one, such as "
        "`- path: FOLDER`"
    )


def test_a_check_over_several_settings_is_silent_where_one_of_them_is_faulty(
    faults: Faults, smallest: str
) -> None:
    """Breaks when stand-ins count: the dial's width 256 would be blamed against heads 3."""
    (fault,) = faults(f"{smallest}model: {{width: wide, heads: 3}}\n")
    assert "model.width = wide" in fault
    (fault,) = faults(f"{smallest}  batch_tokens: 100\nmodel: {{context: long}}\n")
    assert "model.context = long" in fault


def test_calls_are_checked_where_the_functions_are_known(faults: Faults, smallest: str) -> None:
    def too_short(document: object, *, min_words: int = 5) -> str | None:
        return None

    known = {"filters": {"too_short": too_short}, "clean": {"unicode": str.strip}}
    text = smallest.replace(
        "train:",
        "  filters:\n    - too_shrt\n    - too_short: {min_word: 3}\n    "
        "- {too_short: {min_words: x}}\n    - [1]\ntrain:",
    )
    found = faults(text + "  clip_norm: -1\n", known=known)
    assert [fault.partition(" = ")[0] for fault in found] == [
        "recipe.yaml:6: data.filters.0", "recipe.yaml:7: data.filters.1",
        "recipe.yaml:8: data.filters.2", "recipe.yaml:9: data.filters.3",
        "recipe.yaml:12: train.clip_norm",
    ]  # fmt: skip
    assert "did you mean too_short?" in found[0]
    assert "min_word is not an argument; did you mean min_words?" in found[1]
    assert "min_words = 'x': give a whole number" in found[2]
    assert "a list stands here; give a name, or {name: {argument: value}}" in found[3]


def test_the_default_calls_are_checked_too(faults: Faults, smallest: str) -> None:
    """A built-in that is renamed without the schema's default would otherwise fail in the build."""
    found = faults(smallest, known={"filters": {"other": len}})
    assert len(found) == 3
    assert "data.filters.0 = too_short: not among the functions of `filters`" in found[0]


# ── nothing of the machinery reaches the user ──

WHOLE: dict[str, Any] = {
    "name": "x",
    "data": {
        "sources": [{"path": "p"}, {"path": "q", "format": "text"}],
        "filters": ["a", {"b": {"c": 1}}],
        "split": {"validation": 0.1},
    },
    "model": {"width": 64, "layers": 2},
    "train": {"budget": {"steps": 5}, "optimizer": {"kind": "adamw", "learning_rate": 0.1}},
    "monitor": {"prompts": ["a"], "sampling": {"top_k": 4}},
}
PLACES = [place for place, _ in leaves(parse_recipe(WHOLE))] + [
    ("data",), ("data", "sources"), ("data", "sources", 1), ("data", "filters", 1), ("model",),
    ("train",), ("train", "budget"), ("train", "optimizer"), ("monitor", "sampling"), ("base",),
    ("train", "new"), ("data", "sources", 0, "new"), ("data", "clean", 0), ("data", "clean"),
]  # fmt: skip
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["muon", "adamw", "7b", "relu2", "", "🦊", "\ud800"]),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["name", "kind", "steps", "path", "x", "arguments"]),
                    st.integers() | st.text(max_size=3) | st.none(), max_size=3),
)  # fmt: skip
FOREIGN = re.compile(
    r"(?i)input should|field required|pydantic|validation error|type=|extra inputs|ctx|"
    r"valid (?:integer|string|number|boolean|tuple|dictionary)"
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=4))
@settings(deadline=None, max_examples=400)
def test_any_values_give_a_recipe_or_faults_in_our_words(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    """Breaks when a pydantic message is passed on, or a stand-in is itself refused."""
    mapping = copy.deepcopy(WHOLE)
    for place, junk in changes:
        holder: Any = mapping
        for part in place[:-1]:
            try:
                holder = (
                    holder[part] if not isinstance(holder, dict) else holder.setdefault(part, {})
                )
            except (TypeError, IndexError, KeyError):
                holder = None
        key = place[-1]
        if isinstance(holder, list) and (not isinstance(key, int) or key >= len(holder)):
            holder = None
        if isinstance(holder, dict | list):
            holder[key] = junk
    try:
        recipe = parse_recipe(mapping, "here")
    except RecipeError as error:
        assert error.faults
        for fault in error.faults:
            assert fault.startswith("here: "), fault
            assert "\n" not in fault
            assert not FOREIGN.search(fault), fault
    else:
        assert isinstance(recipe, Recipe)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": {"encoder_layers": 2}},
            "model: encoder_layers 2 has no effect with kind decoder; leave it out, or try kind "
            "encoder_decoder",
        ),
        (
            {"model": {"kind": "encoder"}, "train": {"objective": {"kind": "denoising"}}},
            "train.objective.kind denoising does not fit model.kind encoder, which learns by "
            "masked; try model.kind encoder_decoder, or leave train.objective.kind out",
        ),
        (
            {"train": {"objective": {"share": 0.3}}},
            "train.objective.share has no effect with model.kind decoder: it belongs to masked "
            "and denoising; leave it out",
        ),
        (
            {"model": {"kind": "encoder"}, "train": {"objective": {"span_length": 5.0}}},
            "train.objective.span_length has no effect with model.kind encoder",
        ),
        (
            {"model": {"kind": "encoder_decoder"}, "train": {"objective": {"mask_share": 0.5}}},
            "train.objective.mask_share has no effect with model.kind encoder_decoder",
        ),
        (
            {"model": {"kind": "encoder"}, "train": {"objective": {"mask_share": 0.95}}},
            "mask_share 0.95 and random_share 0.1 are together above 1; try random_share 0.05",
        ),
        (
            {
                "model": {"kind": "encoder"},
                "train": {"objective": {"mask_share": 0.0, "random_share": 0.0}},
            },
            "mask_share 0 and random_share 0 leave every token to be seen; try mask_share 0.8",
        ),
        (
            {"model": {"kind": "encoder_decoder"}, "train": {"document_mask": False}},
            "train.document_mask false does not fit model.kind encoder_decoder",
        ),
        (
            {"model": {"kind": "encoder"}, "train": {"best_by": "validation.bits_per_byte"}},
            "train.best_by validation.bits_per_byte does not exist with model.kind encoder",
        ),
        (
            {
                "model": {"kind": "encoder_decoder", "context": 64},
                "train": {"objective": {"share": 0.9, "span_length": 1.0}},
            },
            "makes targets of 117 tokens, more than model.context 64",
        ),
        ({"model": {"kind": "bert"}}, "model.kind = bert: not one of"),
    ],
)
def test_kinds_of_models_and_objectives_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    """Break tried: ask for the contradictions of the decoder alone."""
    recipe = {
        "name": "x",
        "data": {"sources": [{"path": "t"}]},
        "model": changes.get("model", {}),
        "train": {"budget": {"steps": 1}, **changes.get("train", {})},
    }
    with pytest.raises(RecipeError, match=re.escape(said)):
        parse_recipe(recipe)


def test_the_setting_at_fault_is_the_one_that_is_pointed_at(tmp_path: Path) -> None:
    """Not the first that any check looks at. Break tried: take all that may be checked together."""
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: x\ndata: {sources: [{path: t}]}\ntrain:\n  batch_tokens: 512\n"
        "  budget: {steps: 1}\n  objective:\n    share: 0.3\nmodel: {context: 64}\n"
    )
    with pytest.raises(RecipeError, match=r"recipe\.yaml:7: train\.objective\.share has no effect"):
        load_recipe(file)
