"""A cluster's configuration: files, expansion, addresses, and what is said when they cannot be read."""

from __future__ import annotations

from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterkit.errors import ClusterError
from clusterkit.hadoop.configuration import Configuration, Endpoint

ENVIRON = {"HOME_DIR": "/home/x", "EMPTY": ""}


def site(directory, name, *properties, tail=""):
    """Write a site file of (name, value) or (name, value, "final") properties."""
    rows = "".join(
        f"<property><name>{escape(key)}</name><value>{escape(value)}</value>"
        f"{''.join(f'<{tag}>true</{tag}>' for tag in final)}</property>\n"
        for key, value, *final in properties
    )
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f'<?xml version="1.0"?>\n<configuration>\n{rows}{tail}</configuration>\n')


def of(properties, environ=None):
    return Configuration.from_mapping(properties, environ=environ or ENVIRON)


def test_later_files_override_unless_final(tmp_path):
    """A value of a later file counts, except where an earlier file said final."""
    site(tmp_path, "core-site.xml", ("a", "core"), ("b", "core", "final"), ("c", "core"))
    site(tmp_path, "hdfs-site.xml", ("a", "hdfs"), ("b", "hdfs"))
    site(tmp_path, "yarn-site.xml", ("c", "yarn"))
    found = Configuration.from_directory(tmp_path, environ={})
    assert dict(found.properties) == {"a": "hdfs", "b": "core", "c": "yarn"}


def test_within_a_file_the_last_value_counts(tmp_path):
    """Of a key that stands twice in a file, the last value counts; a property without a value is none."""
    tail = "<property><name>c</name></property><property><name>d</name><value/></property>"
    site(tmp_path, "core-site.xml", ("a", "1"), ("a", "2"), tail=tail)
    found = Configuration.from_directory(tmp_path, environ={})
    assert dict(found.properties) == {"a": "2", "d": ""}


def test_short_form_and_include(tmp_path):
    """A property may be written in attributes, and a file may include another."""
    tail = '<property name="a" value="1"/><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="more.xml"/>'
    site(tmp_path, "core-site.xml", tail=tail)
    site(tmp_path, "more.xml", ("b", "2"))
    assert dict(Configuration.from_directory(tmp_path, environ={}).properties) == {"a": "1", "b": "2"}


def test_files_that_include_each_other(tmp_path):
    """Files that include each other are each read once."""
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{}"/>'
    site(tmp_path, "core-site.xml", ("a", "1"), tail=include.format("more.xml"))
    site(tmp_path, "more.xml", ("b", "2"), tail=include.format("core-site.xml"))
    assert dict(Configuration.from_directory(tmp_path, environ={}).properties) == {"a": "1", "b": "2"}


def test_the_environment_is_not_shown():
    """Neither the environment nor a property, which may hold a secret, is in what is printed of a configuration."""
    assert "hush" not in repr(of({"password": "hush"}, {"TOKEN": "hush"}))


def test_old_names_are_understood():
    """A deprecated key is read as the one that replaced it."""
    assert of({"fs.default.name": "hdfs://n:1"}).default_fs == "hdfs://n:1"


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("${b}/c", "/b/c"),
        ("${nested}", "//b"),
        ("${env.HOME_DIR}", "/home/x"),
        ("${env.NONE:-default}", "default"),
        ("${env.EMPTY:-default}", "default"),
        ("${env.EMPTY-default}", ""),
        ("${env.NONE-default}", "default"),
        ("${env.NONE}", "${env.NONE}"),
        ("${unknown}/x", "${unknown}/x"),
        ("${unknown}${b}", "${unknown}/b"),
        ("$b ${", "$b ${"),
        ("  spaces ", "spaces"),
    ],
)
def test_expansion(value, expanded):
    """Variables are other properties, system properties and the environment; unknown ones stay as they are."""
    assert of({"a": value, "b": "/b", "nested": "/${b}"}).get("a") == expanded


def test_expansion_ends_on_cycles():
    """Properties that name each other do not expand for ever."""
    assert of({"a": "${b}", "b": "${a}"}).get("a") in {"${a}", "${b}"}


def test_user_name_is_expanded_and_identity_is_hadoops(monkeypatch):
    """`user.name` is the operating system's user, while a cluster without Kerberos takes HADOOP_USER_NAME."""
    monkeypatch.setenv("LOGNAME", "alice")
    found = of({"a": "/tmp/hadoop-${user.name}"}, {"HADOOP_USER_NAME": "bob"})
    assert (found.get("a"), found.user) == ("/tmp/hadoop-alice", "bob")
    assert of({}, {"A": "b"}).user == "alice"


def test_defaults_words_and_flags():
    """Hadoop's defaults stand where nothing is set; lists are split; only `true` is true."""
    found = of({"w": " a, b ,,c ", "yes": "TRUE", "no": "1"})
    assert found.words("yarn.log-aggregation.file-formats") == ("TFile",)
    assert (found.words("w"), found.words("none")) == (("a", "b", "c"), ())
    assert (found.flag("yes"), found.flag("no"), found.flag("none")) == (True, False, False)
    assert (found.get("none"), found.get("none", "x")) == (None, "x")


def test_one_resource_manager():
    """Without high availability there is one address, from the web address or the host name."""
    named = of({"yarn.resourcemanager.hostname": "rm.example"})
    assert named.resource_managers == (Endpoint(None, "rm.example", 8088, "http"),)
    expanded = of(
        {
            "yarn.resourcemanager.hostname": "rm.example",
            "yarn.resourcemanager.webapp.address": "${yarn.resourcemanager.hostname}:18088",
        }
    )
    assert expanded.resource_managers == (Endpoint(None, "rm.example", 18088, "http"),)
    everywhere = of({"yarn.resourcemanager.webapp.address": "0.0.0.0:1"})
    assert everywhere.resource_managers == (Endpoint(None, "127.0.0.1", 1, "http"),)
    literal = of({"yarn.resourcemanager.webapp.address": "[::1]:2"})
    assert literal.resource_managers[0].url == "http://[::1]:2"


def test_pair_of_resource_managers_with_tls():
    """Of a pair each has its own address; HTTPS_ONLY takes the TLS addresses and ports."""
    found = of(
        {
            "yarn.resourcemanager.ha.enabled": "true",
            "yarn.resourcemanager.ha.rm-ids": "rm1, rm2",
            "yarn.resourcemanager.hostname.rm1": "one",
            "yarn.resourcemanager.webapp.https.address.rm2": "two:9",
            "yarn.resourcemanager.webapp.address.rm2": "two:8",
            "yarn.http.policy": "HTTPS_ONLY",
        }
    )
    assert found.resource_managers == (Endpoint("rm1", "one", 8090, "https"), Endpoint("rm2", "two", 9, "https"))
    assert [each.url for each in found.resource_managers] == ["https://one:8090", "https://two:9"]


@pytest.mark.parametrize(
    ("properties", "namenodes"),
    [
        ({"fs.defaultFS": "hdfs://nn"}, (Endpoint(None, "nn", 8020, "hdfs"),)),
        ({"fs.defaultFS": "hdfs://nn:9000/"}, (Endpoint(None, "nn", 9000, "hdfs"),)),
        (
            {
                "fs.defaultFS": "hdfs://ns",
                "dfs.ha.namenodes.ns": "a,b",
                "dfs.namenode.rpc-address.ns.a": "h1:1",
                "dfs.namenode.rpc-address.ns.b": "h2",
            },
            (Endpoint("a", "h1", 1, "hdfs"), Endpoint("b", "h2", 8020, "hdfs")),
        ),
        ({"fs.defaultFS": "hdfs://ns", "dfs.namenode.rpc-address.ns": "h:1"}, (Endpoint(None, "h", 1, "hdfs"),)),
    ],
)
def test_namenodes(properties, namenodes):
    """The NameNodes are those of the default file system, of its nameservice where it is one."""
    assert of(properties).namenodes == namenodes


@pytest.mark.parametrize(
    ("properties", "read", "why", "mend"),
    [
        ({}, "default_fs", "fs.defaultFS is not set", "set fs.defaultFS in core-site.xml"),
        (
            {"fs.defaultFS": "s3a://b"},
            "namenodes",
            "fs.defaultFS is 's3a://b', not hdfs://host:port",
            "set fs.defaultFS in core-site.xml",
        ),
        (
            {},
            "resource_managers",
            "yarn.resourcemanager.hostname is not set",
            "set yarn.resourcemanager.hostname in yarn-site.xml",
        ),
        (
            {"yarn.resourcemanager.webapp.address": "rm:port"},
            "resource_managers",
            "yarn.resourcemanager.webapp.address is 'rm:port', not host:port",
            "set yarn.resourcemanager.webapp.address in yarn-site.xml",
        ),
        (
            {"fs.defaultFS": "hdfs://ns", "dfs.ha.namenodes.ns": "a"},
            "namenodes",
            "dfs.namenode.rpc-address.ns.a is not set",
            "set dfs.namenode.rpc-address.ns.a in hdfs-site.xml",
        ),
    ],
)
def test_missing_address_names_the_key(properties, read, why, mend):
    """An address that is missing or malformed is refused with its key and the file it belongs to."""
    with pytest.raises(ClusterError) as caught:
        getattr(of(properties), read)
    assert (caught.value.why, caught.value.mend) == (why, mend)


def test_missing_directory(hostile):
    """A directory that does not exist is named."""
    with pytest.raises(ClusterError) as caught:
        Configuration.from_directory(hostile / "none")
    assert caught.value.path == hostile / "none"
    assert str(hostile / "none") in caught.value.what


def test_directory_without_site_files(tmp_path):
    """A directory that holds none of the files says which are missing and where they usually are."""
    with pytest.raises(ClusterError) as caught:
        Configuration.from_directory(tmp_path)
    assert (caught.value.path, "core-site.xml" in caught.value.why, "/etc/hadoop/conf" in caught.value.mend) == (
        tmp_path,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<configuration>", "it is not well-formed XML: no element found: line 1, column 15"),
        ("", "it is not well-formed XML: no element found: line 1, column 0"),
        ("<html/>", "its outermost element is <html>, not <configuration>"),
    ],
)
def test_malformed_file_is_named(hostile, text, why):
    """A file that is no configuration is named, with what is wrong in it."""
    site(hostile, "core-site.xml")
    (hostile / "yarn-site.xml").write_text(text)
    with pytest.raises(ClusterError) as caught:
        Configuration.from_directory(hostile)
    assert (caught.value.path, caught.value.why) == (hostile / "yarn-site.xml", why)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20),
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), max_size=40),
        max_size=5,
    )
)
def test_round_trip(tmp_path_factory, properties):
    """What is written as XML is read back, whatever characters keys and values hold."""
    directory = tmp_path_factory.mktemp("conf")
    site(directory, "core-site.xml", *properties.items())
    found = Configuration.from_directory(directory, environ={})
    assert {key: found.properties.get(key) for key in properties} == properties
