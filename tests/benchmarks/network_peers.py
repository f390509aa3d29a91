"""The arms of `networks` that run without TensorFlow, in an environment of their own.

    PEERS/bin/python -m tests.benchmarks.network_peers ARM FOLDER

FOLDER has what `networks` wrote: model.keras, weights.npz (by path), data.npz (all batches of `x`
and `y`) and cell.json. An arm prints the losses of the first steps, then takes turns.
"""

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.benchmarks.interleaved import Turns

RATES = {"sgd": 0.02, "adam": 0.001}  # constant


def report(losses: list[float]) -> None:
    """Prints the losses of the first steps, which all arms must agree on."""
    print(json.dumps({f"loss {step}": loss for step, loss in enumerate(losses, 1)}), flush=True)


def fit(
    turns: Turns, folder: pathlib.Path, facts: dict[str, Any], scope: Any, batches: Any
) -> None:
    """Keras's `fit` as shipped, on the backend that there is: a block is an epoch.

    Args:
      scope: of the strategy.
      batches: all of them over and over.
    """
    import keras

    with scope:
        model, optimizer = load(folder, facts)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])

    arguments = {"verbose": 0, "shuffle": False}
    first = model.fit(batches, steps_per_epoch=1, epochs=facts["checked"], **arguments)
    report(first.history["loss"])

    def begin(epoch: int, logs: Any = None) -> None:
        # After the last turn `fit` does one step more before it looks at this.
        model.stop_training = not turns.begin()

    def end(epoch: int, logs: Any = None) -> None:
        if not model.stop_training:
            turns.end()

    clock = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    model.fit(batches, steps_per_epoch=turns.units, epochs=10**9, callbacks=[clock], **arguments)


def load(folder: pathlib.Path, facts: dict[str, Any]) -> tuple[Any, Any]:
    """The model that all begin with, and Keras's optimizer for it."""
    import keras

    optimizer = {
        "sgd": keras.optimizers.SGD(RATES["sgd"], momentum=0.9, nesterov=True),
        "adam": keras.optimizers.Adam(RATES["adam"]),
    }[facts["optimizer"]]
    return keras.saving.load_model(folder / "model.keras", compile=False), optimizer


def jax(turns: Turns, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Keras's `fit` on JAX, on one device that has all cores."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the card is shared with other arms
    if not facts["tf32"]:
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    fit(turns, folder, facts, contextlib.nullcontext(), endless(folder))


def endless(folder: pathlib.Path, part: slice = slice(None)) -> Iterator[tuple[Any, Any]]:
    """All batches over and over, or a part of each."""
    data = np.load(folder / "data.npz")
    # Keras takes a generator, and no other iterator.
    yield from itertools.cycle(
        [(x[part], y[part]) for x, y in zip(data["x"], data["y"], strict=True)]
    )


def torch(turns: Turns, folder: pathlib.Path, facts: dict[str, Any], tuned: bool = False) -> None:
    """The loop that one writes, eager, in one process on all cores.

    Args:
      tuned: compiled, channels last, with the fused optimizer, as its guide has it.
    """
    step = torch_step(folder, facts, endless(folder), tuned=tuned)
    report([step().item() for _ in range(facts["checked"])])
    while turns.begin():
        for _ in range(turns.units):
            loss = step()
        loss.item()  # a GPU has then done what it was given
        turns.end()


def torch_step(
    folder: pathlib.Path,
    facts: dict[str, Any],
    batches: Iterator[tuple[Any, Any]],
    parallel: bool = False,
    tuned: bool = False,
) -> Callable[[], Any]:
    """What trains a step and returns its loss; it counts what is right, as the others do."""
    import torch
    from torch.nn import functional

    from tests.benchmarks.torch_networks import make_network

    network = make_network(facts["model"], np.load(folder / "weights.npz")).train()
    device = "cuda" if facts["device"] == "gpu" else "cpu"
    network = network.to(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = facts["tf32"]
    half = {"dtype": torch.bfloat16, "enabled": facts["precision"] == "bfloat16"}
    if tuned:
        network = torch.compile(network.to(memory_format=torch.channels_last))
    if parallel:
        network = torch.nn.parallel.DistributedDataParallel(network)
    weights, fused = network.parameters(), tuned or None
    optimizer = {
        "sgd": lambda rate: torch.optim.SGD(
            weights, rate, momentum=0.9, nesterov=True, fused=fused
        ),
        "adam": lambda rate: torch.optim.Adam(weights, rate, eps=1e-7, fused=fused),  # as Keras
    }[facts["optimizer"]](RATES[facts["optimizer"]])
    right = torch.zeros([], device=device)

    def step() -> torch.Tensor:
        x, y = (torch.from_numpy(array).to(device) for array in next(batches))
        if x.dim() == 4:  # images, as PyTorch has them
            x = x.permute(0, 3, 1, 2)
            x = x if tuned else x.contiguous()
        with torch.autocast(device, **half):
            logits = network(x)
        loss = functional.cross_entropy(logits.float().flatten(0, -2), y.flatten().long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.add_((logits.detach().argmax(-1) == y).float().mean())
        return loss.detach()

    return step


def ddp(turns: Turns, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """`DistributedDataParallel` by gloo: two processes, each on one core with half of a batch."""
    multiprocessing.get_context("spawn").Process(
        target=ddp_rank, args=(1, turns, folder, facts), daemon=True
    ).start()
    ddp_rank(0, turns, folder, facts)


def ddp_rank(rank: int, turns: Turns, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """One of the two; the first takes turns, which the second one waits for in its all-reduce."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ddp", rank=rank, world_size=2)
    half = facts["global_batch"] // 2
    batches = endless(folder, slice(rank * half, (rank + 1) * half))
    step = torch_step(folder, facts, batches, parallel=True)
    losses = torch.stack([step() for _ in range(facts["checked"])])
    dist.all_reduce(losses)
    if rank == 0:
        report((losses / 2).tolist())
    while rank or turns.begin():
        for _ in range(turns.units):
            step()
        if rank == 0:
            turns.end()


ARMS = {
    "jax": jax,
    "torch": torch,
    "torch-tuned": functools.partial(torch, tuned=True),
    "ddp": ddp,
}


def main(arm: str, place: str) -> None:
    """Is an arm."""
    folder = pathlib.Path(place)
    facts = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    ARMS[arm](Turns(facts["steps"], facts["seconds"]), folder, facts)


if __name__ == "__main__":
    main(*sys.argv[1:])
