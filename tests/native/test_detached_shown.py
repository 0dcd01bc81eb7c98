"""What the command line shows of containers: columns, filters, JSON in docker's shape, templates, parts of logs."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from box import CLI, Operator, refusal, until
from ptys import session
from supplies import Run

from minicontainer.cli.times import parse_time

pytestmark = pytest.mark.needs("root")

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
# of `docker ps --format json` and `docker inspect` (moby 27), as far as they are about what is here
PS = "ID Names Command CreatedAt RunningFor Status State Ports Labels Networks Mounts".split()
STATE = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt".split()
INSPECT = "Id Created Path Args State Name RestartCount LogPath HostConfig Mounts Config NetworkSettings".split()
HOST_CONFIG = (
    "Binds NetworkMode PortBindings RestartPolicy AutoRemove CapAdd CapDrop CgroupnsMode Dns ExtraHosts GroupAdd"
    " IpcMode OomScoreAdj PidMode Privileged ReadonlyRootfs SecurityOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls"
    " CpuShares Memory NanoCpus BlkioWeight CpusetCpus Devices MemoryReservation MemorySwap PidsLimit Ulimits"
).split()
CONFIG = "Hostname User Tty OpenStdin Env Cmd WorkingDir Labels StopSignal".split()


# ---- ps


def test_names_and_ids_are_regular_expressions(op: Operator) -> None:
    one = op.run("sleep", "1000", options=("--name", "shown-abc"))
    two = op.run("sleep", "1000", options=("--name", "shown-abcd"))

    def found(*given: str) -> list[str]:
        return [row["ID"] for row in op.rows(*(word for text in given for word in ("--filter", text)))]

    assert found("name=^shown-abc$") == [one]
    assert found("name=^/shown-abc$") == [one]  # as scripts for docker write it
    assert found("name=shown-ab[c]d?$") == [two, one]
    assert found("name=^shown-abc$", "name=^shown-abcd$") == [two, one]
    assert found("name=^abc") == []
    assert found(f"id=^{two[:10]}") == [two]
    assert found("name=shown-", f"before={two}") == [one]
    assert found("name=shown-", f"since={one}") == [two]
    assert found("name=shown-", "network=none") == [two, one]
    assert found("name=shown-", "network=bridge") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("status=up", ["filter status=up: must be one of created, running"]),
        ("exited=x", ["filter exited=x: must be a number"]),
        ("restart=maybe", ["filter restart=maybe: must be one of no, on-failure, always"]),
        ("name=(", ["filter name=(: is no regular expression"]),
        ("health=healthy", ["filter health=healthy: must be KEY=VALUE, of id, name"]),
        ("since=nobody", ["container nobody: there is no such container"]),
    ],
)
def test_filters_that_cannot_be(op: Operator, text: str, says: list[str]) -> None:
    refusal(op.do("ps", "--filter", text, code=125), 125, says)


def test_columns_are_cut_where_it_is_no_terminal_too(op: Operator, tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 40) / "rootfs-at-the-end"
    deep.parent.mkdir()
    deep.symlink_to(op.rootfs)
    op.rootfs = deep
    c = op.run("sh", "-c", "sleep 1000", *["word"] * 50)
    (line,) = [line for line in op.out("ps").splitlines() if line.startswith(c[:12])]
    assert len(line) < 130
    assert "sh -c sleep 1000 wo…" in line
    assert re.search(r" …a+/rootfs-at-the-end ", line)
    (line,) = [line for line in op.out("ps", "--no-trunc").splitlines() if line.startswith(c)]
    assert str(deep) in line
    assert line.count("word") == 50


def test_the_last_ones(op: Operator) -> None:
    mine = ("--label", "of=the-last-ones")
    one = op.run("true", options=mine)
    op.out("wait", one)
    two, three = op.run("sleep", "1000", options=mine), op.run("sleep", "1000", options=mine)

    def listed(*words: str) -> list[str]:
        return op.out("ps", "-q", "--no-trunc", "--filter", "label=of=the-last-ones", *words).split()

    assert listed("-l") == [three]
    assert listed("-n", "2") == [three, two]
    assert listed("-n", "5") == [three, two, one]
    assert listed("-n", "-1") == [three, two]
    refusal(op.do("ps", "-n", "few", code=125), 125, ["-n few"])


def test_sizes(op: Operator) -> None:
    kept = op.run("sleep", "1000")
    written = op.run("sh", "-c", "head -c 100000 /dev/zero > /here; exec sleep 1000", options=("--ephemeral",))
    until(lambda: op.do("exec", written, "test", "-s", "/here").returncode == 0)
    (row,) = op.rows("-s", "--filter", f"id={written}")
    assert row["SizeRootFs"] - row["SizeRw"] > 1_000_000  # busybox alone has more
    assert 100_000 <= row["SizeRw"] < 200_000
    (row,) = op.rows("-s", "--filter", f"id={kept}")
    assert row["SizeRw"] is None
    assert row["SizeRootFs"] > 1_000_000
    assert op.rows("--filter", f"id={kept}")[0]["SizeRootFs"] is None
    shown = op.out("ps", "-s", "--filter", f"id={written}")
    assert shown.splitlines()[0].split()[-1] == "SIZE"
    assert re.search(r"KiB \(virtual .* MiB\)$", shown.splitlines()[1])
    assert "virtual" in op.out("ps", "--filter", f"id={written}", "--format", "{{.Size}}")


# ---- JSON, and templates


def test_ps_in_dockers_words(op: Operator) -> None:
    c = op.run("sh", "-c", "exit 3", options=("--name", "shown-json", "--label", "a.b=1", "-v", "/usr:/mnt:ro"))
    op.out("wait", c)
    (row,) = op.rows("-a")
    assert set(PS) <= set(row)
    assert (row["ID"], row["Names"], row["State"], row["ExitCode"]) == (c, "shown-json", "exited", 3)
    assert row["Command"] == "sh -c 'exit 3'"
    assert (row["Labels"], row["Mounts"], row["Ports"]) == ({"a.b": "1"}, ["/usr"], [])
    assert row["Pid"] is None
    for when in ("CreatedAt", "StartedAt", "FinishedAt"):
        assert TIME.fullmatch(row[when])
        assert abs(parse_time("time", row[when]) - time.time()) < 600
    one = ("-a", "--filter", f"id={c}", "--format")
    assert op.out("ps", *one, "{{.ID}} {{.Names}} {{.Command}}") == f'{c[:12]} shown-json "sh -c exit 3"\n'
    assert op.out("ps", *one, '{{.Labels}}|{{index .Labels "a.b"}}|{{json .Names}}') == 'a.b=1|1|"shown-json"\n'
    head, line = op.out("ps", *one, r"table {{.ID}}\t{{.Names}}").splitlines()
    assert head.split("   ") == ["CONTAINER ID", "NAMES"]
    assert line.split() == [c[:12], "shown-json"]
    unnamed = op.run("sleep", "1000")
    assert op.rows()[0]["ID"] == unnamed
    assert (op.rows()[0]["Names"], op.rows()[0]["FinishedAt"]) == (None, None)


def test_inspect_in_dockers_words(op: Operator) -> None:
    options = ("--name", "shown-whole", "-e", "A=1", "-w", "/tmp", "--label", "x=y", "-v", "/usr:/mnt:ro")
    c = op.run(
        "sleep", "1000", options=(*options, "--tmpfs", "/scratch:size=64k", "--cap-drop", "KILL", "--umask", "77")
    )
    told = op.inspect(c)
    assert set(INSPECT) <= set(told)
    assert set(STATE) <= set(told["State"])
    assert set(HOST_CONFIG) <= set(told["HostConfig"])
    assert set(CONFIG) <= set(told["Config"])
    assert (told["Id"], told["Name"], told["Path"], told["Args"]) == (c, "shown-whole", "sleep", ["1000"])
    state = told["State"]
    assert (state["Status"], state["Running"], state["Dead"]) == ("running", True, False)
    assert Path(f"/proc/{state['Pid']}").exists()
    assert (state["ExitCode"], state["FinishedAt"], state["Error"]) == (None, None, None)
    assert TIME.fullmatch(told["Created"])
    assert TIME.fullmatch(state["StartedAt"])
    assert told["Config"]["Env"] == ["A=1"]
    assert (told["Config"]["WorkingDir"], told["Config"]["Labels"]) == ("/tmp", {"x": "y"})
    wished = told["HostConfig"]
    assert (wished["CapDrop"], wished["Memory"], wished["Umask"]) == (["KILL"], None, "0077")
    assert wished["Binds"] == ["/usr:/mnt:ro"]
    assert wished["Tmpfs"] == {"/scratch": "rw,size=65536"}
    bind = next(mount for mount in told["Mounts"] if mount["Type"] == "bind")
    assert (bind["Source"], bind["Destination"], bind["RW"]) == ("/usr", "/mnt", False)
    assert told["Rootfs"] == str(op.rootfs)
    assert Path(told["LogPath"]).parent.is_dir()
    flat = json.dumps(told)
    assert not [word for word in ("monitor", "upper", "lease", "log_size", "die_with_parent") if f'"{word}"' in flat]


def test_inspect_by_a_template(op: Operator) -> None:
    c = op.run("sleep", "1000", options=("--name", "shown-part"))
    d = op.run("sh", "-c", "exit 5")
    op.out("wait", d)
    for option in ("-f", "--format"):
        assert op.out("inspect", option, "{{.State.Status}} {{.Name}}", c) == "running shown-part\n"
    assert op.out("inspect", "-f", "{{.State.ExitCode}}", c, d) == "<no value>\n5\n"
    assert json.loads(op.out("inspect", "-f", "{{json .State}}", d))["Reason"] == "exited"
    assert json.loads(op.out("inspect", "--format", "json", c))[0]["Id"] == c
    done = op.do("inspect", "-f", "{{.State.Nothing}}", c, code=125)
    refusal(done, 125, ["-f {{.State.Nothing}}: there is no Nothing (there are Status, "])
    refusal(
        op.do("inspect", "-f", "{{range .Mounts}}{{end}}", c, code=125), 125, ["is not supported", "{{json .Field}}"]
    )
    done = op.do("inspect", "-f", "{{.Name}}", "nobody", "shown-part", code=1)
    assert done.stdout == "shown-part\n"
    assert "container nobody: there is no such container" in done.stderr


@pytest.mark.parametrize("command", ["ps", "stats --no-stream", "network ls"])
def test_lists_take_the_same_formats(op: Operator, command: str) -> None:
    op.run("sleep", "1000")
    refusal(op.do(*command.split(), "--format", "yaml", code=125), 125, ["format yaml: is neither json, nor table"])


def test_stats_in_dockers_words(op: Operator) -> None:
    c = op.run("sleep", "1000", options=("--name", "shown-use"))
    (row,) = map(json.loads, op.out("stats", "--no-stream", "--format", "json", c).splitlines())
    assert {"ID", "Container", "Name", "CPUPerc", "MemUsage", "MemPerc", "PIDs"} <= set(row)
    assert isinstance(row["CPUPerc"], float)
    assert isinstance(row["MemUsage"], int)
    told = op.out("stats", "--no-stream", "--format", "{{.Name}}: {{.CPUPerc}} {{.MemUsage}}", c)
    assert re.fullmatch(r"shown-use: [\d.]+% [\d.]+ \w+ / .*\n", told)
    told = op.out("top", "--format", "{{.PID}} {{.InnerPID}} {{.CMD}}", c)
    assert told == f"{op.inspect(c)['State']['Pid']} 1 sleep 1000\n"


# ---- without a cgroup


def test_what_is_shown_of_one_without_a_cgroup(op: Operator) -> None:
    """An ordinary user has none on many hosts. Of what runs in it all is shown that /proc tells."""
    script = "sleep 1000 & unshare -p -f sleep 1001 & exec nc -l -p 8080"
    c = op.run("sh", "-c", script, options=("--name", "shown-bare", "--cap-add", "SYS_ADMIN"))
    op.out("exec", "-d", c, "sleep", "1002")
    (Path(op.inspect(c)["LogPath"]).parent / "cgroup").unlink()
    assert op.inspect(c)["State"]["CgroupPath"] is None

    def commands() -> list[str]:
        return sorted(op.out("top", "--format", "{{.CMD}}", c).splitlines())

    until(
        lambda: [text for text in commands() if text.startswith("sleep")] == [f"sleep {n}" for n in (1000, 1001, 1002)]
    )
    assert "nc -l -p 8080" in commands()
    (row,) = map(json.loads, op.out("stats", "--no-stream", "--format", "json", c).splitlines())
    assert row["PIDs"] == len(commands())
    assert row["MemUsage"] > 0
    assert (row["MemLimit"], row["PIDsLimit"], row["PressureCPU"]) == (None, None, None)
    assert row["CPUPerc"] is not None
    until(lambda: op.out("port", c) == "8080/tcp on ::, not reachable from the host\n")


def test_what_is_shown_of_one_without_a_pid_namespace(op: Operator) -> None:
    c = op.run("sh", "-c", "sleep 1003 & sleep 1004", options=("--pid", "host"))
    cgroup = Path(op.inspect(c)["LogPath"]).parent / "cgroup"
    there = cgroup.readlink()
    cgroup.unlink()
    try:

        def found() -> str:
            return op.out("top", "--format", "{{.CMD}}", c)

        until(lambda: {"sleep 1003", "sleep 1004"} <= set(found().splitlines()))
        assert len(found().splitlines()) <= 3  # and the shell, if it did not become the last
    finally:
        cgroup.symlink_to(there)


def test_the_help_of_the_screen_fits_it(op: Operator) -> None:
    op.run("sleep", "1000", options=("--name", "on-80"))
    with session("stats", rows=24, columns=80) as screen:
        screen.expect(r"on-80")
        screen.expect(r"arrows select.* q end")
        screen.type("q")
        assert screen.ends() == 0


# ---- logs


def test_parts_of_a_log(op: Operator) -> None:
    c = op.run("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.02; done")
    op.out("wait", c)
    times = [json.loads(line)["time"] for line in op.out("logs", "--format", "json", c).splitlines()]
    assert len(times) == 3
    for everything in ("-1", "all", "5"):
        assert op.out("logs", "-n", everything, c) == "1\n2\n3\n"
    assert op.out("logs", "--until", times[1], c) == "1\n2\n"
    assert op.out("logs", "--since", times[1], "--until", times[1], c) == "2\n"
    assert op.out("logs", "--since", "1h30m", "--until", "-1h", c) == "1\n2\n3\n"
    assert op.out("logs", "--until", "1h30m", c) == ""
    assert op.out("logs", "--until", times[1], "-n", "1", c) == "2\n"
    assert op.out("logs", "--since", str(int(time.time()) + 3600), c) == ""
    refusal(op.do("logs", "--until", "soon", c, code=125), 125, ["until soon: is no time", "1h30m"])
    refusal(op.do("logs", "-n", "-2", c, code=125), 125, ["-n -2"])


def test_following_until_a_time(op: Operator) -> None:
    c = op.run("sh", "-c", "echo first; exec sleep 1000")
    until(lambda: op.do("logs", c).stdout == "first\n")
    assert op.out("logs", "-f", "--until", "0s", c) == "first\n"  # and does not wait
    with subprocess.Popen([*CLI, "logs", "-f", "--until", "-1s", c], stdout=subprocess.PIPE, text=True) as following:
        assert following.communicate(timeout=60)[0] == "first\n"
        assert following.returncode == 0


def test_the_doctor_takes_the_same_option(minicontainer_cli: Run, tmp_path: Path) -> None:
    told = json.loads(minicontainer_cli("doctor", "--format", "json", str(tmp_path)).stdout)
    assert set(told) == {"host", "usable", "removed", "sections"}
    assert json.loads(minicontainer_cli("doctor", "--json", str(tmp_path)).stdout)["usable"] == told["usable"]
