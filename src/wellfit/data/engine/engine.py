"""Tasks → files with markers: map and exchange, inline or in worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from wellfit.data.engine import exchange
from wellfit.data.engine.task import (
    File,
    Result,
    Task,
    Work,
    finished,
    perform,
    reference,
    task_key,
)
from wellfit.data.engine.version import code_version
from wellfit.data.engine.workers import Pool

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called in the thread that builds."""


class Engine:
    """Runs the stages of one corpus; its results lie in `folder`, one sub-folder a stage.

    `workers` processes share the work; 1 works inline, 0 takes one a core. The bytes written
    never depend on it. Use as a context: leaving it ends the workers.
    """

    def __init__(self, folder: Path, workers: int = 1, progress: Progress | None = None) -> None:
        self.folder = folder
        self.workers = workers or len(os.sched_getaffinity(0))
        self.tasks_run: dict[str, int] = {}
        """Stage → tasks that were computed in this life, not taken from a marker."""
        self._progress = progress or _nobody_watches
        self._pool = Pool(self.workers)
        self._used: set[Path] = set()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.close(kill=kind is not None)

    def map(
        self,
        stage: str,
        function: Work,
        tasks: Sequence[Task],
        parameters: Mapping[str, Any],
        *,
        suffix: str,
        uses: Sequence[Callable[..., Any]] = (),
    ) -> list[Result]:
        """Tasks → their results, in the order of the tasks; finished ones are not run again.

        `function` is a module's function; `uses` names others whose code decides the result.
        Raises DataError when a task fails or its worker is killed; what was finished stays.
        """
        version = code_version([function, *uses])
        folder = self.folder / stage
        keys = [task_key(stage, task, parameters, version) for task in tasks]
        results: list[Result | None] = []
        for key in keys:
            results.append(finished(folder, key))
            self._used.update((folder / f"{key}.marker.json", folder / f"{key}{suffix}"))
        missing = [number for number, result in enumerate(results) if result is None]
        done = len(tasks) - len(missing)
        self.tasks_run[stage] = self.tasks_run.get(stage, 0) + len(missing)
        self._progress(stage, done, len(tasks))

        def run_inline(number: int) -> Result:
            return perform(folder, keys[number], suffix, function, tasks[number], parameters)

        def run_in_worker(number: int) -> Result:
            request = (
                *(folder, keys[number], suffix),
                *(reference(function), tasks[number], dict(parameters)),
            )
            reply: Result = self._pool.ask(request, f"{stage}: {tasks[number].name}")
            return reply

        if self.workers == 1 or len(missing) < 2:
            for number in missing:
                results[number] = run_inline(number)
                done += 1
                self._progress(stage, done, len(tasks))
        else:
            for number, result in self._concurrently(run_in_worker, missing):
                results[number] = result
                done += 1
                self._progress(stage, done, len(tasks))
        assert all(results), stage
        return [result for result in results if result]

    def exchange(
        self,
        stage: str,
        emit: exchange.Emit,
        combine: exchange.Combine,
        tasks: Sequence[Task],
        parameters: Mapping[str, Any],
        *,
        buckets: int,
    ) -> list[Result]:
        """Tasks → one `.npy` file a bucket: rows regrouped by their key, then combined.

        `emit(task, parameters)` gives the rows of a task: a structured array with a uint64 field
        `key`. Rows of one key meet in one bucket; `combine(rows, parameters)` gets a bucket's
        rows, sorted by all their fields, and gives the array to store. A bucket is recomputed only
        where one of its rows changed.
        """
        split = self.map(
            f"{stage}-rows",
            exchange.write_rows,
            tasks,
            {"parameters": dict(parameters), "emit": reference(emit), "buckets": buckets},
            suffix=".rows",
            uses=[emit],
        )
        gather = [
            Task(
                name=f"bucket {bucket}",
                files=tuple(
                    File(result.file.path, result.summary["slices"][bucket]) for result in split
                ),
                data={"bucket": bucket},
            )
            for bucket in range(buckets)
        ]
        return self.map(
            stage,
            exchange.write_combined,
            gather,
            {"parameters": dict(parameters), "combine": reference(combine)},
            suffix=".npy",
            uses=[combine],
        )

    def sweep(self) -> None:
        """Remove what no task of this build left or reused: older results and torn files."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.is_dir():
                for path in folder.iterdir():
                    if path not in self._used:
                        path.unlink()
                if not any(folder.iterdir()):
                    folder.rmdir()

    def _concurrently(
        self, run: Callable[[int], Result], numbers: Sequence[int]
    ) -> Iterator[tuple[int, Result]]:
        waiting = iter(numbers)
        threads = min(self.workers, len(numbers))
        with ThreadPoolExecutor(threads, thread_name_prefix="wellfit-data") as executor:
            running: dict[Future[Result], int] = {}
            try:
                for number in waiting:
                    running[executor.submit(run, number)] = number
                    if len(running) == threads:
                        break
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        number = running.pop(future)
                        yield number, future.result()
                        following = next(waiting, None)
                        if following is not None:
                            running[executor.submit(run, following)] = following
            except BaseException:
                # Threads wait for their workers: without this, leaving would wait for all tasks.
                self._pool.close(kill=True)
                raise


def _nobody_watches(stage: str, done: int, total: int) -> None:
    """Progress of a build that nobody watches."""
