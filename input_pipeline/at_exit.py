"""Lets the interpreter end while TensorFlow's threads still read ahead in Python.

An iterator that is still alive when the interpreter ends is destroyed in the middle of that, when
other threads can no longer run Python: its destructor then waited for ever for a call into Python
that never came back (seen with TensorFlow 2.21 on Python 3.11, now and then, with an iterator in a
module's variable). So iterators end before the interpreter does.
"""

import atexit
import gc

import tensorflow as tf


def close_iterators_at_exit() -> None:
    """Has all iterators over datasets destroyed when the program ends; calling it again is free."""
    atexit.unregister(_close_iterators)
    atexit.register(_close_iterators)


def _close_iterators() -> None:
    kinds = {tf.data.Iterator, tf.distribute.DistributedIterator}
    # By the bare type: isinstance of an abstract class costs two seconds over so many objects.
    iterators = [thing for thing in gc.get_objects() if kinds.intersection(type(thing).__mro__)]
    for iterator in iterators:
        vars(iterator).clear()
