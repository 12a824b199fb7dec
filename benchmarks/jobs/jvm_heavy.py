"""A job whose time is Spark's own: joins, aggregations and sorts over generated rows, no Python on the executors."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that Spark's own documentation uses

rounds = int(sys.argv[1])
spark = SparkSession.builder.getOrCreate()
spark.conf.set("spark.sql.shuffle.partitions", "8")
total = 0
for number in range(rounds):
    rows = spark.range(4_000_000).select(
        (F.xxhash64("id", F.lit(number)) % 50_000).alias("key"),
        F.sin("id").alias("x"),
        F.md5(F.col("id").cast("string")).alias("word"),
    )
    sums = rows.groupBy("key").agg(F.sum("x").alias("sum"), F.max("word").alias("last"), F.count("*").alias("count"))
    joined = rows.join(sums, "key").where(F.col("x") > F.col("sum") / F.col("count")).orderBy("word")
    total += joined.agg(F.sum(F.hash("word")).alias("h")).first()["h"]
print(total)
spark.stop()
