"""Spark on YARN: find it, configure it, start its driver."""
