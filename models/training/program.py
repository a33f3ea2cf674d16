"""The trainer of every model: `python -m pixa.models.training --model NAME --data PACK... --out DIR --minutes N`.

`--start` begins a new budget from the weights of an old checkpoint or of a folder such as weights/fast.2, from which
`mlic` also grows. A run whose folder holds a checkpoint is resumed. See `pixa.models.training.run`.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist

from pixa.models.training.image_run import ImageRun
from pixa.models.training.run import Run, TrainConfig
from pixa.models.training.stem_run import StemRun
from pixa.models.training.vqgan_run import VqganRun

RUNS: dict[str, type[Run]] = {"fast": ImageRun, "mlic": ImageRun, "stem": StemRun, "vqgan": VqganRun}


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


def class_of(settings: dict, origin: str) -> type[TrainConfig]:
    """The kind of settings that a model has.

    Raises:
        ValueError: there is no such model, or it does not have one of the settings; the message begins with `origin`.
    """
    model = settings.get("model", TrainConfig.model)
    if model not in RUNS:
        raise ValueError(f"{origin}: there is no model {model!r}, only {', '.join(RUNS)}")
    config_class = RUNS[model].config_class
    unknown = settings.keys() - {field.name for field in fields(config_class)}
    if unknown:
        raise ValueError(f"{origin}: {model} has no setting {', '.join(sorted(unknown))}")
    return config_class


def config_of(settings: dict, origin: str) -> TrainConfig:
    """Settings by name as those of their model; errors as `class_of`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return class_of(settings, origin)(**values)


def read_config(argv: Sequence[str] | None) -> TrainConfig:
    """The settings of `--config`, a TOML file, and of the other options, whose word is the last.

    Both are named by the fields of the model's configuration.

    Raises:
        ValueError: the file is no TOML or names what the model does not have.
        OSError: it cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--model", choices=RUNS)
    known = first.parse_known_args(argv)[0]
    settings = tomllib.loads(known.config.read_text()) if known.config else {}
    model = known.model or settings.get("model", TrainConfig.model)
    config_class = class_of(settings | {"model": model}, str(known.config))
    options = {field.name: field for field in fields(config_class)}

    parser = argparse.ArgumentParser(prog="pixa train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="a TOML file with any of the settings below")
    for name, field in options.items():
        option = f"--{name.replace('_', '-')}"
        if name == "data":
            parser.add_argument(option, nargs="+", required="data" not in settings, help="folders, tar packs or files")
        elif name == "model":
            parser.add_argument(option, choices=RUNS, help=field.default)
        elif isinstance(field.default, tuple):
            parser.add_argument(option, nargs="+", **field.metadata)
        elif isinstance(field.default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(field.default), help="%(default)s")
    parser.set_defaults(**{name: field.default for name, field in options.items()} | settings | {"model": model})
    arguments = vars(parser.parse_args(argv))
    return config_of({name: arguments[name] for name in options}, str(known.config))


def main(argv: Sequence[str] | None = None) -> int:
    try:
        train(read_config(argv))
    except (ValueError, OSError) as error:
        print(f"pixa train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
