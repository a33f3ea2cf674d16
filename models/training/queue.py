"""A queue of training runs: `python -m pixa.models.training.queue runs/queue.toml` trains stage after stage.

The file holds tables `[[stage]]` with the settings of a run (see `pixa.models.training.run`). A stage that names no
`start` goes on from the stage before it. Every stage ends with its learning rate decayed to nothing and an evaluation
on the held-out samples, and adds its row to history.md beside the queue. Started again after a kill, the queue leaves
out what is done and resumes what was interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pixa.models.training import checkpoint
from pixa.models.training.program import config_of, train
from pixa.models.training.run import TrainConfig

HEADER = "| stage | data | minutes | steps | gigapixels | held-out |\n|---|---|---|---|---|---|\n"


def read_stages(path: Path) -> list[TrainConfig]:
    """The settings of every stage, each started from the one before it unless it says otherwise.

    Raises:
        ValueError: the file is no TOML or no queue, a stage has no folder of its own, or names what its model does not
            have.
        OSError: it cannot be read.
    """
    tables = tomllib.loads(path.read_text()).get("stage", [])
    if not tables:
        raise ValueError(f"{path} has no [[stage]]")
    stages: list[TrainConfig] = []
    for number, table in enumerate(tables):
        before = {"start": str(Path(stages[-1].out) / "checkpoint.pt")} if stages else {}
        stages.append(config_of(before | table, f"{path}, stage {number + 1}"))
    folders = [stage.out for stage in stages]
    if len(set(folders)) < len(folders):
        raise ValueError(f"{path}: two stages have the same `out`")
    return stages


def is_done(stage: TrainConfig) -> bool:
    path = Path(stage.out) / "checkpoint.pt"
    return path.exists() and checkpoint.load(path, "cpu")["elapsed"] >= 60 * stage.minutes


def history_row(stage: TrainConfig) -> str:
    """A finished stage as a row of a Markdown table: what it was trained on, for how long, and its last evaluation."""
    last = json.loads((Path(stage.out) / "log.jsonl").read_text().splitlines()[-1])
    pixels = last["step"] * stage.batch * stage.crop**2
    data = ", ".join(Path(path).name for path in stage.data)
    found = {name: value for name, value in last.items() if name not in ("step", "minutes", "train")}
    numbers = f"{last['minutes']} | {last['step']} | {pixels / 1e9:.2f}"
    return f"| {Path(stage.out).name} | {data} | {numbers} | {json.dumps(found)} |\n"


def run_queue(path: Path) -> None:
    """Train what is not done yet, in order."""
    stages, history = read_stages(path), path.parent / "history.md"
    for stage in stages:
        if is_done(stage):
            continue
        train(stage)
        rows = history.read_text() if history.exists() else HEADER
        history.write_text(rows + history_row(stage))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pixa.models.training.queue", description=__doc__.splitlines()[0])
    parser.add_argument("queue", type=Path, help="a TOML file of stages")
    try:
        run_queue(parser.parse_args(argv).queue)
    except (ValueError, OSError) as error:
        print(f"pixa train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
