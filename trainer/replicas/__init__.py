"""The devices of a run, what each of them gets, and how their parts are added."""
