"""Changes to a model's layers so that they compute the same on any number of replicas."""
