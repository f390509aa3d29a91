"""The training itself: plain arguments in, no flags, no globals."""
