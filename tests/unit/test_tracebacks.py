from __future__ import annotations

import pytest

from clusterkit.applications import tracebacks
from clusterkit.applications.tracebacks import Frame

SITE = "/venv/lib/python3.11/site-packages"

DRIVER = """\
WARNING: Using incubator modules: jdk.incubator.vector
Traceback (most recent call last):
  File "/home/ada/job.py", line 12, in <module>
    main(rows)
  File "/home/ada/job.py", line 7, in main
    return total / len(rows)
           ~~~~~~^~~~~~~~~~~
ZeroDivisionError: division by zero
26/11/25 03:36:48.574 INFO ShutdownHookManager: Shutdown hook called
"""

WORKER = f"""\
Traceback (most recent call last):
  File "/home/ada/job.py", line 16, in <module>
    sc.parallelize(range(8), 2).map(share).collect()
  File "{SITE}/pyspark/core/rdd.py", line 1699, in collect
    sock_info = self.ctx._jvm.PythonRDD.collectAndServe(self._jrdd.rdd())
                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{SITE}/py4j/java_gateway.py", line 1362, in __call__
    return_value = get_return_value(
  File "{SITE}/pyspark/errors/exceptions/captured.py", line 262, in deco
    raise converted from None
  File "/home/ada/job.py", line 15, in share
    return 100 // (total - 3)
pyspark.errors.exceptions.captured.PythonException: An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "{SITE}/pyspark/worker.py", line 4327, in invoke_udf
    run_process()
  File "{SITE}/pyspark/util.py", line 158, in wrapper
    return f(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^
  File "/home/ada/job.py", line 15, in share
    return 100 // (total - 3)
           ~~~~^^~~~~~~~~~~~~
ValueError: two lines
of a message
"""

JVM = f"""\
Traceback (most recent call last):
  File "/home/ada/job.py", line 31, in <module>
    sc.textFile("/no/such/file.txt").count()
  File "{SITE}/py4j/protocol.py", line 327, in get_return_value
    raise Py4JJavaError(
py4j.protocol.Py4JJavaError: An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.hadoop.mapred.InvalidInputException: Input path does not exist: hdfs://127.0.0.1:29712/no/such/file.txt
\tat org.apache.hadoop.mapred.FileInputFormat.singleThreadedListStatus(FileInputFormat.java:306)
\tat scala.Option.getOrElse(Option.scala:201)
Caused by: java.io.IOException: Input path does not exist: hdfs://127.0.0.1:29712/no/such/file.txt
\t... 35 more

"""

TASK = f"""\
Traceback (most recent call last):
  File "/home/ada/job.py", line 48, in <module>
    rdd.collect()
  File "{SITE}/py4j/protocol.py", line 327, in get_return_value
    raise Py4JJavaError(
py4j.protocol.Py4JJavaError: An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 2.0 failed 4 times, most recent \
failure: Lost task 1.3 in stage 2.0 (TID 5) (localhost executor 1): java.io.IOException: Cannot run program "/opt/py": \
error=2, No such file or directory
\tat java.base/java.lang.ProcessBuilder.start(ProcessBuilder.java:1143)
Caused by: java.io.IOException: error=2, No such file or directory
\t... 20 more

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:4560)
"""

NESTED = f"""\
Traceback (most recent call last):
  File "/home/ada/job.py", line 3, in <module>
    rdd.collect()
  File "{SITE}/py4j/protocol.py", line 327, in get_return_value
    raise Py4JJavaError(
py4j.protocol.Py4JJavaError: An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most recent \
failure: Lost task 0.3 in stage 0.0 (TID 3) (worker-3 executor 1): org.apache.spark.SparkException:
Error from python worker:
  Traceback (most recent call last):
    File "<frozen runpy>", line 189, in _run_module_as_main
    File "<frozen runpy>", line 112, in _get_module_details
  ModuleNotFoundError: No module named 'pyspark'
PYTHONPATH was:
  /opt/spark/python/lib/pyspark.zip
org.apache.spark.SparkException: EOFException occurred while reading the port number from pyspark.daemon's stdout.
\tat org.apache.spark.api.python.PythonWorkerFactory.startDaemon(PythonWorkerFactory.scala:385)
"""

MASTER = """\
26/11/25 03:36:48 INFO Client: Application report for application_1_0001 (state: FAILED)
Exception in thread "main" org.apache.spark.SparkException: Application application_1_0001 finished with failed status
\tat org.apache.spark.deploy.yarn.Client.run(Client.scala:1440)
\tat org.apache.spark.deploy.SparkSubmit.main(SparkSubmit.scala)
"""

HOME = "/nm/usercache/ada/appcache/application_1_0001/container_e01_1_0001_01_000001"


def test_driver():
    """The job's frames, outermost first, without carets; what follows the error is not part of it."""
    found = tracebacks.find(DRIVER)

    assert found is not None
    assert (found.kind, found.message, found.on_worker) == ("ZeroDivisionError", "division by zero", False)
    assert found.frames == (
        Frame("/home/ada/job.py", 12, "<module>", "main(rows)"),
        Frame("/home/ada/job.py", 7, "main", "return total / len(rows)"),
    )
    assert str(found) == (
        'File "/home/ada/job.py", line 12, in <module>\n'
        "  main(rows)\n"
        'File "/home/ada/job.py", line 7, in main\n'
        "  return total / len(rows)\n"
        "ZeroDivisionError: division by zero"
    )


def test_worker():
    """The worker's traceback is the one that counts, without Spark's frames; a message of several lines is kept."""
    found = tracebacks.find(WORKER)

    assert found is not None
    assert (found.kind, found.message, found.on_worker) == ("ValueError", "two lines\nof a message", True)
    assert found.frames == (Frame("/home/ada/job.py", 15, "share", "return 100 // (total - 3)"),)


def test_java_exception():
    """Of an error that came out of the JVM, Java's class and message are told, and no stack."""
    found = tracebacks.find(JVM)

    assert found is not None
    assert (found.kind, found.message) == (
        "InvalidInputException",
        "Input path does not exist: hdfs://127.0.0.1:29712/no/such/file.txt",
    )
    assert found.frames == (Frame("/home/ada/job.py", 31, "<module>", 'sc.textFile("/no/such/file.txt").count()'),)
    assert "Caused by: java.io.IOException: Input path" in found.words
    assert "at org.apache" not in found.words


def test_failed_task():
    """Of a job that was aborted for a task, what the task failed of is told."""
    found = tracebacks.find(TASK)

    assert found is not None
    assert (found.kind, found.message) == (
        "IOException",
        'Cannot run program "/opt/py": error=2, No such file or directory',
    )


def test_python_worker_that_did_not_start():
    """A traceback that Spark indents inside its own error is found, and is a worker's."""
    found = tracebacks.find(NESTED)

    assert found is not None
    assert (found.kind, found.message, found.frames, found.on_worker) == (
        "ModuleNotFoundError",
        "No module named 'pyspark'",
        (),
        True,
    )


def test_jvm_alone():
    """Without any of Python, the exception that ended the JVM's main thread is the one."""
    found = tracebacks.find(MASTER)

    assert found is not None
    assert (found.kind, found.message, found.frames) == (
        "SparkException",
        "Application application_1_0001 finished with failed status",
        (),
    )


def test_last_one_counts():
    """An error that a job printed and survived is not what it ended of."""
    found = tracebacks.find(WORKER + DRIVER)

    assert found is not None
    assert found.kind == "ZeroDivisionError"


def test_paths_in_containers_are_short():
    """In cluster mode the job lies in a directory of its container, which says nothing."""
    text = DRIVER.replace("/home/ada/job.py", f"{HOME}/job.py")

    found = tracebacks.find(text)

    assert found is not None
    assert [frame.file for frame in found.frames] == ["job.py", "job.py"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("SystemExit", "SystemExit", ""),
        ("my.package.OwnError: it's 5 o'clock", "my.package.OwnError", "it's 5 o'clock"),
        (
            (
                "pyspark.errors.exceptions.captured.AnalysisException: [UNRESOLVED_COLUMN] `x`. SQLSTATE: 42703;\n"
                "'Project ['x]\n+- Range (0, 3)"
            ),
            "AnalysisException",
            "[UNRESOLVED_COLUMN] `x`",
        ),
        ("KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:", "KeyError", "'a'"),
    ],
)
def test_messages(error, kind, message):
    """Classes of pyspark go by their short name; plans, states and what follows are left out."""
    found = tracebacks.find(f'Traceback (most recent call last):\n  File "job.py", line 1, in <module>\n{error}\n')

    assert found is not None
    assert (found.kind, found.message) == (kind, message)


def test_long_messages_are_cut():
    """A message of a thousand lines is told in a dozen."""
    lines = "\n".join(f"line {number}" for number in range(1000))
    found = tracebacks.find(
        f'Traceback (most recent call last):\n  File "job.py", line 1, in <module>\nValueError: {lines}'
    )

    assert found is not None
    assert found.message.splitlines()[-2:] == ["line 11", "... and 988 more lines"]


@pytest.mark.parametrize(
    "text", ["", "nothing went wrong", "Traceback (most recent call last):", "Error: no traceback"]
)
def test_no_traceback(text):
    """A text without a whole traceback has none."""
    assert tracebacks.find(text) is None
