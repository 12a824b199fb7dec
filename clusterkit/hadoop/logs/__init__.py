"""Logs of applications: from the nodes while they run, from the aggregated files in HDFS afterwards, without a JVM."""
