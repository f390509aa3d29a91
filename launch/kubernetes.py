"""Writes a JobSet for Kubernetes: `python -m launch.kubernetes --workers=2 … -- --flagfile=…`.

All workers start together, and start again together where one of them ends with anything but 0, 2
or 76, until the run is finished. `kubectl apply --filename=-` takes what it prints.
"""

import json
import re
import shlex
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parted, read_command
from launch.flags.group import Group
from launch.process import cli
from launch.process.workers import WORKERS
from trainer.plan.settings import Settings

_EXAMPLE = (
    "launch.kubernetes --image=IMAGE --claim=CLAIM -- --flagfile=digits --run_dir=/data/digits"
)
_PORT = 2222
# A name has room in `NAME-workers-0-INDEX`, which is to be a host's: 63 letters.
_NAME = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_MANIFEST = """\
# Made by python -m launch.kubernetes; needs JobSet, https://jobset.sigs.k8s.io.
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true  # workers meet before they are ready
    subdomain: {name}
  failurePolicy:
    maxRestarts: {max_restarts}
    rules:
      - name: notToBeRepeated  # the command is wrong, or the training diverged; all else goes on
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: {workers}
          parallelism: {workers}
          backoffLimit: 0  # none can go on without the others
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {{operator: In, values: [2, 76]}}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: {grace}  # to save in
              containers:
                - name: train
                  image: {image}
                  command: {command}
                  ports:
                    - containerPort: {port}
                  env:
                    - name: {variable}
                      value: {addresses}
                  # From the first step on, and as long as there are steps.
                  readinessProbe:
                    exec:
                      command: {ready}
                    periodSeconds: 10
{resources}                  volumeMounts:
                    - {{name: data, mountPath: {mount}}}
                    - {{name: shared-memory, mountPath: /dev/shm}}
              volumes:
                - name: data
                  persistentVolumeClaim: {{claimName: {claim}}}
                - name: shared-memory  # NCCL needs more than the 64 MB that there are
                  emptyDir: {{medium: Memory}}
"""
_GPUS = """\
                  resources:
                    limits:
                      nvidia.com/gpu: {gpus}
"""


def define_kubernetes_flags() -> absl_flags.FlagValues:
    """The flags of this command, which stand before `--`."""
    values = absl_flags.FlagValues()
    add = Group(values, "job")
    add.text("name", "lockstep", "The JobSet's name.\nLower-case letters, digits and -.")
    add.integer("workers", 2, 1, "Pods that train together.")
    add.integer("gpus_per_worker", 0, 0, "GPUs of each.")
    add.text("image", "", "The container's image.\nBUILD.md has a Dockerfile.")
    add.text("claim", "", "The PersistentVolumeClaim.\nAll workers write and read it.")
    add.text("mount", "/data", "Where the volume is.\nThe run folder has to lie there.")
    add.integer("max_restarts", 50, 0, "Most times that all start again.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        theirs = parted(values, argv, _EXAMPLE)
        print(manifest(values, theirs, read_command(theirs).settings), end="")
    return cli.FINISHED


def manifest(values: absl_flags.FlagValues, flags: Sequence[str], settings: Settings) -> str:
    """The JobSet as YAML, whose strings are JSON's.

    Raises:
      ValueError: a flag is missing or cannot be.
    """
    name, run_dir = values.name, settings.run.run_dir
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            f"--name={name} is no name for pods; give at most 40 lower-case letters, digits and -, "
            "a letter first."
        )
    for flag in ("image", "claim"):
        if not values[flag].value:
            raise ValueError(f"--{flag} is missing; give the one that your cluster has.")
    if not run_dir.startswith(values.mount.rstrip("/") + "/"):
        raise ValueError(
            f"--run_dir={run_dir} is not on the volume, --mount={values.mount}, and a pod's own "
            f"files go with it; give --run_dir={values.mount.rstrip('/')}/{name}."
        )
    status = shlex.quote(f"{run_dir}/control/status.json")
    ready = f'test -n "$(find {status} -mmin -2)"'
    hosts = (f"{name}-workers-0-{index}.{name}" for index in range(values.workers))
    return _MANIFEST.format(
        name=name,
        max_restarts=values.max_restarts,
        workers=values.workers,
        grace=int(settings.recovery.grace) + 30,
        image=json.dumps(values.image),
        command=json.dumps(["python", "-m", "launch.train", *flags]),
        port=_PORT,
        variable=WORKERS,
        addresses=json.dumps(",".join(f"{host}:{_PORT}" for host in hosts)),
        ready=json.dumps(["sh", "-c", ready]),
        resources=_GPUS.format(gpus=values.gpus_per_worker) if values.gpus_per_worker else "",
        mount=json.dumps(values.mount),
        claim=json.dumps(values.claim),
    )


main = cli.entry_point("launch.kubernetes --", define_kubernetes_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
