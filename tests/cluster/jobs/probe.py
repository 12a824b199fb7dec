"""Print, as one JSON document, what the driver and a Python worker on a node see."""

import json
import os
import sys
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession


def seen(where):
    import helper

    return {
        "where": where,
        "python": sys.executable,
        "helper": helper.ANSWER,
        "variable": os.environ.get("PROBE_VARIABLE"),
        "file": Path(SparkFiles.get("data.txt") if where == "driver" else "data.txt").read_text(),
        "archive": Path("packed/inner.txt").read_text() if Path("packed").is_dir() else None,
    }


spark = SparkSession.builder.getOrCreate()
sc = spark.sparkContext
worker = sc.parallelize([0], 1).map(lambda _: seen("worker")).collect()[0]
conf = {key: sc.getConf().get(key) for key in ("spark.probe.flag", "spark.probe.file", "spark.app.name")}
executors = sc._jsc.sc().getExecutorMemoryStatus().size() - 1
print(json.dumps({"args": sys.argv[1:], "worker": worker, "conf": conf, "executors": executors}))
spark.stop()
