"""The real HDFS and YARN that clusterkit runs on this machine."""
