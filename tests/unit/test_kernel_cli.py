"""``minicontainer kernel``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import click
import linuxes
import pytest
from commands import COMMANDS
from supplies import Run

from minicontainer.cli.kernel import KERNEL
from minicontainer.microvm import features, store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return linuxes.tree(tmp_path / "x")


def test_a_life(minicontainer_cli: Run, file: Path, tmp_path: Path) -> None:
    def out(*words: str | Path, code: int = 0) -> str:
        done = minicontainer_cli("kernel", *words)
        assert (done.returncode, done.stderr) == (code, ""), done.stderr
        return done.stdout

    assert out("ls").split() == ["NAME", "RELEASE", "KIND", "DEFAULT", "SIZE", "CREATED"]
    assert out("ls", "--format", "json") == ""
    assert out("add", file) == f"{linuxes.RELEASE}\n"
    assert (
        out("add", "--name", "mine", "--default", "--modules", file.parents[1] / f"lib/modules/{linuxes.RELEASE}", file)
        == "mine\n"
    )
    _, first, second = out("ls").splitlines()
    assert first.split()[:3] == [linuxes.RELEASE, linuxes.RELEASE, "linux"]
    assert second.split()[:4] == ["mine", linuxes.RELEASE, "linux", "yes"]
    assert out("ls", "-q", "--filter", "name=^mi", "--filter", "kind=linux") == "mine\n"
    assert out("ls", "--filter", "kind=libkrunfw", "-q") == ""
    assert out("ls", "--format", "{{.Name}} {{.Default}} {{.Lacks}}") == f"{linuxes.RELEASE} false \nmine true \n"
    assert json.loads(out("ls", "--format", "json").splitlines()[1]) == {
        "Name": "mine",
        "Release": linuxes.RELEASE,
        "Kind": "linux",
        "Default": True,
        "Size": store.find("mine").size,
        "CreatedAt": json.loads(out("ls", "--format", "json").splitlines()[1])["CreatedAt"],
        "Source": str(file),
        "Path": f"{store.directory()}/mine/kernel",
        "Modules": f"{store.directory()}/mine/modules",
        "Announcement": "acpi",
        "Lacks": [],
        "Damage": None,
    }
    assert out("check") == out("check", "mine")
    assert out("rm", "mine", linuxes.RELEASE) == f"mine\n{linuxes.RELEASE}\n"
    assert out("rm", "-f", "mine") == ""


def test_a_check(minicontainer_cli: Run, file: Path) -> None:
    done = minicontainer_cli("kernel", "check", file)
    head, columns, *lines = done.stdout.splitlines()
    assert (done.returncode, head) == (0, f"kernel {file} ({linuxes.RELEASE})")
    assert columns.split() == ["FEATURE", "OPTION", "NEEDED", "STATE"]
    assert [line.split()[0] for line in lines] == [feature.name for feature in features.FEATURES]
    assert "virtiofs       CONFIG_VIRTIO_FS                     yes      module" in lines
    Path(file.parent, f"config-{linuxes.RELEASE}").write_text(linuxes.CONFIG.replace("CONFIG_DEVTMPFS=y", ""))
    done = minicontainer_cli("kernel", "check", "--format", "{{.Feature}} {{.Needed}} {{.State}}", file)
    assert (done.returncode, done.stdout.splitlines()[1]) == (1, "devtmpfs yes missing")
    done = minicontainer_cli("kernel", "check", "--format", "json", file)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert rows[0] == {
        "Feature": "initramfs", "Option": "CONFIG_BLK_DEV_INITRD", "Needed": True, "State": "built in", "File": None,
    }  # fmt: skip
    assert rows[6]["File"].endswith("/kernel/fs/fuse/virtiofs.ko")


def test_what_a_new_one_lacks_is_said(minicontainer_cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(linuxes.vmlinux("6.6.6", *linuxes.WHOLE[1:]))
    done = minicontainer_cli("kernel", "add", path)
    assert (done.returncode, done.stdout) == (0, "6.6.6\n")
    says = "warning: kernel 6.6.6: machines need what it lacks: initramfs (minicontainer kernel check 6.6.6)"
    assert done.stderr == f"minicontainer: {says}\n"
    assert minicontainer_cli("kernel", "check", "6.6.6").returncode == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["add", "/etc/passwd"], 126, "kernel /etc/passwd: is neither a bzImage nor an ELF file"),
        (["add", "/nonexistent"], 127, "kernel /nonexistent: No such file"),
        (["add", "--name", "/", "x"], 125, "--name /: must match"),
        (["add", "--modules", "/etc", "x"], 125, "--modules /etc: is no directory of modules"),
        (["fetch", "a b"], 125, "package 'a b': is no name of a package"),
        (["check", "nope"], 125, "kernel nope: there is no such file or registered kernel"),
        (["rm", "nope"], 1, "kernel nope: there is no such registered kernel"),
        (["nope"], 125, "nope: is no command (minicontainer kernel --help lists them)"),
    ],
)
def test_errors_are_one_line(minicontainer_cli: Run, words: list[str], code: int, says: str) -> None:
    done = minicontainer_cli("kernel", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert says in done.stderr


def test_names_are_completed(tmp_path: Path, file: Path, minicontainer_cli: Run) -> None:
    minicontainer_cli("kernel", "add", "--name", "mine", file)
    context = click.Context(COMMANDS["kernel rm"])
    assert [item.value for item in KERNEL.shell_complete(context, context.command.params[0], "m")] == ["mine"]
