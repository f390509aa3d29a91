"""Lets the interpreter end while TensorFlow's threads still read ahead in Python.

A thread that asks for the interpreter's lock once it is ending is killed inside its call, and the
iterator, which is destroyed later, waits for that call for ever: one exit in ten hung (TensorFlow
2.21, Python 3.11, an iterator in a module's variable). So iterators must end first.
"""

import atexit
import gc

import tensorflow as tf


def close_iterators_at_exit() -> None:
    """From now on, iterators over datasets are destroyed when the program ends."""
    atexit.unregister(_close_iterators)
    atexit.register(_close_iterators)


def _close_iterators() -> None:
    kinds = {tf.data.Iterator, tf.distribute.DistributedIterator}
    # By the bare type: isinstance of an abstract class costs two seconds over so many objects.
    iterators = [thing for thing in gc.get_objects() if kinds.intersection(type(thing).__mro__)]
    for iterator in iterators:
        vars(iterator).clear()
