"""What the input works on at once, and that the memory it takes is what the formula says."""

import pytest
from helpers import run_program

from input_pipeline.layout import Layout
from input_pipeline.tuning import tune

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "layout", "at_once", "images"),
    [
        (2, Layout(64), 4, 1),
        (16, Layout(64), 4, 8),
        (64, Layout(512, replicas=8), 8, 16),
        # Small micro-batches: more of them, or cores would be idle.
        (64, Layout(2), 64, 2),
        (2, Layout(2), 4, 1),
        (16, Layout(512, accumulate=4, replicas=2), 4, 8),
    ],
)
def test_there_are_two_images_in_the_making_for_every_core(
    cores: int, layout: Layout, at_once: int, images: int
) -> None:
    tuning = tune(layout, (224, 224, 3), cores, 1000 * GIB)
    assert (tuning.at_once, tuning.images_at_once) == (at_once, images)
    assert tuning.prefetched == 2 * layout.replicas
    held = 2 * layout.replicas + 2 * layout.accumulate * layout.replicas
    assert tuning.peak_bytes == (3 * at_once + held) * layout.micro_batch * 224 * 224 * 3


def test_a_quarter_of_the_memory_is_the_bound() -> None:
    free = tune(Layout(768), (512, 512, 3), 64, 1000 * GIB)
    bound = tune(Layout(768), (512, 512, 3), 64, 16 * GIB)
    assert bound.peak_bytes <= 4 * GIB < free.peak_bytes
    assert bound.at_once >= 1 and bound.prefetched >= 1
    least = tune(Layout(1024, replicas=2), (4096, 4096, 3), 64, GIB)
    assert (least.at_once, least.images_at_once, least.prefetched) == (1, 16, 2)


PROGRAM = """
import time
import tensorflow as tf
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream
from input_pipeline.tuning import host_cores, host_memory, tune
source, layout = open_source(DataSettings("synthetic:512x512x3"), "train"), Layout(96)
stream = training_stream(source, layout=layout, seed=0, augment="flip")
tf.zeros([8, 8]) @ tf.zeros([8, 8])
def peak():
    # Not getrusage's ru_maxrss: that of a process begins with its parent's, which is pytest.
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
formula = tune(layout, source.image_shape, host_cores(), host_memory()).peak_bytes
for batch in stream.take(12):
    # Until it has prepared as much as it may, and rests.
    used = -1
    while time.process_time() - used > 0.02:
        used = time.process_time()
        time.sleep(0.5)
    del batch
print(peak() - before, formula)
"""


def test_the_memory_it_takes_is_within_the_formula() -> None:
    (line,) = run_program(PROGRAM)
    taken, formula = map(int, line.split())
    # TensorFlow's own start-up of a pipeline is some ten megabytes.
    assert 0.3 * formula < taken < formula + 100 * 2**20
