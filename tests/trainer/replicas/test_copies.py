"""What a step moves between host and devices, and between devices, in the graphs that really run.

There is no GPU here: two logical CPUs stand for two of them, and a third one is the host. What
TensorFlow places and copies where, it decides as for GPUs.
"""

import json

import pytest
from helpers import run_program

PROGRAM = """
import json
from launch.flags.command import read_command
from launch.process import cli
from tests.benchmarks.cells import endless, make_data
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan
cli.import_tensorflow(0)
import tensorflow as tf
from tensorflow.python.eager import context
from trainer.run import build_run_on

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
strategy = tf.distribute.MirroredStrategy(["CPU:1", "CPU:2"])
flags = "--device=cpu --replicas=2 --model=cnn --global_batch=32 --micro_batch=8 --xla=off"
command = read_command([*flags.split(), "--all_reduce=ring", "--train_for=100st", *MORE])
facts = DatasetFacts("memory", 960, 96, 10, (8, 8, 1))
plan = make_plan(command.settings, facts, Devices("GPU", 2, "the test"))
run = build_run_on(strategy, command.settings, plan)
# As for GPUs, tf.distribute's own iterator brings the batches to the devices.
data = strategy.distribute_datasets_from_function(lambda _: endless(make_data(plan), plan))
context.context().enable_graph_collection()
run.train_loop(cli.keep(iter(data)), 2)
graphs = context.context().export_run_metadata().partition_graphs
nodes = {node.name: node for graph in graphs for node in graph.node}
copies = []
for node in nodes.values():
    if node.op == "_Send":
        source = nodes[node.input[0].partition(":")[0]]
        ends = [node.attr[name].s.decode()[-1] for name in ("send_device", "recv_device")]
        # Constants that several need are folded once, and neither is made nor moved in a step.
        if source.op != "Const":
            copies.append([*ends, source.op, tf.as_dtype(node.attr["T"].type).name])
print(json.dumps([copies, [n.op for n in nodes.values() if n.op.startswith("Collective")]]))
"""

# The operations that no device was asked for, of the loop and of a step in it.
UNPLACED = (
    PROGRAM[: PROGRAM.index("context.context()")]
    + """
run.train_loop.trace(cli.keep(iter(data)))
graph = run.train_loop._train.graph.as_graph_def()
(body,) = (f for f in graph.library.function if f.signature.name.startswith("while_body"))
for nodes in (graph.node, body.node_def):
    print(json.dumps(sorted({n.op for n in nodes if not n.device})))
"""
)


def moved(*more: str) -> tuple[list[list[str]], list[str]]:
    """What is copied, as from, to, operation, dtype; and the collectives of both replicas."""
    copies, collectives = json.loads(run_program(PROGRAM.replace("*MORE", f"*{more!r}"))[-1])
    return copies, collectives


@pytest.fixture(scope="module")
def by_default() -> tuple[list[list[str]], list[str]]:
    return moved()


def test_no_batch_comes_back_from_its_device(by_default: tuple[list, list]) -> None:
    copies, _ = by_default
    assert copies  # or it would show nothing
    assert not [copy for copy in copies if copy[0] != "0" and copy[3] == "uint8"]


def test_the_host_reads_a_step_in_one_copy(by_default: tuple[list, list]) -> None:
    copies, _ = by_default
    read = [copy[2:] for copy in copies if copy[:2] == ["1", "0"]]
    # All that is to be known of a step, and the rate that was applied.
    assert sorted(read) == [["Pack", "float32"], ["ReadVariableOp", "float32"]]
    assert not [copy for copy in copies if copy[:2] == ["2", "0"]]  # the second tells nothing new


def test_replicas_speak_once_a_step_but_for_synchronized_batch_normalization(
    by_default: tuple[list, list],
) -> None:
    _, collectives = by_default
    assert len(collectives) == 2  # one on each of two replicas
    _, collectives = moved("--batch_norm=synchronized", "--micro_batch=0")
    # Five for each of four layers: means and squares forward, their gradients and counts.
    assert len(collectives) == 2 * (1 + 4 * 5)


def test_what_is_decided_about_a_step_is_decided_on_the_host() -> None:
    # The first GPU would take what has no device; a variable is read where it lies.
    loop, step = run_program(UNPLACED.replace("*MORE", ""))[-2:]
    anywhere = {"Identity", "NoOp", "Placeholder", "ReadVariableOp"}
    assert set(json.loads(loop)) <= anywhere and set(json.loads(step)) <= anywhere
