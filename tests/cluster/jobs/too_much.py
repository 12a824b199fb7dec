"""Ask Spark, behind clusterkit's back, for what the cluster has not; keep what Python prints, fail of the last."""

import sys
import traceback
from pathlib import Path

from pyspark import SparkConf, SparkContext

kept = Path(sys.argv[1])
ASKED = {"unknown-queue": ("spark.yarn.queue", "nope"), "too-large": ("spark.executor.memory", "100g")}
for name, (key, value) in ASKED.items():
    try:
        SparkContext(conf=SparkConf().set(key, value))
    except Exception:  # noqa: BLE001 - any failure is what this job is for
        (kept / f"{name}.txt").write_text(traceback.format_exc())
SparkContext(conf=SparkConf().set("spark.executor.cores", "64")).parallelize(range(1)).count()
