"""Talk to any Hadoop cluster: its configuration, HDFS, ResourceManager, NodeManagers and logs."""
