"""The job whose classes are recorded: what most PySpark jobs do, once each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pandas as pd  # noqa: TC002 -- Spark reads the annotations of a pandas function
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 -- as Spark's documentation writes it

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame


def main() -> None:
    """Write and read Parquet, JSON and CSV on HDFS; run SQL, RDDs, and Python functions of every kind."""
    spark = SparkSession.builder.getOrCreate()
    root = sys.argv[1]
    events = write_and_read(spark, root)
    query(spark, events, root)
    python_functions(events)
    print(spark.sparkContext.parallelize(range(100), 4).map(lambda v: (v % 3, v)).reduceByKey(int.__add__).collect())
    spark.stop()


def write_and_read(spark: SparkSession, root: str) -> DataFrame:
    """Make some rows and send them through Parquet, JSON and CSV."""
    made = spark.range(20_000).select(
        "id",
        (F.col("id") % 7).alias("k"),
        F.rand(1).alias("x"),
        F.concat(F.lit("s"), F.col("id").cast("string")).alias("s"),
        F.current_timestamp().alias("t"),
    )
    made.write.mode("overwrite").partitionBy("k").parquet(f"{root}/parquet")
    events = spark.read.parquet(f"{root}/parquet")
    events.limit(100).write.mode("overwrite").json(f"{root}/json")
    spark.read.json(f"{root}/json").write.mode("overwrite").option("header", value=True).csv(f"{root}/csv")
    print(spark.read.csv(f"{root}/csv", header=True, inferSchema=True).count())
    return events


def query(spark: SparkSession, events: DataFrame, root: str) -> None:
    """Join, group, rank, sort and cache."""
    events.createOrReplaceTempView("events")
    names = spark.createDataFrame([(number, f"n{number}") for number in range(7)], ["k", "name"])
    names.createOrReplaceTempView("names")
    print(
        spark.sql(
            "select name, count(*) c, avg(x) m, max(s) s, approx_count_distinct(id) d from events join names using (k) "
            "where x > 0.1 group by name having c > 1 order by m desc"
        ).collect()
    )
    ranked = spark.sql("select *, row_number() over (partition by k order by x) r from events").where("r < 3")
    ranked.write.mode("overwrite").parquet(f"{root}/ranked")
    events.repartition(3).cache().count()
    events.join(ranked.hint("merge"), "id").show(3)
    print(events.describe("x").toPandas())


def python_functions(events: DataFrame) -> None:
    """Call plain, pandas and Arrow functions, and the map and grouped forms."""

    @F.udf("double")
    def plain(value: float) -> float:
        return value * 2

    @F.pandas_udf("double")  # type: ignore[call-overload]
    def pandas(values: pd.Series) -> pd.Series:
        return values * 3

    columns = [plain("x"), pandas("x")]
    if hasattr(F, "arrow_udf"):
        columns.append(F.arrow_udf(lambda values: pc.multiply(values, 2.0), "double")("x"))
    print(events.select(*columns).agg(F.count(F.lit(1))).collect())
    print(events.select("id").mapInArrow(same, "id long").agg(F.sum("id")).collect())
    print(events.groupBy("k").applyInPandas(lambda rows: rows[["k", "x"]].head(1), "k long, x double").collect())


def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return batches as they come."""
    yield from batches


if __name__ == "__main__":
    main()
