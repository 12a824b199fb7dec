"""The command line's frame: lazy commands, one error boundary, completion, and what a person sees."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import clusterkit
from clusterkit import cli, errors
from clusterkit.cli import boundary, options
from clusterkit.cli.output import Progress, print_json, print_table
from clusterkit.settings.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAVY = (
    "hdfs_native",
    "httpcore",
    "msgspec",
    "platformdirs",
    "psutil",
    "pyarrow",
    "pyspark",
    "rich",
    "tomlkit",
    "yaml",
)


def clusterkit_command(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clusterkit", *args],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LC_ALL": "C.UTF-8", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def boundary_of(command: Callable[[], Any], capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = boundary.run(click.command("clusterkit")(command), list(args))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_command_in_order() -> None:
    """Help shows the table, section by section."""
    done = clusterkit_command("--help")
    assert done.returncode == 0
    assert re.findall(r"^(?:(\w+):$|  (\w+)  )", done.stdout, re.MULTILINE)[1:] == [
        ("Run", ""),
        ("", "submit"),
        ("", "app"),
        ("Environments", ""),
        ("", "env"),
        ("Clusters", ""),
        ("", "cluster"),
        ("", "doctor"),
        ("Setup", ""),
        ("", "config"),
        ("", "completion"),
    ]
    assert all(entry.help in done.stdout for entry in cli.COMMANDS)


def test_version() -> None:
    """The version is one line."""
    assert clusterkit_command("--version").stdout == f"clusterkit {clusterkit.__version__}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_loads_nothing_heavy(argument: str) -> None:
    """Neither help nor version imports a command, a heavy library or the settings."""
    code = (
        f"import sys; from clusterkit.cli import main; assert main([{argument!r}]) == 0;"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stderr.split())
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}
    assert {name for name in loaded if name.startswith("clusterkit")} == {
        "clusterkit",
        "clusterkit.cli",
        "clusterkit.cli.boundary",
        "clusterkit.cli.output",
        "clusterkit.errors",
        "clusterkit.units",
    }


def test_every_command_of_the_table_loads() -> None:
    """Each entry's module has a command of the same name, with help of its own."""
    for entry in cli.COMMANDS:
        if find_spec(f"clusterkit.cli.{entry.name}") is None:
            continue  # not written yet
        command = entry.load()
        assert (command.name, bool(command.help)) == (entry.name, True)


def test_nothing_to_do_is_a_call_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is printed."""
    assert cli.main([]) == 0
    assert capsys.readouterr().out.startswith("Usage: clusterkit [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["clutser", "up"],
            (
                "Error: `clusterkit` was not understood\n"
                "  Why:  there is no command clutser; did you mean cluster?\n"
                "  Mend: `clusterkit --help` shows what it takes\n"
            ),
        ),
        (
            ["--versoin"],
            (
                "Error: `clusterkit` was not understood\n"
                "  Why:  No such option '--versoin'; did you mean --version?\n"
                "  Mend: `clusterkit --help` shows what it takes\n"
            ),
        ),
        (
            ["completion", "ksh"],
            (
                "Error: `clusterkit completion` was not understood\n"
                "  Why:  Invalid value for '{bash|zsh|fish}': 'ksh' is not one of 'bash', 'zsh', 'fish'\n"
                "  Mend: `clusterkit completion --help` shows what it takes\n"
            ),
        ),
    ],
)
def test_usage_errors(args: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is an error of the request in three lines, with the nearest name."""
    assert cli.main(args) == 64
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize("kind", errors.kinds(), ids=lambda kind: kind.__name__)
def test_expected_errors(kind: type[errors.ClusterkitError], capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind is three lines on stderr and its exit code."""

    def fail() -> None:
        raise kind("it was not done", why="the disk is full", mend="run `df`")

    text = "Error: it was not done\n  Why:  the disk is full\n  Mend: run `df`\n"
    assert boundary_of(fail, capsys) == (kind.exit_code, "", text)


def test_exit_code_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command's number is the exit code, and nothing is success."""
    assert boundary_of(lambda: 3, capsys)[0] == 3
    assert boundary_of(lambda: None, capsys)[0] == 0


def test_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything unexpected shows its traceback, says that it is a bug, and names the versions."""
    code, _, text = boundary_of(lambda: 1 // 0, capsys)
    assert code == 70
    assert text.startswith("Traceback (most recent call last):\n")
    assert "\nError: this is a bug in clusterkit\n  Why:  ZeroDivisionError: " in text
    assert f"clusterkit {clusterkit.__version__}, Python {sys.version.split()[0]}, pyspark " in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts(number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C and SIGTERM unwind the command, so that it can clean up, and end with the shell's code."""
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(number)
    assert boundary_of(work, capsys)[0] == code
    assert (cleaned, signal.getsignal(number)) == ([True], before)


def test_reader_that_goes_away_is_no_error() -> None:
    """When the reader of a pipe has had enough, the command ends quietly."""
    code = (
        "import sys, click; from clusterkit.cli import boundary\n"
        "@click.command()\n"
        "def work():\n"
        "    sys.stdin.read()\n"
        "    click.echo('x' * 1000000)\n"
        "sys.exit(boundary.run(work, []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 141)
    process.stderr.close()


def test_broken_pipe_elsewhere_is_a_bug(capfd: pytest.CaptureFixture[str]) -> None:
    """A broken pipe that is not our output is not hidden."""

    def fail() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    assert boundary.run(click.command("clusterkit")(fail), []) == 70
    assert "BrokenPipeError" in capfd.readouterr().err


def test_key_is_respelt_as_the_flag() -> None:
    """Who wrote a flag reads about the flag; longer keys that begin alike are let be."""
    error = errors.SpecError(
        "executor.memory of 1 MiB is too small",
        why="set executor.memory and not executor.memory.fraction",
        mend="set executor.memory, or spark.executor.memory.",
        key="executor.memory",
        place="--executor-memory",
    )
    assert str(boundary.respelled(error)) == (
        "--executor-memory of 1 MiB is too small\n"
        "  Why:  set --executor-memory and not executor.memory.fraction\n"
        "  Mend: set --executor-memory, or spark.executor.memory."
    )
    word = errors.SpecError(
        "'a b' is not the name of a queue", why="queue names", mend="correct queue", key="queue", place="--queue"
    )
    assert str(boundary.respelled(word)) == (
        "'a b' is not the name of a queue\n  Why:  queue names\n  Mend: correct --queue"
    )
    placed = errors.SpecError("queue", why="queue", mend="queue", key="queue", place="clusterkit.toml:3")
    assert boundary.respelled(placed) is placed


def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What comes from outside cannot steer the terminal."""

    def fail() -> None:
        raise errors.SpecError("a\x1b[31m", why="b\rb", mend="c")

    assert boundary_of(fail, capsys)[2] == "Error: a\\x1b[31m\n  Why:  b\\rb\n  Mend: c\n"


def on_terminal(code: str, **environ: str) -> str:
    """Return what Python code writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "80", "LC_ALL": "C.UTF-8", **environ},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    chunks = []
    try:
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(master)
        process.wait(60)
    return b"".join(chunks).decode()


FAIL = "from clusterkit.cli import main; main(['nonsense'])"


def test_colour_is_for_terminals_that_want_it() -> None:
    """Red stands on a terminal, unless NO_COLOR is set or the terminal is dumb."""
    assert "\x1b[31m\x1b[1mError:\x1b[0m `clusterkit`" in on_terminal(FAIL)
    assert "\x1b" not in on_terminal(FAIL, NO_COLOR="1")
    assert "\x1b" not in on_terminal(FAIL, TERM="dumb")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time it was set to."""
        return self.now_s


def test_plain_progress() -> None:
    """Off a terminal every stage is told, and progress within it once a second and at its end."""
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock=clock) as progress:
        progress.stage("uploading", "0/100 MiB")
        for done in range(1, 101):
            clock.now_s += 0.03
            progress.update(f"{done}/100 MiB")
        progress.stage("accepted", "queue default")
        progress.stage("accepted", "queue default, waits for memory")
        progress.note("Ctrl-C kills\nthe application")
        clock.now_s += 1.5
        progress.update("queue default, first in line")
        clock.now_s += 1.5
        progress.update("queue default, first in line")
        clock.now_s += 60
        progress.stage("running\x1b[2J")
    assert stream.getvalue() == (
        "  0.0 s  uploading: 0/100 MiB\n"
        "  1.0 s  uploading: 34/100 MiB\n"
        "  2.0 s  uploading: 68/100 MiB\n"
        "  3.0 s  uploading: 100/100 MiB\n"
        "  3.0 s  accepted: queue default\n"
        "         Ctrl-C kills\n"
        "         the application\n"
        "  4.5 s  accepted: queue default, first in line\n"
        "1 min 6 s  running\\x1b[2J\n"
    )


LIVE = """
import sys, time
from clusterkit.cli.output import Progress
with Progress() as progress:
    progress.stage("uploading", "1/2 MiB")
    progress.note("by the way")
    with progress.aside():
        sys.stdout.write("from the job\\n")
        sys.stdout.flush()
    progress.stage("accepted", "[bold]queue[/bold] default")
"""


def test_live_progress() -> None:
    """On a terminal the line changes in place, finished stages stay, and others can write in between."""
    screen = on_terminal(LIVE)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    seen = [line for part in plain.replace("\r", "\n").split("\n") if (line := part.strip())]
    assert "…   0.0 s  uploading: 1/2 MiB" in seen
    order = [
        "by the way",
        "from the job",
        "✓   0.0 s  uploading: 1/2 MiB",
        "✓   0.0 s  accepted: [bold]queue[/bold] default",
    ]
    assert [line for line in seen if line in order] == order


def test_long_lines_on_a_terminal() -> None:
    """The live line is cut at the edge of the terminal; the line that stays is whole: an address in it can be used."""
    address = "http://127.0.0.1:8088/proxy/" + "x" * 100
    code = f"from clusterkit.cli.output import Progress\nwith Progress() as told: told.stage('running', {address!r})"
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(code))
    assert re.search(r"…   0.0 s  running: http://127.0.0.1:8088/proxy/x+…", seen)
    assert f"✓   0.0 s  running: {address}\r\n" in seen


PASSED_ON = """
import sys
import tomllib
from clusterkit.cli.output import Progress
with Progress() as progress:
    progress.stage("running")
    progress.pass_on(b"10 %", sys.stdout.buffer)
    progress.update("executors 1/2")
    progress.pass_on(b"...20 %", sys.stdout.buffer)
    progress.stage("finished")
    progress.pass_on(b"no end", sys.stdout.buffer)
"""


def test_half_a_line_of_somebody_else_stays() -> None:
    """Output without an end of line is neither overwritten by the live line nor run into it."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(PASSED_ON))
    lines = [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")]
    assert "10 %...20 %" in lines
    assert "no end" in lines
    assert [line.split("  ")[-1] for line in lines if line.startswith("✓")] == ["running: executors 1/2", "finished"]


def test_failed_stage_is_marked() -> None:
    """A stage that an error ends is not marked as done."""
    code = LIVE.replace('progress.note("by the way")', "sys.exit(3)")
    assert "✗   0.0 s  uploading: 1/2 MiB" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(code))


def test_no_colour_in_live_progress() -> None:
    """NO_COLOR leaves the live line without colours."""
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(LIVE, NO_COLOR="1"))
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(LIVE))


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are aligned by what a terminal shows, numbers to the right, control characters written out."""
    rows = [("a", 5, "日本"), ("ccc", 12345, None), ("e\u0301\n", 1.5, "x\x1b[31m")]
    print_table(("NAME", "N", "NOTE"), rows)
    assert capsys.readouterr().out == (
        "NAME      N  NOTE\na         5  日本\nccc   12345  -\ne\u0301\\n     1.5  x\\x1b[31m\n"
    )


def test_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of nothing is its head."""
    print_table(("NAME", "N"), [])
    assert capsys.readouterr().out == "NAME  N\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is one document, text as it is, paths as text."""
    print_json({"a": Path("/é"), "b": [1, None]})
    assert capsys.readouterr().out == '{\n  "a": "/é",\n  "b": [\n    1,\n    null\n  ]\n}\n'


def complete(words: str, count: int | str, shell: str = "bash") -> list[str]:
    done = clusterkit_command(
        _CLUSTERKIT_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=str(count), _TEST="1"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "count", "found"),
    [
        ("clusterkit clu", 1, ["plain,cluster"]),
        ("clusterkit co", 1, ["plain,config", "plain,completion"]),
        ("clusterkit completion ", 2, ["plain,bash", "plain,zsh", "plain,fish"]),
        ("clusterkit config s", 2, ["plain,show"]),
        ("clusterkit --ver", 1, ["plain,--version"]),
        ("clusterkit nonsense clu", 2, ["plain,cluster"]),
        ("clusterkit submit --deploy-mode c", 3, ["plain,client", "plain,cluster"]),
        ("clusterkit submit --keytab x", 3, ["file,x"]),
    ],
)
def test_completion_protocol(words: str, count: int, found: list[str]) -> None:
    """The shell's question about a half-written word is answered with the commands that fit."""
    assert complete(words, count) == found


@pytest.mark.parametrize(
    ("shell", "word"),
    [("zsh", "1"), ("fish", "clu")],
)
def test_completion_protocol_of_other_shells(shell: str, word: str) -> None:
    """Shells that are no bash are answered in their own ways, with what each command does."""
    found = complete("clusterkit clu", word, shell)
    assert [part for line in found for part in re.split(r"[,\t]", line)][:2] == ["plain", "cluster"]
    assert next(each.help for each in cli.COMMANDS if each.name == "cluster") in "\n".join(found)


def test_completion_in_a_real_bash(tmp_path: Path) -> None:
    """The printed script, sourced by bash, completes `clusterkit clu` to `clusterkit cluster`."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "clusterkit").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m clusterkit \"$@\"\n")
    (bin_directory / "clusterkit").chmod(0o755)
    script = (
        "source <(clusterkit completion bash)\n"
        "COMP_WORDS=(clusterkit clu); COMP_CWORD=1\n"
        'handler=$(complete -p clusterkit | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        '"$handler" clusterkit clu clusterkit\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script],
        env={"PATH": f"{bin_directory}:{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("cluster\n", "")


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "#compdef clusterkit"), ("fish", "complete")]
)
def test_completion_scripts(shell: str, word: str) -> None:
    """Each shell gets a script of its own that asks clusterkit."""
    done = clusterkit_command("completion", shell)
    assert word in done.stdout
    assert "_CLUSTERKIT_COMPLETE" in done.stdout


def flags_given(*args: str) -> dict[str, object]:
    given: dict[str, object] = {}

    @click.command()
    @options.settings_options(*(setting.key for setting in TABLE if not setting.file_only))
    def command(**parameters: object) -> None:
        given.update(parameters)

    command.main(list(args), standalone_mode=False)
    return options.flags_from(given)


def test_options_of_settings() -> None:
    """Each setting has its flag, and its short form; what was not given is told from what was."""
    flags = flags_given(
        "--executors", "3", "--no-dynamic-allocation", "--conf", "a=b", "--conf", "c=d", "--files", "x,y"
    )
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    assert given == {
        "executor.count": "3",
        "dynamic_allocation": False,
        "spark.conf": ("a=b", "c=d"),
        "files": ("x,y",),
    }
    assert set(flags) == {setting.key for setting in TABLE if not setting.file_only}


@pytest.fixture(autouse=True)
def _no_leftover_handlers() -> Iterator[None]:
    """Fail a test that leaves a signal handler behind."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("module", "extra"), [("rattler.networking", "conda"), ("isal", "env"), ("pyspark", "spark")])
def test_a_missing_extra_is_no_bug(module: str, extra: str) -> None:
    """Which extra brings the module, and how to install it."""
    stream = io.StringIO()

    code = boundary.report(ModuleNotFoundError(f"No module named {module!r}", name=module), stream)

    assert code == 69
    assert stream.getvalue() == (
        f"Error: this needs the extra {extra} of clusterkit\n"
        f"  Why:  the Python that runs clusterkit has no module {module}\n"
        f"  Mend: install it: pip install 'clusterkit[{extra}]'\n"
    )


def test_every_module_of_the_table_comes_with_its_extra() -> None:
    """The table says what pyproject.toml says."""
    names = {"conda_pack": "conda-pack", "rattler": "py-rattler"}
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = declared["project"]["optional-dependencies"]

    for module, extra in boundary.EXTRAS.items():
        assert any(entry.startswith(names.get(module, module)) for entry in extras[extra]), module
