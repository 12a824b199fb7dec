"""A small job: one Arrow batch function and one sum over 100,000 rows; everything else is starting and stopping."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession


def doubled(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Double the only column."""
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pc.multiply(batch.column(0), 2)], ["id"])


spark = SparkSession.builder.getOrCreate()
print(spark.range(100_000).mapInArrow(doubled, "id long").selectExpr("sum(id)").first()[0])
spark.stop()
