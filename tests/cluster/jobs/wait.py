"""Hold a Spark application until the file that the argument names is gone."""

import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
print(spark.sparkContext.applicationId, flush=True)
while Path(sys.argv[1]).exists():
    time.sleep(0.1)
spark.stop()
