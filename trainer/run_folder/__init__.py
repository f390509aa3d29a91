"""The files of a run's folder, and how a new process goes on from them."""
