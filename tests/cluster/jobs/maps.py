"""Print which JVMs of this job have a file mapped: `maps.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from pyspark.sql import SparkSession


def mapped(command: str, file: str) -> list[bool]:
    """Tell of each JVM on this machine with a text in its command whether it has a file mapped."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[0].endswith("/java") and any(command in word for word in words):
                found.append(file in (process / "maps").read_text())
        except OSError:  # it ended meanwhile
            continue
    return found


spark = SparkSession.builder.getOrCreate()
spark.range(10).count()  # the executor is there
driver = spark._jvm.java.lang.ProcessHandle.current().pid()
in_driver = sys.argv[1] in Path(f"/proc/{driver}/maps").read_text()
in_containers = mapped(spark.sparkContext.applicationId, sys.argv[1])
print(f"driver {in_driver}, {sum(in_containers)} of {len(in_containers)} containers")
spark.stop()
