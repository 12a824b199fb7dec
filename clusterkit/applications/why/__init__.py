"""Why an application failed, or does not start: the probable cause, from what YARN, Spark and the job left behind."""

from clusterkit.applications.why.cause import Cause
from clusterkit.applications.why.evidence import Evidence
from clusterkit.applications.why.rules import RULES, explain

__all__ = ["RULES", "Cause", "Evidence", "explain"]
