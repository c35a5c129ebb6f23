"""The recipe's section `data.examples`: what a model shall answer, and to what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wellfit.recipe.section import Section, Share, refuse_split_twice

Task = Literal["answer", "classification", "span"]
COLUMNS: dict[Task, tuple[str, ...]] = {
    "answer": ("source", "context", "target", "messages", "system", "tools"),
    "classification": ("text", "pair", "label"),
    "span": ("question", "context", "answers"),
}
"""What an example of each task has: names in `data.examples.columns`."""


class Columns(Section):
    """Where an example's parts stand; a dot goes into an object, as in `translation.de`."""

    source: str = Field("", description="answer: the prompt, instruction, question or original.")
    context: str = Field(
        "", description="answer: what a source refers to, read behind it; span: the text read."
    )
    target: str = Field("", description="answer: what the model shall write.")
    messages: str = Field(
        "",
        description="answer: a conversation, a list of {role, content} or {from, value}, in place "
        "of source and target.",
    )
    system: str = Field("", description="answer: what the system says before all else.")
    tools: str = Field("", description="answer: the tools that a conversation may call, as JSON.")
    text: str = Field("", description="classification: the text.")
    pair: str = Field("", description="classification: a second text, read behind the first.")
    label: str = Field("", description="classification: the class, by name or by its number.")
    question: str = Field("", description="span: the question.")
    answers: str = Field(
        "",
        description="span: the answer, a text of the context or {text, answer_start} as SQuAD has "
        "it; without one, the question has no answer there.",
    )
    domain: str = Field(
        "", description="What scores are told apart by; classes are, without being named."
    )


class Examples(Section):
    """Examples with answers, in place of documents."""

    train: tuple[str, ...] = Field(
        min_length=1,
        description="Files, folders or globs: `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, "
        "`.arrow`; text files also as `.gz` and `.zst`.",
    )
    validation: tuple[str, ...] = Field((), description="The same for validation.")
    test: tuple[str, ...] = Field((), description="The same for the final test.")
    validation_share: Share = Field(
        0.0,
        description="Share of the train examples that becomes validation where it has no files: of "
        "each class alike, equal sources on one side.",
    )
    test_share: Share = Field(0.0, description="Share that becomes the test, likewise.")
    task: Task = Field(
        "answer",
        description="`answer`: write a target; `classification`: name the class of a text or a "
        "pair; `span`: point at the answer to a question in a text.",
    )
    columns: Columns = Field(
        Columns(), description="Columns or keys; empty ones are found by their usual names."
    )
    classes: tuple[str, ...] = Field(
        (), description="classification: the names of the classes, in the order of their numbers."
    )
    apart: bool = Field(
        False,
        description="answer: the source is read by an encoder, apart from the target; as "
        "model.kind has it.",
    )
    template: str = Field(
        "auto",
        min_length=1,
        description="answer: how messages become text: `plain` (source, line break, target), "
        "`chatml`, `llama3`, `gemma`, a .jinja file or a tokenizer's folder; `auto` takes the one "
        "beside data.tokenizer.file, else plain.",
    )
    turns: Literal["all", "last"] = Field(
        "all", description="answer: which answers of a conversation are learnt."
    )
    train_on_source: bool = Field(
        False, description="answer: the source is learnt too, and not only the target."
    )
    source_max_len: int = Field(
        0,
        ge=0,
        description="answer, classification: tokens of a source or text that are kept, from its "
        "beginning; 0 keeps all.",
    )
    target_max_len: int = Field(
        0,
        ge=0,
        description="answer: tokens of a target that are kept, from its beginning; a cut one has "
        "no end to learn. 0 keeps all.",
    )
    longest: int = Field(
        ge=8,
        le=1_048_576,
        description="Tokens of an example; longer ones are left out, and counted. Not more than "
        "model.context.",
    )

    @model_validator(mode="after")
    def _splits_fit(self) -> Examples:
        refuse_split_twice(self)
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_task(self) -> Examples:
        wanted = {*COLUMNS[self.task], "domain"}
        idle = [
            f"columns.{name}"
            for name in Columns.model_fields
            if getattr(self.columns, name) and name not in wanted
        ]
        if self.task != "answer":
            of_answer = ("apart", "train_on_source", "target_max_len")
            idle += [name for name in of_answer if getattr(self, name)]
            idle += ["template"] if self.template != "auto" else []
            idle += ["turns"] if self.turns != "all" else []
        idle += ["source_max_len"] if self.source_max_len and self.task == "span" else []
        if self.task == "classification" and self.columns.domain:
            idle.append("columns.domain")
        if self.task != "classification" and self.classes:
            idle.append("classes")
        if idle:
            raise ValueError(
                f"{' and '.join(idle)} would do nothing with task {self.task}; leave out, or "
                "choose the task it belongs to"
            )
        if self.apart and (self.template not in ("auto", "plain") or self.turns != "all"):
            raise ValueError(
                "template and turns are for conversations in one text, and with apart true a "
                "source is read apart; leave them out"
            )
        if self.apart and self.train_on_source:
            raise ValueError(
                "train_on_source would do nothing with apart true: an encoder's source is never "
                "written; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _classes_are_named(self) -> Examples:
        if self.task != "classification":
            return self
        if len(self.classes) < 2:
            told = f"here {self.classes[0]}" if self.classes else "here none"
            raise ValueError(
                f"task classification needs two classes or more, {told}; such as "
                "`classes: [negative, positive]`"
            )
        twice = next((one for one in self.classes if self.classes.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"classes names {twice} twice; keep one")
        return self
