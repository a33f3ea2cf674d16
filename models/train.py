"""The trainer of every model: `python -m pixa.models.train --model NAME --data PACK... --out DIR --minutes N`.

`--start` begins a new budget from the weights of an old checkpoint or of a folder such as weights/fast.1, from which
`mlic` also grows. A run whose folder holds a checkpoint is resumed. See `pixa.models.run`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields

import torch
import torch.distributed as dist

from pixa.models.image_run import ImageRun
from pixa.models.run import Run, TrainConfig

RUNS: dict[str, type[Run]] = {"fast": ImageRun, "mlic": ImageRun}


def train(config: TrainConfig) -> None:
    """Run or resume the training that `config` describes."""
    torch.set_num_threads(config.threads)
    run = RUNS[config.model](config)
    if run.rank == 0:
        print(f"from step {run.step} on {run.device}", flush=True)
    run.train()
    if run.world > 1:
        dist.barrier()
        time.sleep(1)  # gloo's thread takes the GIL to let go of the last collective; destroying it sooner can deadlock
        dist.destroy_process_group()


def read_config(argv: Sequence[str] | None) -> TrainConfig:
    """The settings of the model that `--model` names, whose fields are the options."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--model", default=TrainConfig.model, choices=RUNS)
    kind = RUNS[first.parse_known_args(argv)[0].model]

    parser = argparse.ArgumentParser(prog="pixa train", description=__doc__.splitlines()[0])
    for field in fields(kind.config_class):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "data":
            parser.add_argument(option, nargs="+", required=True, help="folders, tar packs or files")
        elif field.name == "model":
            parser.add_argument(option, default=field.default, choices=RUNS, help="%(default)s")
        elif isinstance(field.default, tuple):
            parser.add_argument(option, nargs="+", default=(), **field.metadata)
        elif isinstance(field.default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(field.default), default=field.default, help="%(default)s")
    arguments = vars(parser.parse_args(argv))
    return kind.config_class(**{name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()})


def main(argv: Sequence[str] | None = None) -> int:
    config = read_config(argv)
    try:
        train(config)
    except (ValueError, OSError) as error:
        print(f"pixa train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
