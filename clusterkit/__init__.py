"""clusterkit makes a Hadoop cluster feel like one fast Python machine."""

__version__ = "0.1.0"
