from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

ASK = """
import clusterkit, sys
from pathlib import Path
from clusterkit.embedded import class_data, jars
assert Path(clusterkit.__file__).is_relative_to(sys.argv[1]), clusterkit.__file__
print(len(jars.JarLock.load().jars), sorted(path.name for path in class_data.CLASSES.iterdir() if path.suffix == ".xz"))
"""


def test_the_wheel_holds_what_the_package_needs_at_run_time(tmp_path):
    """What is installed elsewhere from the built wheel finds its lock and its class lists, and runs as a command."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    elsewhere = tmp_path / "site packages"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(elsewhere)
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}

    def run(*args):
        argv = [sys.executable, *args]
        return subprocess.run(
            argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert run("-m", "clusterkit", "--version").startswith("clusterkit ")
    assert run("-c", ASK, str(elsewhere)) == "184 ['daemons.xz', 'spark.xz']\n"
