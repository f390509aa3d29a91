"""Two workers on two hosts, as network namespaces make them, between which the network is cut."""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest
from helpers import Run, finish, logged_step, start, wait_until

FLAGS = (
    "--device=cpu --dataset=digits --model=mlp --global_batch=64 --micro_batch=32 --eval_every=0 "
    "--train_for=1000000st --checkpoint_every=50st --log_every=10st --steps_per_loop=10 --xla=off"
)
HOSTS = {"one": "10.213.77.1", "two": "10.213.77.2"}
# To another host's address, so that what is sent is lost without a word.
NOBODY = "02:00:00:00:00:99"


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True, timeout=30)


def space(host: str) -> str:
    return f"lockstep-{host}-{os.getpid()}"


@pytest.fixture
def network() -> Iterator[None]:
    """A cable between two hosts."""
    one, two = map(space, HOSTS)
    try:
        ip(f"netns add {one}")
        ip(f"netns add {two}")
        ip(f"link add cable netns {one} type veth peer name cable netns {two}")
        for host, address in HOSTS.items():
            ip(f"-n {space(host)} addr add {address}/24 dev cable")
            ip(f"-n {space(host)} link set cable up")
            ip(f"-n {space(host)} link set lo up")
    except (OSError, subprocess.CalledProcessError) as error:
        remove()
        pytest.skip(f"no network namespaces can be made here ({error})")
    yield
    remove()


def remove() -> None:
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", space(host)], capture_output=True)


def test_workers_between_which_the_network_is_cut_end_and_can_go_on(
    network: None, tmp_path: pathlib.Path
) -> None:
    run = Run(tmp_path / "run")
    addresses = [f"{address}:2222" for address in HOSTS.values()]
    workers = []
    for index, host in enumerate(HOSTS):
        task = {"type": "worker", "index": index}
        told = json.dumps({"cluster": {"worker": addresses}, "task": task})
        line = ["ip", "netns", "exec", space(host)]
        flags = f"{FLAGS} --run_dir={run.folder}"
        workers.append(start(flags, tmp_path, {"TF_CONFIG": told}, before=line))
    wait_until(lambda: logged_step(run.folder) >= 100, workers[0])
    (one, first), (two, second) = HOSTS.items()
    ip(f"-n {space(one)} neigh replace {second} lladdr {NOBODY} dev cable nud permanent")
    ip(f"-n {space(two)} neigh replace {first} lladdr {NOBODY} dev cable nud permanent")
    began = time.monotonic()
    ended = [finish(worker) for worker in workers]
    assert time.monotonic() - began < 30
    assert [one.code for one in ended] == [75, 75]
    for one in ended:
        assert "has gone, and none can go on alone" in one.err and "Traceback" not in one.err
    assert run.checkpoints()[-1] >= 50
