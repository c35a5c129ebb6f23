"""A recipe and where it runs → its plan. Only calibration, and a run that begins, import torch."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wellfit.data.corrupt.marks import marks
from wellfit.errors import DataError, WellfitError
from wellfit.plan.devices import Machine, gpu, reported
from wellfit.plan.fit import Apply
from wellfit.plan.guest import plan_guest
from wellfit.plan.length import Counts
from wellfit.plan.plan import Plan, plan
from wellfit.recipe.schema import Recipe
from wellfit.run.load import load
from wellfit.run.micro_batch import with_micro_batch
from wellfit.run.vocabulary import marks_with, vocabulary_of, widened

if TYPE_CHECKING:
    from wellfit.data.corpus import Corpus
    from wellfit.data.packing.counts import Packed
    from wellfit.plan.layout import Precision

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
NVIDIA = Path("/proc/driver/nvidia/gpus")


def plan_file(
    path: Path,
    changes: tuple[str, ...] = (),
    *,
    gpu_name: str | None = None,
    price: float | None = None,
    calibrated: bool = False,
) -> Plan:
    """A recipe file and `key=value` changes → its plan on a named GPU, or on this machine.

    The vocabulary and the counts are those of the corpus where it is built from the same data
    section, else the vocabulary is the recipe's and the counts are unknown. Raises RecipeError,
    and WellfitError for a name that is not in the table or a price that is none.
    """
    if price is not None and not price >= 0:
        raise WellfitError(
            f"a price of {price:g} an hour",
            where="--price",
            way_out="Give money an hour, such as --price 2.50.",
        )
    if gpu_name is not None and calibrated:
        raise WellfitError(
            "--calibrate times steps on this machine, --gpu names another",
            where="--gpu",
            way_out="Give one of the two.",
        )
    recipe = load(path, changes)
    machine, precision = settle_machine(recipe, gpu_name)
    corpus = built_corpus(recipe)
    vocabulary_size, origin = vocabulary(recipe, corpus)
    recipe = with_micro_batch(recipe, machine, precision, vocabulary_size)
    measured = None
    if calibrated:
        from wellfit.run.calibrate import calibrate

        measured = calibrate(recipe, vocabulary_size, corpus)

    if recipe.model.foreign or recipe.model.adapter is not None:
        from wellfit.run.parts import frozen_bytes, model_shapes

        return plan_guest(
            recipe,
            machine,
            precision,
            model_shapes(recipe, vocabulary_size),
            frozen=frozen_bytes(recipe, vocabulary_size),
            vocabulary_size=vocabulary_size,
            vocabulary_origin=origin,
            counts=counts_of(corpus, recipe) if corpus else None,
            price=price,
            measured=measured,
        )
    return plan(
        recipe,
        machine,
        precision,
        vocabulary_size=vocabulary_size,
        vocabulary_origin=origin,
        counts=counts_of(corpus, recipe) if corpus else None,
        price=price,
        measured=measured,
        apply=patcher(path, changes),
    )


def patcher(path: Path, changes: tuple[str, ...]) -> Apply:
    """A recipe file and the changes on the command line → the recipe with a patch behind them.

    A patch takes the place of a change to the same setting, as the person who pastes it would do.
    """

    def apply(patch: tuple[str, ...]) -> Recipe:
        keys = {change.partition("=")[0] for change in patch}
        others = (change for change in changes if change.partition("=")[0] not in keys)
        return load(path, (*others, *patch))

    return apply


def settled(recipe: Recipe, corpus: Corpus, run: Path | None = None) -> Recipe:
    """A recipe and its corpus, as a run begins → the recipe with nothing left open.

    `run` is the folder of a run that goes on: it keeps what it began with.
    """
    machine, precision = machine_of_run(recipe)
    return with_micro_batch(recipe, machine, precision, vocabulary_of(recipe, corpus), run=run)


def machine_of_run(recipe: Recipe) -> tuple[Machine, Precision]:
    """A recipe → the device that torch will use, and the precision there."""
    from wellfit.training.precision import choose

    where, how = choose(recipe.train.device, recipe.train.precision)
    machine = cpu_machine()
    if where.name == "cuda":
        import torch

        about = torch.cuda.get_device_properties(0)
        known = reported(about.name)
        machine = gpu(known) if known else Machine(about.name, "cuda", None)
        machine = replace(machine, memory=int(about.total_memory))
    elif where.name == "mps":
        machine = replace(machine, name="this Mac's GPU", device="mps")
    return machine, cast("Precision", how.name)


def plan_of_run(recipe: Recipe, corpus: Corpus, apply: Apply | None = None) -> Plan:
    """A recipe and its corpus, as a run begins → its plan on the device that torch will use."""
    machine, precision = machine_of_run(recipe)
    if recipe.model.foreign or recipe.model.adapter is not None:
        from wellfit.run.parts import frozen_bytes, model_shapes

        entries = vocabulary_of(recipe, corpus)
        return plan_guest(
            recipe,
            machine,
            precision,
            model_shapes(recipe, entries),
            frozen=frozen_bytes(recipe, entries),
            vocabulary_size=entries,
            vocabulary_origin="its corpus",
            counts=counts_of(corpus, recipe),
        )
    return plan(
        recipe,
        machine,
        precision,
        vocabulary_size=vocabulary_of(recipe, corpus),
        vocabulary_origin="its corpus",
        counts=counts_of(corpus, recipe),
        apply=apply,
    )


def settle_machine(recipe: Recipe, gpu_name: str | None) -> tuple[Machine, Precision]:
    """A recipe and a GPU's name, or none → the machine and the precision there, without torch.

    Without a name it is this machine's NVIDIA GPU where its driver tells of one and the recipe
    does not ask for the CPU, else its CPU.
    """
    wanted = recipe.train.precision
    if gpu_name is None and recipe.train.device in ("auto", "cuda"):
        gpu_name = _local_gpu()
        if gpu_name is None and recipe.train.device == "cuda":
            raise WellfitError(
                "no GPU of the table is seen here, and the recipe asks for cuda",
                where="train.device=cuda",
                way_out="Name one with --gpu, or set train.device=cpu.",
            )
    if gpu_name is not None:
        machine = gpu(gpu_name)
        return machine, machine.best if wanted == "auto" else wanted
    machine = cpu_machine()
    mac = sys.platform == "darwin" and platform.machine() == "arm64"
    if recipe.train.device == "mps" or (mac and recipe.train.device == "auto"):
        machine = replace(machine, name="this Mac's GPU", device="mps", native=("fp32",))
    return machine, machine.best if wanted == "auto" else wanted


def cpu_machine() -> Machine:
    """This machine's CPU: its memory, and whether it multiplies bf16; its peaks are not known."""
    from wellfit.training.precision import choose_precision, cpu_flags
    from wellfit.training.threads import usable_cores

    how = choose_precision("auto", "cpu", cpu_flags=cpu_flags(), capability=(0, 0))
    cores = usable_cores()
    return Machine(
        name=f"this machine's CPU ({cores} cores)" if cores > 1 else "this machine's CPU",
        device="cpu",
        memory=main_memory(),
        native=("fp32", how.name) if how.name != "fp32" else ("fp32",),
    )


def main_memory(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Nothing in, bytes of main memory that this process may use out, a container's limit too."""
    import psutil

    there = int(psutil.virtual_memory().total)
    for limit in limits:
        try:
            there = min(there, int(limit.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return there


def built_corpus(recipe: Recipe) -> Corpus | None:
    """A recipe → its corpus where it was built from the same data section, else None."""
    from wellfit.data.corpus import Corpus

    folder = Path(recipe.data.folder) if recipe.data.folder else Path("corpora") / recipe.name
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        corpus = Corpus.open(folder)
    except (OSError, ValueError, DataError):
        return None
    section = recipe.data.of_corpus()
    return corpus if manifest.get("parameters") == section else None


def counts_of(corpus: Corpus, recipe: Recipe) -> Counts:
    """A corpus and a recipe → the counts that plan and advice look at."""
    import numpy as np

    tokens = {split: len(corpus.tokens(split)) for split in corpus.splits}
    train = corpus.documents("train").tokens if "train" in tokens else np.zeros(0, np.int64)
    packed = None
    if recipe.data.packing != "stream" and len(train):
        packed = packings_of(corpus, recipe)[recipe.data.packing]
    return Counts(
        train_tokens=tokens.get("train", 0),
        validation_tokens=tokens.get("validation", 0),
        test_tokens=tokens.get("test", 0),
        train_documents=len(train),
        median_document_tokens=int(np.median(train)) if len(train) else 0,
        train_rows=packed.rows if packed else None,
        padding_share=packed.padding_share if packed else 0.0,
    )


def packings_of(corpus: Corpus, recipe: Recipe) -> dict[str, Packed]:
    """A corpus and a recipe → what each packing makes of train in rows of its context."""
    import numpy as np

    from wellfit.data.packing.counts import packed_by_each, packed_examples

    table = corpus.documents("train")
    if corpus.of_examples:
        sources = table.source_tokens
        places = table.tokens if sources is None else np.maximum(table.tokens, sources)
        return packed_examples(places, recipe.model.context)
    return packed_by_each(table.first_token, table.tokens, recipe.model.context)


def vocabulary(recipe: Recipe, corpus: Corpus | None) -> tuple[int, str]:
    """A recipe and its corpus, if any → entries of the model, marks included, and whose."""
    if corpus is not None:
        return vocabulary_of(recipe, corpus), "its corpus"
    tokens, section = recipe.data.tokens, recipe.data.tokenizer
    size, whose = section.vocabulary_size, "data.tokenizer.vocabulary_size"
    file = section.file if tokens is None else tokens.tokenizer
    if tokens is not None and tokens.vocabulary_size is not None:
        size, whose = tokens.vocabulary_size, "data.tokens.vocabulary_size"
    elif file:
        from wellfit.data.tokens.tokenizer import load as load_tokenizer

        ready = load_tokenizer(Path(file), section.separator if tokens is None else "")
        return marks_with(recipe, ready).vocabulary_size, file
    found = widened(recipe, marks(recipe.model.kind, {}, size, 0))
    return found.vocabulary_size, whose


def _local_gpu(folder: Path = NVIDIA) -> str | None:
    """The table's name of this machine's first NVIDIA GPU, as its driver tells it; else None."""
    for about in sorted(folder.glob("*/information")):
        for line in about.read_text(encoding="utf-8", errors="replace").splitlines():
            label, _, name = line.partition(":")
            if label == "Model":
                return reported(name.strip())
    return None
