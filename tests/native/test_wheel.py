"""What is distributed: a source archive that makes a wheel, and a wheel that has all and works without anything else.
Without the network: what building takes is in the environment of the tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from minicontainer.kvm import guests

pytestmark = pytest.mark.timeout(600)

PROJECT = Path(__file__).parents[2]
MADE = ("__pycache__", "*.so", "*.egg-info", "libexec", "_native.c", "_libseccomp.py", "_libnftables.py", "_libzstd.py")
SHARED = {
    "share/man/man1/minicontainer.1": ("manual",),
    "share/bash-completion/completions/minicontainer": ("completion", "bash"),
    "share/zsh/site-functions/_minicontainer": ("completion", "zsh"),
    "share/fish/vendor_completions.d/minicontainer.fish": ("completion", "fish"),
}


def done(*words: str | Path, cwd: Path) -> str:
    """What a command prints that succeeds."""
    made = subprocess.run(
        list(map(str, words)), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is checked out, but for what is hidden."""
    place = tmp_path_factory.mktemp("source") / "minicontainer"
    place.mkdir()
    for name in ("bin", "minicontainer", "csrc", "docs", "tests", "examples", "findings"):
        shutil.copytree(PROJECT / name, place / name, symlinks=True, ignore=shutil.ignore_patterns(*MADE))
    for file in PROJECT.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, place)
    return place


@pytest.fixture(scope="module")
def archive(source: Path) -> Path:
    """Its sdist."""
    done(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    (found,) = source.glob("dist/*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    """The wheel that is made of it."""
    words = ("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", ".", archive)
    done(sys.executable, "-m", "pip", *words, cwd=archive.parent)
    (found,) = archive.parent.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A virtual environment with nothing but the wheel, that sees our dependencies."""
    place = wheel.parent / "venv"
    done(sys.executable, "-m", "venv", place, cwd=wheel.parent)
    done(place / "bin/pip", "install", "-q", "--no-index", "--no-deps", wheel, cwd=wheel.parent)
    (packages,) = place.glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n", encoding="utf-8")
    return place


def test_the_source_archive_has_the_sources_and_what_tells_of_them(source: Path, archive: Path) -> None:
    metadata = re.compile(r"(minicontainer\.egg-info/.*|PKG-INFO|setup\.cfg)")
    with tarfile.open(archive) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith(("dist/", "minicontainer.egg-info/"))}
    assert {name for name in names if not metadata.fullmatch(name)} == files


def test_the_wheel_has_helpers_guests_man_page_and_completion(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as found:
        names = found.namelist()
    for name in SHARED:
        assert [path for path in names if path.endswith(f".data/data/{name}")], name
    for name in ("init", "monitor", "enter", "probe", *(f"guests/{guest}" for guest in guests.names())):
        assert f"minicontainer/libexec/{name}" in names
    files = "_libseccomp.py _libnftables.py _libzstd.py _native.abi3.so container/seccomp/default.json py.typed"
    for name in files.split():
        assert f"minicontainer/{name}" in names


def test_what_is_installed_says_what_the_command_says(installed: Path) -> None:
    for name, words in SHARED.items():
        text = (installed / name).read_text(encoding="utf-8")
        assert text == done(installed / "bin/minicontainer", *words, cwd=installed)
        assert "minicontainer" in text
    done("bash", "-n", installed / "share/bash-completion/completions/minicontainer", cwd=installed)
    shown = (
        done("man", "-l", installed / "share/man/man1/minicontainer.1", cwd=installed) if shutil.which("man") else ""
    )
    assert not shown or "kvm-boot" in shown


def test_the_installed_command_is_a_light_script_of_its_own_python(installed: Path) -> None:
    """What pip writes for an entry point may import re (findings/pip-scripts.sh)."""
    first, *lines = (installed / "bin/minicontainer").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(rf"#!{installed}/bin/python[0-9.]*", first)
    assert [line for line in lines if "import" in line and line[0] != "#"] == [
        "from minicontainer.__main__ import main"
    ]
    link = installed.parent / "link"
    link.symlink_to(installed / "bin/minicontainer")
    assert done(link, "version", cwd=installed) == done(
        installed / "bin/python", "-m", "minicontainer", "version", cwd=installed
    )


@pytest.mark.needs("root", "cgroup2")
def test_the_installed_command_works(installed: Path, rootfs: Path) -> None:
    command = installed / "bin/minicontainer"
    where = done(installed / "bin/python", "-c", "import minicontainer; print(minicontainer.__file__)", cwd=installed)
    assert where.startswith(str(installed))
    assert done(command, "run", rootfs, "echo", "from a wheel", cwd=installed) == "from a wheel\n"
    ident = done(command, "run", "-d", rootfs, "sleep", "1000", cwd=installed).strip()
    try:
        assert done(command, "exec", ident, "echo", "inside", cwd=installed) == "inside\n"
    finally:
        done(command, "rm", "-f", ident, cwd=installed)


@pytest.mark.needs("kvm")
def test_the_installed_command_boots_a_guest(installed: Path) -> None:
    assert done(installed / "bin/minicontainer", "kvm-boot", "hello", cwd=installed) == "Hello from real mode.\n"
