"""Runs recipes on several processes, each killed once and resumed: ``python training_ranks.py WORLD recipes.json``."""

import contextlib
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

from preflmr.training import starting, train
from preflmr.training.recipe import TrainConfig
from preflmr.training.recipe_file import build


class Killed(BaseException):
    """In the middle of the last step, on all ranks."""


def main(rank, world, port, path):
    torch.set_num_threads(1)
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world}", "MASTER_PORT": f"{port}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    starting.set_training = lambda model, config: model.eval()  # without dropout
    for settings in json.loads(path.read_text()):
        config = build(TrainConfig, settings)
        forward, calls = train.Objective.forward, []
        last = config.micro_batches(world) * config.steps

        def killed(self, batch, forward=forward, calls=calls, last=last):
            calls.append(batch)
            if len(calls) == last:
                raise Killed
            return forward(self, batch)

        train.Objective.forward = killed
        with contextlib.suppress(Killed):
            train.run(config, cpu=True, progress=False)
        train.Objective.forward = forward
        train.run(config, resume=True, cpu=True, progress=False)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch is imported once; nothing has been computed yet, so there is no thread to lose.
    world, path = int(sys.argv[1]), Path(sys.argv[2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=main, args=(rank, world, port, path), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))
