"""The cluster that a launcher announces to a process, by its environment variables.

TensorFlow's own resolver for Slurm is not used: it needs `nvidia-smi`, fails without GPUs, and
orders `n[2,10]` as text.
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.plan.cluster import Cluster

# What launch.kubernetes gives each pod: the addresses of all; Kubernetes itself gives the index.
WORKERS, _INDEX = "LOCKSTEP_WORKERS", "JOB_COMPLETION_INDEX"
# What launchers tell each of the processes that they start: how many there are. A step of a Slurm
# job knows better than the job.
_COUNTS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_SIZE",),
    ("PMI_SIZE",),
    ("WORLD_SIZE",),
)
# Below the ports that Linux hands out by itself.
_FIRST_PORT, _PORTS = 20_000, 12_000
_SECONDS = 30.0  # for Slurm to tell of its nodes
_ALONE = "each copy would train by itself"


def find_cluster(kind: str, environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that this process is a worker of; None where it trains alone.

    Args:
      kind: that of --cluster; auto takes TF_CONFIG, else what launch.kubernetes or Slurm say.

    Raises:
      ValueError: none is announced where one was asked for, one is where none was, or what is
        announced cannot be.
    """
    config = environment.get("TF_CONFIG", "").strip()
    if kind == "tf_config" or (kind == "auto" and config):
        cluster = _of_tf_config(config)
        if kind == "tf_config" and cluster is None:
            raise ValueError(
                "--cluster=tf_config, but TF_CONFIG names no workers; set it, or leave --cluster "
                "out."
            )
        return cluster
    if kind == "kubernetes" or (kind == "auto" and WORKERS in environment):
        return _of_kubernetes(environment)
    tasks = _tasks(environment)
    if kind == "slurm" and not tasks:
        raise ValueError(
            "--cluster=slurm, but this is no task of a Slurm job; start it by srun, or leave "
            "--cluster out."
        )
    if kind in ("auto", "slurm"):
        if tasks > 1:
            return _of_slurm(environment, tasks)
        check_one_worker(environment, "give --cluster=tf_config and a TF_CONFIG to each")
        return None
    check_one_worker(environment, "leave --cluster=none out to train together")
    return None


def check_one_worker(environment: Mapping[str, str], otherwise: str) -> None:
    """Refuses an environment that announces several workers.

    Args:
      otherwise: what else than a single process can be started.

    Raises:
      ValueError: it does, or TF_CONFIG cannot be read.
    """
    config = environment.get("TF_CONFIG", "").strip()
    count = len(_workers(_read(config))) if config else 0
    if count > 1:
        raise ValueError(
            f"TF_CONFIG announces {count} tasks, and {_ALONE}; start one process on one machine, "
            f"without TF_CONFIG, or {otherwise}."
        )
    for names in _COUNTS:
        name = next((name for name in names if environment.get(name)), None)
        if name and environment[name].isdecimal() and int(environment[name][:9]) > 1:
            start = "srun --ntasks=1" if name.startswith("SLURM") else "without that launcher"
            raise ValueError(
                f"{name}={environment[name]} announces several workers, and {_ALONE}; start one "
                f"process on one machine ({start}), or {otherwise}."
            )


def _of_tf_config(text: str) -> Cluster | None:
    """The cluster of a TF_CONFIG; None where it names one worker or none."""
    config = _read(text)
    addresses = _workers(config)
    if len(addresses) < 2:
        return None
    task = config.get("task") or {}
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else ("", "")
    chiefs = len(_listed(config["cluster"].get("chief")))
    good = isinstance(index, int | str) and re.fullmatch(r"[0-9]{1,6}", str(index))
    good = good and kind in ("chief", "worker")
    place = int(index) + (chiefs if kind == "worker" else 0) if good else -1
    if not 0 <= place < len(addresses):
        raise ValueError(
            f"TF_CONFIG has the task {json.dumps(task)}, and its {len(addresses)} workers are "
            f"{', '.join(addresses)}; give the type worker and the number of one, from 0."
        )
    return Cluster(tuple(addresses), place, "TF_CONFIG")


def _read(text: str) -> dict[str, Any]:
    """A TF_CONFIG; empty where there is none.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        config = json.loads(text or "{}")
        if isinstance(config, dict) and isinstance(config.get("cluster") or {}, dict):
            return config
    except (ValueError, RecursionError):
        pass
    raise ValueError(
        "TF_CONFIG is set and is no JSON object with the workers' addresses by kind under "
        "'cluster'; mend it, or unset it to train in one process on one machine."
    )


def _workers(config: Mapping[str, Any]) -> list[str]:
    """The addresses of all workers, a chief first.

    Raises:
      ValueError: there are other kinds, or what is there is no address.
    """
    cluster = config.get("cluster") or {}
    others = {kind for kind, tasks in cluster.items() if tasks} - {"chief", "worker"}
    if others:
        raise ValueError(
            f"TF_CONFIG has tasks of the kind {min(others)}, which synchronous training has not; "
            "give workers only, or unset it to train in one process on one machine."
        )
    found = [address for kind in ("chief", "worker") for address in _listed(cluster.get(kind))]
    wrong = [address for address in found if not _is_address(address)]
    if wrong or len(set(found)) < len(found):
        said = f"{json.dumps(wrong[0])} for an address" if wrong else "an address twice"
        raise ValueError(
            f"TF_CONFIG has {said}; give HOST:PORT of each worker once, or unset it to train in "
            "one process on one machine."
        )
    return found


def _is_address(address: Any) -> bool:
    host, _, number = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    named = re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?|\[[0-9a-fA-F:.]+\]", host, re.ASCII)
    return bool(named and re.fullmatch(r"[0-9]{1,5}", number) and 0 < int(number) < 1 << 16)


def _listed(tasks: Any) -> Sequence[Any]:
    """The tasks of a kind; by number where a dictionary has them, as TensorFlow takes it, too."""
    if isinstance(tasks, dict):
        return [tasks[key] for key in sorted(tasks, key=lambda k: (len(str(k)), str(k)))]
    return tasks if isinstance(tasks, list) else ([tasks] if tasks else [])


def _of_kubernetes(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster of an indexed Job's pods; None where there is one."""
    addresses, index = environment.get(WORKERS, "").split(","), environment.get(_INDEX, "")
    good = all(map(_is_address, addresses)) and len(set(addresses)) == len(addresses)
    if not (good and re.fullmatch(r"[0-9]{1,6}", index) and int(index) < len(addresses)):
        raise ValueError(
            f"{WORKERS} and {_INDEX} do not name a pod of an indexed Job; take the manifest of "
            "launch.kubernetes, or leave --cluster out."
        )
    return Cluster(tuple(addresses), int(index), "Kubernetes") if len(addresses) > 1 else None


def _tasks(environment: Mapping[str, str]) -> int:
    """How many tasks the step of a Slurm job has; 0 outside of one."""
    count = environment.get("SLURM_STEP_NUM_TASKS", "")
    return int(count[:9]) if count.isdecimal() and environment.get("SLURM_PROCID") else 0


def _of_slurm(environment: Mapping[str, str], tasks: int) -> Cluster:
    """The cluster of a step of a Slurm job, in the order of its tasks."""
    try:
        nodes = _scontrol("show", "hostnames", environment["SLURM_STEP_NODELIST"]).split()
        counts = tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
        hosts = [_address(node) for node in nodes]
        job, index = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_PROCID"])
        ranked = [host for host, count in zip(hosts, counts, strict=True) for _ in range(count)]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Slurm announces {tasks} tasks and does not say where they are ({error}); start them "
            "by srun, or give --cluster=tf_config and a TF_CONFIG."
        ) from None
    if len(ranked) != tasks:
        raise ValueError(
            f"Slurm announces {tasks} tasks and {len(ranked)} on its nodes; give them by "
            "--ntasks-per-node, without --distribution."
        )
    addresses = [f"{host}:{port(job, rank)}" for rank, host in enumerate(ranked)]
    return Cluster(tuple(addresses), index, f"Slurm's job {job}")


def port(job: int, rank: int) -> int:
    """The port of a task: another one for each task of a job, and for jobs that meet on a node."""
    return _FIRST_PORT + (131 * job + rank) % _PORTS


def tasks_of_nodes(text: str) -> list[int]:
    """Reads `2(x3),1`, tasks on each node.

    Raises:
      ValueError: it is something else.
    """
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,5})(?:\(x(\d{1,5})\))?", part)
        if not found:
            raise ValueError(f"{text!r} tells no tasks of nodes")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _address(node: str) -> str:
    """Where a node is to be found: its NodeAddr, which may differ from its name."""
    found = re.search(r"\bNodeAddr=(\S+)", _scontrol("show", "node", node))
    return found[1] if found else node


def _scontrol(*arguments: str, run: Callable[..., Any] = subprocess.run) -> str:
    """What Slurm says.

    Raises:
      ValueError: it does not.
    """
    try:
        ended = run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"scontrol: {error}") from None
    if ended.returncode:
        raise ValueError(f"scontrol: {ended.stderr.strip()}")
    return ended.stdout
