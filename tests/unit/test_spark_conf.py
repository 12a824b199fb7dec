from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from clusterkit.errors import SpecError
from clusterkit.launchers.spark import conf
from clusterkit.specs.job import JobSpec
from clusterkit.specs.resources import Resources

BLANKS = "".join(chr(code) for code in range(33) if code not in (10, 13))
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_properties_read_back_as_they_were_written(tmp_path_factory, properties):
    """A mapping that is written as Java properties reads back whole, but for blanks around values."""
    path = tmp_path_factory.mktemp("properties") / "spark.properties"
    path.write_text(conf.write_properties(properties), encoding="utf-8", newline="")

    assert conf.read_properties(path) == {key: value.strip(BLANKS) for key, value in properties.items()}


def test_properties_are_read_as_java_reads_them(tmp_path):
    """Comments, separators, continuation and escapes follow java.util.Properties."""
    path = tmp_path / "spark.properties"
    path.write_text(
        "# a comment\n! another = one\n\nspark.a 1 2\nspark.b=x\\\n    y\n"
        "spark.c : \\u00e9\\t!\nspark\\ d=\nspark.a=last\n"
    )

    assert conf.read_properties(path) == {"spark.a": "last", "spark.b": "xy", "spark.c": "é\t!", "spark d": ""}


def test_a_properties_file_that_is_not_text_is_refused(tmp_path):
    """A binary properties file is refused by name."""
    path = tmp_path / "spark.properties"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(SpecError, match=r"spark\.properties cannot be read") as caught:
        conf.read_properties(path)

    assert caught.value.key == "properties_file"


def test_typed_fields_become_spark_keys(tmp_path):
    """Each typed field has its Spark key, in Spark's units; what is not set is left to Spark."""
    spec = JobSpec(
        job=tmp_path / "job.py",
        name="nightly",
        queue="batch",
        executor=Resources(count=3, memory_mib=2048, cores=2),
        env_vars={"TZ": "UTC"},
    )

    assert conf.typed(spec) == {
        "spark.app.name": "nightly",
        "spark.submit.deployMode": "client",
        "spark.yarn.queue": "batch",
        "spark.executor.instances": "3",
        "spark.executor.memory": "2048m",
        "spark.executor.cores": "2",
        "spark.executorEnv.TZ": "UTC",
        "spark.yarn.appMasterEnv.TZ": "UTC",
    }


def test_dynamic_allocation_takes_the_count_as_its_limit(tmp_path):
    """With dynamic allocation the number of executors is the most there may be, not the number there is."""
    spec = JobSpec(job=tmp_path / "job.py", name="job", executor=Resources(count=3), dynamic_allocation=True)

    typed = conf.typed(spec)

    assert "spark.executor.instances" not in typed
    assert typed["spark.dynamicAllocation.enabled"] == "true"
    assert typed["spark.dynamicAllocation.maxExecutors"] == "3"
