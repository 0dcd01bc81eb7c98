"""The doctor without any privilege: how it asks, what it makes of answers, what it sees on a made-up host."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from minicontainer.cli import doctor as cli
from minicontainer.container.registry import names
from minicontainer.doctor import Finding, Probe, Report, Verdict, kvm, leftovers, measurements, namespaces
from minicontainer.doctor.findings import ask, no, note, ok
from minicontainer.doctor.processes import in_words, seccomp_library
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import libseccomp
from minicontainer.spec import CAPABILITIES

# ---- asking


def raising(error: Exception) -> Callable[[], Verdict]:
    def probe() -> Verdict:
        raise error

    return probe


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (UnsupportedError("userns", None, "switched off", "switch it on"), no("switched off", "switch it on")),
        (StepError(errno.ENODEV, 'mount("x")'), no('mount("x"): No such device')),
        (PermissionError(errno.EACCES, "Permission denied", "/dev/kvm"), no("/dev/kvm: Permission denied")),
        (ZeroDivisionError("by 0"), no("the probe crashed: ZeroDivisionError: by 0", "please report it")),
    ],
)
def test_a_probe_that_fails_says_why(error: Exception, verdict: Verdict) -> None:
    assert ask(Probe("p", raising(error), needed=True)) == Finding("p", verdict, True)


def test_a_probe_that_hangs_loses_its_children_and_no_time() -> None:
    seen = []

    def hang() -> Verdict:
        with subprocess.Popen(["sleep", "60"]) as child:
            seen.append(child.wait())
        return ok()

    finding = ask(Probe("p", hang), limit=0.2)
    assert finding.verdict == no("no answer within 0.2 s")
    assert seen == [-9]  # it was not waited for


def test_only_what_is_needed_and_missing_makes_a_host_unusable() -> None:
    good = [Finding("a", no("w"), needed=False), Finding("b", note("w"), needed=True), Finding("c", ok(), needed=True)]
    assert Report({"s": good}).usable
    assert not Report({"s": [*good, Finding("d", no("w"), needed=True)]}).usable


# ---- telling


REPORT = Report({"cgroups": [Finding("memory", no("bound to v1", "boot otherwise")), Finding("io", ok(), needed=True)]})


def test_text_is_aligned_and_names_reason_and_remedy() -> None:
    lines = [click.unstyle(line) for line in cli.as_text(REPORT, [Finding("name", ok("removed /x\ny"))])]
    assert lines[1:] == [
        "",
        "removed",
        "  ok    name  removed /x y",
        "",
        "cgroups",
        "  no    memory  bound to v1 (boot otherwise)",
        "  ok    io",
    ]


def test_text_ends_with_what_keeps_run_from_working() -> None:
    report = Report({"a": [Finding("mount", no("w"), needed=True)], "b": [Finding("pid", no("w"), needed=True)]})
    assert list(cli.as_text(report, []))[-1] == "minicontainer run cannot work here: mount, pid"


def test_data() -> None:
    data = json.loads(json.dumps(cli.as_data(REPORT, [])))
    assert data["usable"] is True
    assert data["removed"] == []
    assert data["sections"]["cgroups"][0] == {
        "name": "memory",
        "status": "no",
        "detail": "bound to v1",
        "remedy": "boot otherwise",
        "needed": False,
    }


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0, "none"),
        ((1 << len(CAPABILITIES)) - 1, f"all {len(CAPABILITIES)}"),
        ((1 << len(CAPABILITIES)) - 1 - (1 << 24), "all but sys_resource"),
        (1 << 21 | 1 << 0, "chown, sys_admin"),
    ],
)
def test_capabilities_in_words(mask: int, words: str) -> None:
    assert in_words(mask) == words


# ---- sysctls


def sysctls(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    known = {name.replace("__", "."): value for name, value in values.items()}
    monkeypatch.setattr(namespaces, "sysctl", known.get)


def test_what_forbids_an_ordinary_user_leaves_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sysctls(monkeypatch, kernel__unprivileged_userns_clone="0", user__max_net_namespaces="10")
    assert list(namespaces.forbidding("net", privileged=True)) == []
    assert list(namespaces.forbidding("net", privileged=False)) == [("kernel.unprivileged_userns_clone", "0", "1")]
    assert namespaces.switch("kernel.unprivileged_userns_clone") == no(
        "=0: ordinary users cannot create user namespaces", "as root: sysctl kernel.unprivileged_userns_clone=1"
    )


def test_a_limit_of_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sysctls(monkeypatch, user__max_net_namespaces="0", user__max_user_namespaces="9")
    assert [name for name, *_ in namespaces.forbidding("net", privileged=True)] == ["user.max_net_namespaces"]
    assert namespaces.limits() == no("user.max_net_namespaces=0", "as root: sysctl user.max_net_namespaces=10000")
    sysctls(monkeypatch, user__max_net_namespaces="7", user__max_user_namespaces="9")
    assert namespaces.limits() == ok("7 or more")


def test_apparmor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    sysctls(monkeypatch, kernel__apparmor_restrict_unprivileged_userns="1")
    monkeypatch.setattr(namespaces, "walk", raising_walk(StepError(errno.EPERM, "unshare(CLONE_NEWNET)")))
    assert namespaces.by_user("net") == no(f"disabled by sysctl {name}=1", f"as root: sysctl {name}=0")
    assert namespaces.by_root("net").detail == "unshare(CLONE_NEWNET): Operation not permitted"


def raising_walk(error: Exception) -> Callable[..., None]:
    def walk(*_: object, **__: object) -> None:
        raise error

    return walk


# ---- KVM


@pytest.mark.parametrize(
    ("number", "mode", "words"),
    [
        (errno.ENOENT, 0, "there is none"),
        (errno.ENODEV, 0, "there is no driver behind it"),
        (errno.EACCES, 0o660, "it is for group "),
        (errno.EACCES, 0o600, "(mode 600)"),
    ],
)
def test_why_kvm_cannot_be_opened(
    number: int, mode: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kvm, "DEVICE", str(device))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        verdict = kvm.device()
    assert verdict.status == "no"
    assert words in verdict.detail
    assert verdict.remedy


# ---- what disturbs measurements

QUIET = {
    "proc/loadavg": "0.02 0.01 0.00 1/99 1234",
    "proc/meminfo": "MemTotal: 1000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB",
    "proc/cpuinfo": "processor : 0\nflags : fpu sse\nprocessor : 1\nflags : fpu sse",
    "proc/stat": "cpu 100 0 0 900 0 0 0 0 0 0\ncpu0 1",
    "proc/sys/kernel/randomize_va_space": "0",
    "proc/sys/kernel/numa_balancing": "0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/cpu/smt/active": "0",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
}
NOISY = {
    "proc/loadavg": "1.50 0.01 0.00 1/99 1234",
    "proc/meminfo": "SwapTotal: 2048000 kB\nSwapFree: 1024000 kB",
    "proc/cpuinfo": "processor : 0\nflags : fpu hypervisor sse",
    "proc/stat": "cpu 50 0 0 900 0 0 0 50 0 0",
    "proc/sys/kernel/randomize_va_space": "2",
    "proc/sys/kernel/numa_balancing": "1",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0",
    "sys/devices/system/cpu/smt/active": "1",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
}


def observed(root: Path, *trees: dict[str, str]) -> dict[str, Verdict]:
    for tree in trees:
        for path, text in tree.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + "\n", encoding="ascii")
    return {probe.name: ask(probe).verdict for probe in measurements.probes(str(root))}


def test_a_quiet_host(tmp_path: Path) -> None:
    found = observed(tmp_path, QUIET)
    assert {name for name, verdict in found.items() if verdict.status != "ok"} == set()


def test_a_noisy_host(tmp_path: Path) -> None:
    found = observed(tmp_path, QUIET, NOISY)
    assert {name for name, verdict in found.items() if verdict.status != "note"} == set()
    assert found["load"].detail == "1.50 on 1 CPUs"
    assert found["swap"].detail == "1000 of 2000 MiB in use"
    assert found["frequency governor"].detail == "performance, powersave"
    assert found["virtual machine"].detail.endswith("5.00% of its CPU time since boot was stolen")
    assert found["turbo"].remedy == "as root: echo 1 >/sys/devices/system/cpu/intel_pstate/no_turbo"


def test_a_host_that_shows_nothing(tmp_path: Path) -> None:
    found = observed(tmp_path)
    assert found["SMT"] == note("unknown")
    assert found["load"].status == "no"
    assert "proc/loadavg" in found["load"].detail


# ---- what was left behind


@pytest.fixture
def unrested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories count as stale at once."""
    monkeypatch.setattr(leftovers, "REST", 0.0)


@pytest.mark.usefixtures("unrested")
def test_an_unfinished_directory_is_found_and_removed_with_all_in_it(tmp_path: Path) -> None:
    part = tmp_path / ".0123abcd.part"
    (part / "a/b").mkdir(parents=True)
    (part / "a/link").symlink_to(tmp_path)
    for other in (".0123abcd", "0123abcd.part", ".0123ABCD.part"):
        (tmp_path / other).mkdir()
    (tmp_path / ".89abcdef.part").touch()  # no directory: not ours
    assert leftovers.stale_parts([str(tmp_path)]) == [str(part)]
    removed = leftovers.clean(str(tmp_path))
    assert Finding("unfinished directory", ok(f"removed {part}")) in removed
    assert not part.exists()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.usefixtures("unrested")
def test_an_unfinished_directory_of_a_live_maker_is_left_alone(tmp_path: Path) -> None:
    from minicontainer.rootfs.staging import made

    with made(str(tmp_path / "rootfs")):
        assert len(list(tmp_path.iterdir())) == 1
        assert leftovers.stale_parts([str(tmp_path)]) == []
        leftovers.clean(str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rootfs"]


def test_a_fresh_directory_is_left_alone(tmp_path: Path) -> None:
    """Its maker may be between mkdir and flock."""
    (tmp_path / ".0123abcd.part").mkdir()
    assert leftovers.stale_parts([str(tmp_path)]) == []


def test_the_doctors_own_directory_is_marked_and_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "temporary_place", lambda: str(tmp_path))
    monkeypatch.setattr(leftovers, "REST", 0.0)
    with leftovers.temporary() as path:
        (Path(path) / "x").mkdir()
        assert leftovers.PART.fullmatch(os.path.basename(path))
        assert leftovers.stale_parts([str(tmp_path)]) == []
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_removed_when_nobody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "directory", lambda: str(tmp_path))
    held = names.reserve("held", "0123456789ab")
    (tmp_path / "dead").write_text("4194304 ba9876543210\n", encoding="ascii")
    try:
        found = [finding for finding in leftovers.clean(str(tmp_path)) if finding.name == "name"]
        assert found == [Finding("name", ok(f"removed {tmp_path}/dead"))]
        assert [path.name for path in tmp_path.iterdir()] == ["held"]
    finally:
        names.release(held)


def test_a_file_that_was_replaced_meanwhile_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "name"
    path.touch()
    really = fcntl.flock

    def replacing(fd: int, operation: int) -> None:
        path.unlink()
        path.touch()
        really(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replacing)
    with leftovers._locked(str(path), os.O_RDONLY) as fd:
        assert fd is None


def test_a_missing_libseccomp_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(Probe("libseccomp", seccomp_library)).verdict == ok(libseccomp.version())
    monkeypatch.setattr(libseccomp, "SONAME", "libseccomp-is-not-here.so.2")
    libseccomp._library.cache_clear()
    try:
        verdict = ask(Probe("libseccomp", seccomp_library)).verdict
    finally:
        libseccomp._library.cache_clear()
    assert (verdict.status, verdict.remedy) == ("no", libseccomp.REMEDY)
    assert "libseccomp-is-not-here.so.2" in verdict.detail
