"""Lockstep's places in Keras `fit` with `BackupAndRestore`: the same ones, or what is nearest.

Its files are written by HDF5, which raises no audit event; but Keras raises some at every variable
that it writes or reads (it asks for its `id`), and `behind` counts those from the first to the last
of a file. (Deterministic: 681 in a backup, 802 in the restoring, about 1,500 in a model.)

Keras renames nothing and keeps no older backup. In place of the rename stands what makes a backup
the one to go on from: its metadata file, which is written when the weights are. In place of the
removal of an old one stands the only one there is: of the backup, at the end of the training. The
rest is as in Lockstep, but that a step is struck from the host: at its beginning or a little later.
"""

from tests.faults.aim import LAST, PLACES, Place

_BACKUP, _RESTORE, _MODEL = 680, 800, 1500  # events in each of them

KERAS_PLACES = {
    "at any time": PLACES["at any time"],
    "in the imports": PLACES["in the imports"],
    # Before the replicas are made, before the model is, before `fit`, and once it has begun.
    "at the start": Place("faults.start", most=4),
    # The backup's metadata are read, the log is, and is opened to go on.
    "in a recovery": Place("file", most=3, resumes=True),
    "in the restoring": Place("faults.restore", behind=(0, _RESTORE), delay=0.02, resumes=True),
    "in a device loop": Place("faults.step", most=20, delay=0.02),
    "in an evaluation": PLACES["in an evaluation"],
    "as the best is written": Place(
        "open", r"best\.keras", "w", behind=(0, _MODEL), most=2, delay=0.01
    ),
    "as a checkpoint is written": Place("faults.backup", behind=(0, _BACKUP), most=10, delay=0.02),
    "before the rename": Place("open", r"backup/training_metadata\.json", "w", most=2),
    "after the rename": Place("faults.backed_up", most=2),
    # Before, and before each of: the folder's opening, listing, both files' removal, its own.
    "as an old one is removed": Place("shutil.rmtree", "backup", behind=(0, 5)),
    LAST: Place("open", r"model\.keras", "w", behind=(0, _MODEL), delay=0.02),
}
