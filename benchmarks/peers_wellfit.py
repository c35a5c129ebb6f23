"""Our own loop (`wellfit.training.loop.train`): one job, in a process of its own.

What a run does: the corpus through `Batches` and its data plan, the loop's records. Where a job
names no corpus its rows come from the same file as everybody's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from race_job import Measured, read_job, rows


class Stored:
    """The rows of the race's file as batches; `batch(step)` is a pure function."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.rows, self.each = rows(job), job["rows"]
        self.rows_per_epoch = len(self.rows)

    def batch(self, step: int) -> Any:
        from wellfit.data.batches import Batch

        window = self.rows[(step - 1) * self.each : step * self.each].astype(np.int64)
        columns = np.tile(np.arange(window.shape[1] - 1), (self.each, 1))
        nothing = np.zeros_like(columns)
        tokens, labels = np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])
        return Batch(tokens, labels, columns, nothing, nothing)

    def epoch(self, step: int) -> float:
        return step * self.each / self.rows_per_epoch


def main() -> None:
    """Trains as the job says and writes what was measured."""
    job = read_job()
    measured = Measured(job)
    from safetensors.torch import load_file, save_file

    from wellfit.data.batches import Batches
    from wellfit.data.corpus import Corpus
    from wellfit.model.transformer import Transformer
    from wellfit.recipe import schema
    from wellfit.records import Event, Step
    from wellfit.training.loop import train

    shape = schema.Model.model_validate(job["model"])
    model = Transformer(shape, job["vocabulary_size"])
    model.load_state_dict(load_file(job["weights"]))
    never = job["steps"] + 1
    section = schema.Train.model_validate(
        {
            "budget": {"steps": job["steps"]},
            "batch_tokens": job["rows"] * shape.context,
            "micro_batch": job["micro_batch"],
            "optimizer": job["optimizer"],
            "schedule": job["schedule"],
            "clip_norm": job["clip_norm"],
            "precision": job["precision"],
            "device": job["device"],
            "document_mask": job["document_mask"],
            "checkpoint_every": never,
            "threads": job["threads"],
            "compile": "on" if job["compile"] else "off",
        }
    )
    if job["corpus"]:
        batches = Batches(Corpus.open(job["corpus"]), shape.context, job["rows"], job["seed"])
    else:
        batches = Stored(job)
    with tempfile.TemporaryDirectory() as folder:
        for record in train(
            section,
            model,
            batches,  # type: ignore[arg-type]
            folder=Path(folder),
            seed=job["seed"],
            evaluate_every=never,
            sample_every=never,
        ):
            if isinstance(record, Event) and record.kind == "started":
                measured.begun()
            if isinstance(record, Step):
                measured.ended(record.loss)
    if job["save"]:
        save_file({name: p.detach().cpu() for name, p in model.named_parameters()}, job["save"])
    measured.write(
        f"wellfit.training.loop.train, {section.optimizer.kind}, {section.precision}, "
        f"compile={section.compile}",
        sum(p.numel() for p in model.parameters()),
        ("wellfit", "torch"),
    )


if __name__ == "__main__":
    main()
