"""Fail in the ways a running job can, each in turn, and keep what Python prints of it; the last failure is the job's.

Arguments: a directory for what is printed, then the names of the failures.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
sc = spark.sparkContext


def worker_exception():
    def share(total):
        return 100 // (total - 3)

    sc.parallelize(range(8), 2).map(share).collect()


def worker_import():
    def load(number):
        import no_such_module

        return no_such_module.load(number)

    sc.parallelize(range(2), 2).map(load).collect()


def missing_table():
    spark.read.parquet("/no/such/table with spaces").show()


def missing_file():
    sc.textFile("/no/such/file.txt").count()


def denied():
    files = sc._jvm.org.apache.hadoop.fs
    conf = sc._jsc.hadoopConfiguration()
    uri = sc._jvm.java.net.URI(conf.get("fs.defaultFS"))
    files.FileSystem.newInstance(uri, conf, "somebody").mkdirs(files.Path("/user/private"))


def python_missing():
    sc.pythonExec = "/opt/none/python3"
    try:
        sc.parallelize(range(2), 2).map(lambda number: number).collect()
    finally:
        sc.pythonExec = sys.executable


def worker_killed():
    sc.parallelize(range(1), 1).map(lambda _: os.kill(os.getpid(), signal.SIGKILL)).collect()


def executor_killed():
    def kill(_):
        daemon = Path(f"/proc/{os.getppid()}/stat").read_text()
        os.kill(int(daemon.rpartition(")")[2].split()[1]), signal.SIGKILL)
        time.sleep(60)

    sc.parallelize(range(1), 1).map(kill).collect()


def executor_heap():
    spark.range(1).selectExpr("length(repeat(repeat(cast(id as string), 50000000), 30))").collect()


def driver_heap():
    blocks = sc._jvm.java.util.ArrayList()
    while True:
        blocks.add(sc._jvm.java.nio.ByteBuffer.allocate(100_000_000))


def executor_memory():
    def hog(_):
        data = bytearray(b"x") * (1400 * 1024**2)
        time.sleep(240)
        return len(data)

    sc.parallelize(range(1), 1).map(hog).collect()


kept = Path(sys.argv[1])
*earlier, last = sys.argv[2:]
for name in earlier:
    try:
        globals()[name]()
    except Exception:  # noqa: BLE001 - any failure is what this job is for
        (kept / f"{name}.txt").write_text(traceback.format_exc())
globals()[last]()
