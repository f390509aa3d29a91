"""The runs that several tests look at, each made once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from helpers import Run, train_all

# Clipping that clips, weight decay, augmentation, synchronized BatchNormalization.
CNN = (
    "--device=cpu --dataset=digits --augment=shift(1)|flip --model=cnn --global_batch=64 "
    "--train_for=50st --clip_norm=0.1 --weight_decay=0.01"
)
SGD = (
    f"{CNN} --optimizer=sgd --momentum=0.9 --accumulate=2 --learning_rate=0.8 --warmup=10st "
    "--decay=cosine --log_every=1st --eval_every=0 --checkpoint_every=10st"
)
# The periods do not divide each other, so that a checkpoint falls between two rows of the log.
ADAMW = (
    f"{CNN} --optimizer=adamw --learning_rate=0.02 --warmup=20% --decay=cosine --log_every=3st "
    "--eval_every=1ep --checkpoint_every=20st --steps_per_loop=3"
)
# Without BatchNormalization, so that the division into micro-batches must not matter.
MLP = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 "
    "--train_for=50st --optimizer=sgd --momentum=0.9 --clip_norm=0.5 --weight_decay=0.02 "
    "--learning_rate=0.1 --lr_scaling=none --warmup=5st --decay=cosine --end_learning_rate=0.01 "
    "--log_every=4st --eval_every=15st --checkpoint_every=20st"
)
# Plain SGD, so that an update is the learning rate times the gradient.
PLAIN = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 "
    "--train_for=15st --optimizer=sgd --momentum=0 --log_every=1st --eval_every=0 "
    "--checkpoint_every=7st --steps_per_loop=10"
)


CONSTANT = "--learning_rate=0.6 --lr_scaling=sqrt --warmup=4st --decay=constant"
COSINE = "--learning_rate=0.3 --lr_scaling=none --warmup=0 --decay=cosine --end_learning_rate=0.1"
RUNS = {
    "mlp_runs": {
        "1x1": f"{MLP} --replicas=1",
        "2x2": f"{MLP} --replicas=2 --accumulate=2",
        "1x1-blocks-of-1": f"{MLP} --replicas=1 --steps_per_loop=1",
        "1x1-blocks-of-7": f"{MLP} --replicas=1 --steps_per_loop=7",
    },
    "adamw_runs": {n: f"{ADAMW} --replicas={n}" for n in ("4", "2", "1")},
    "sgd_runs": {n: f"{SGD} --replicas={n}" for n in ("4", "2", "1")},
    "plain_runs": {
        "constant": f"{PLAIN} {CONSTANT} --replicas=1",
        "cosine": f"{PLAIN} {COSINE} --replicas=2",
    },
}
Futures = dict[str, "Future[dict[str, Run]]"]


@pytest.fixture(scope="session", autouse=True)
def begun(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Futures]:
    """Those of the runs that this session's tests look at, begun while others need no process."""
    wanted = {name for item in request.session.items for name in item.fixturenames}
    pool = ThreadPoolExecutor(1)
    yield {
        name: pool.submit(train_all, tmp_path_factory.mktemp(name), commands)
        for name, commands in RUNS.items()
        if name in wanted
    }
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def sgd_runs(begun: Futures) -> dict[str, Run]:
    """50 steps of SGD on 1, 2 and 4 replicas, two micro-batches each."""
    return begun["sgd_runs"].result()


@pytest.fixture(scope="session")
def adamw_runs(begun: Futures) -> dict[str, Run]:
    """50 steps of AdamW on 1, 2 and 4 replicas."""
    return begun["adamw_runs"].result()


@pytest.fixture(scope="session")
def mlp_runs(begun: Futures) -> dict[str, Run]:
    """50 steps of an mlp on REPLICASxMICRO_BATCHES, also with other lengths of the device loop."""
    return begun["mlp_runs"].result()


@pytest.fixture(scope="session")
def plain_runs(begun: Futures) -> dict[str, Run]:
    """15 steps of plain SGD: one schedule on 1 replica, another on 2."""
    return begun["plain_runs"].result()
