"""What is installed beside the code: `package_data` of a folder that is no package is left out."""

import configparser

from helpers import REPOSITORY


def test_what_is_no_python_is_data_of_packages() -> None:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    found = set()
    for package, patterns in config["options.package_data"].items():
        folder = REPOSITORY / package.replace(".", "/")
        assert (folder / "__init__.py").exists(), package
        for pattern in patterns.replace(",", " ").split():
            matched = set(folder.glob(pattern))
            assert matched, f"{package}: {pattern}"
            found |= matched
    digits = (REPOSITORY / "input_pipeline").glob("**/*.tfrecord")
    page = (REPOSITORY / "launch/reports").glob("*.[cj]s*")
    assert {*REPOSITORY.glob("launch/recipes/*.flags"), *digits, *page} <= found
