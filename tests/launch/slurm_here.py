"""A real Slurm on this machine: a controller and three nodes, which are daemons with a port each.

As root, of Debian's packages slurmctld, slurmd, slurm-client and munge, without systemd or cgroups.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

from launch.cluster import free_ports

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged")
NODES = ("n1", "n2", "n3")
_CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=500000,bf_interval=1
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
MinJobAge=300
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=low Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8 \\
PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=n[1-3] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


def missing() -> str:
    """Why there can be no Slurm here; empty if there can."""
    without = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if without:
        return (
            f"a real Slurm needs Debian's slurmctld, slurmd, slurm-client, munge: no {without[0]}"
        )
    return "" if os.geteuid() == 0 else "a real Slurm of several nodes on one machine needs root"


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclasses.dataclass(frozen=True)
class Slurm:
    """The running Slurm."""

    environment: dict[str, str]
    nodes: dict[str, subprocess.Popen]

    def ask(self, *command: str) -> str:
        """What one of Slurm's programs prints."""
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        return ended.stdout.strip()

    def state(self, job: int) -> str:
        """`RUNNING`, `COMPLETED` and so on."""
        return self.told(job, "JobState")

    def told(self, job: int, name: str) -> str:
        """A field of `scontrol show job`."""
        pairs = self.ask("scontrol", "show", "job", str(job)).split()
        return next(pair.partition("=")[2] for pair in pairs if pair.startswith(f"{name}="))


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Slurm]:
    """Starts Slurm with its files in the folder, and ends it."""
    (folder / "state").mkdir(parents=True)
    # The daemon of munge refuses a folder that others can write, and a key that others can read.
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    controller, *ports = free_ports(1 + len(NODES))
    host = socket.gethostname()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
        for name, port in zip(NODES, ports, strict=True)
    )
    config = folder / "slurm.conf"
    text = _CONFIG.format(host=host, controller=controller, folder=folder, nodes=nodes)
    config.write_text(text.replace("\\\n", ""))
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(config)}
    munge = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file")]
    munge += [f"--seed-file={folder}/munge.seed", f"--key-file={key}", "--foreground", "--force"]
    with contextlib.ExitStack() as processes:

        def daemon(*command: str) -> subprocess.Popen:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            processes.callback(process.wait)
            processes.callback(process.kill)
            return process

        daemon("munged", *munge)
        wait_for(lambda: (folder / "munge.socket").exists())
        daemon("slurmctld", "-D", "-i")
        found = {}
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            found[name] = daemon("slurmd", "-D", "-N", name)
        slurm = Slurm(environment, found)
        wait_for(lambda: _idle(slurm) == len(NODES))
        try:
            yield slurm
        finally:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
            time.sleep(1.0)


def _idle(slurm: Slurm) -> int:
    told = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%N %T", "--partition=low"],
        env=slurm.environment,
        capture_output=True,
        text=True,
    )
    return told.stdout.count("idle")


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until the condition holds; it is an error if it does not within this time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)
