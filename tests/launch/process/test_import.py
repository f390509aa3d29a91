"""What a command takes time to import."""

import subprocess
import sys

from tests.helpers import REPOSITORY

PROGRAM = """
import sys
from launch.process import cli
cli.import_tensorflow(0)
assert "keras" in sys.modules and "matplotlib" not in sys.modules
import matplotlib.pyplot
"""


def test_keras_does_not_import_what_only_its_charts_need() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, cwd=REPOSITORY)
