"""A training as `launch.train` carries it out: the job, the host's side, the attempts."""
