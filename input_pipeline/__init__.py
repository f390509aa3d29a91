"""Data for training and evaluation: sources, order, reading, decoding, augmentation.

Synopsis::

    source = open_source(DataSettings("digits"), "train")        # sources/, no TensorFlow yet
    layout = Layout(global_batch=64, replicas=2)                  # layout.py
    stream = training_stream(source, layout=layout, seed=7, augment="shift(1)")  # streams.py
    next(iter(stream))["image"]                                   # uint8 [32, 8, 8, 1]

Nothing is imported here, so that the parts that need no TensorFlow load without it.
"""
