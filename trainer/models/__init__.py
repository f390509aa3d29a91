"""The models that `--model` names."""
