"""Defining a group of flags; the first line of a help text is for `--help`."""

import dataclasses

from absl import flags


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of flags of `values`: each method adds one; none takes a value below 0."""

    values: flags.FlagValues
    name: str

    def text(self, name: str, default: str, help_text: str) -> None:
        """Adds a flag that takes any text."""
        flags.DEFINE_string(name, default, help_text, self.values, module_name=self.name)

    def integer(self, name: str, default: int, low: int, help_text: str) -> None:
        """Adds a flag that takes a whole number of at least `low`."""
        flags.DEFINE_integer(
            name, default, help_text, low, None, self.values, module_name=self.name
        )

    def number(self, name: str, default: float, help_text: str) -> None:
        """Adds a flag that takes a number."""
        flags.DEFINE_float(name, default, help_text, 0.0, None, self.values, module_name=self.name)

    def boolean(self, name: str, default: bool, help_text: str) -> None:
        """Adds a flag that is true or false."""
        flags.DEFINE_boolean(name, default, help_text, self.values, module_name=self.name)
