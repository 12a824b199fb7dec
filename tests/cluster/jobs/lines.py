"""Print numbered lines over some seconds, then bytes that are no UTF-8 and no whole line, and end with 3."""

import sys
import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
for number in range(20):
    print("line", number, flush=True)
    time.sleep(0.15)
print("x" * 300_000)
sys.stdout.flush()
sys.stdout.buffer.write(b"caf\xe9, and no end")
sys.stdout.flush()
sys.exit(3)
