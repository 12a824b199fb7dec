"""What runs on a node of the cluster, under any Python from 3.9 on: the standard library alone."""
