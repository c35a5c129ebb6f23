"""The end of a run: the test split scored once, the diagnosis, the page, and what to hand back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wellfit.data.corpus import Corpus
from wellfit.diagnosis import Diagnosis, diagnose
from wellfit.evaluation.loss import evaluate
from wellfit.model.protocol import LanguageModel
from wellfit.monitor.folder import RunFolder, read_history, replace_file
from wellfit.monitor.history import History
from wellfit.recipe.schema import Recipe
from wellfit.records import Evaluated, Event
from wellfit.report.page import write_report
from wellfit.run.parts import guessing, held_out_rows
from wellfit.run.show import Show
from wellfit.run.weights import choose_checkpoint, take_weights
from wellfit.training import checkpoint, retention
from wellfit.training.threads import threads

# As a shell reports a program that ended by these signals: 128 + number.
STOP_STATUS = {"Ctrl-C": 130, "SIGTERM": 143}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    folder: Path
    corpus: Corpus
    history: History
    diagnosis: Diagnosis
    test: Evaluated | None
    """Scores on the whole test split; None where none is held out, or the run did not finish."""
    report: Path

    @property
    def stopped(self) -> bool:
        """Whether the run ended before its budget."""
        return self.history.status != "finished"

    @property
    def exit_status(self) -> int:
        """For a shell: 0 finished, 130 or 143 stopped by a signal, 1 otherwise."""
        if not self.stopped:
            return 0
        last = next((e.text for e in reversed(self.history.events) if e.kind == "stopped"), "")
        return next((code for word, code in STOP_STATUS.items() if last.startswith(word)), 1)


def conclude(
    recipe: Recipe, model: LanguageModel, corpus: Corpus, run_folder: RunFolder, show: Show
) -> Outcome:
    """A training that has ended → its test scores, findings and page, all in the run folder.

    The test split takes no part in any decision, so it is scored once, and only for a training
    that reached its budget or was stopped early. What is scored are the weights that `evaluate`
    and `generate` will take: see `settle_weights`.
    """
    history = read_history(run_folder.path)
    test = None
    last = history.train_loss.steps[-1] if len(history.train_loss) else 0
    if history.status == "finished":
        last = settle_weights(recipe, model, run_folder, last)
    if history.status == "finished" and "test" in corpus.splits:
        show.stage("scoring the test split", 0, 1)
        with threads(recipe.train.threads):
            test = evaluate(
                model,
                held_out_rows(recipe, corpus, "test"),
                corpus.documents("test"),
                step=last,
                split="test",
                micro_batch=recipe.train.micro_batch,
                guess=guessing(recipe),
            )
        run_folder.write(test)
        show.stage("scoring the test split", 1, 1)
        history = read_history(run_folder.path)
    diagnosis = diagnose(history)
    text = json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(run_folder.path / "findings.json", text + "\n")
    report = write_report(run_folder.path)
    return Outcome(run_folder.path, corpus, history, diagnosis, test, report)


def settle_weights(recipe: Recipe, model: LanguageModel, run_folder: RunFolder, last: int) -> int:
    """A finished training's model and its last step → the step of the weights it then holds.

    With `train.keep_best` and `train.restore_best` they are those of the best checkpoint, which an
    `Event("restored_best")` tells; where the checkpoint has averages of the weights, those. Raises
    CheckpointError where that checkpoint is damaged.
    """
    folder = run_folder.path / "checkpoints"
    newest = checkpoint.latest(folder)
    if newest is None:
        return last
    path = choose_checkpoint(run_folder.path, recipe)
    averaged = checkpoint.evaluated_file(path).name == checkpoint.AVERAGE
    if path != newest or averaged:
        take_weights(model, path)
    step = checkpoint.read_state(path).step
    train = recipe.train
    scores = checkpoint.read_state(newest).scores
    best = retention.best([step], scores, train.best_by)
    if train.keep_best and train.restore_best and best is not None:
        text = f"the best checkpoint is that of step {step}: {train.best_by} {best.value:.6g}"
        data = {"step": step, "by": train.best_by, "score": best.value, "average": averaged}
        run_folder.write(Event(last, "restored_best", text, data))
    return step
