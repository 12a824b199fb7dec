"""The content-addressed home of layers and manifests: a directory, or HDFS."""
