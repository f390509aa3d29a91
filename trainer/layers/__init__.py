"""What is done to a model's layers so that replicas do not change what they compute."""
