"""What machines and their parts show of themselves, and what ``load`` takes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicontainer.kvm import KernelError, Result
from minicontainer.kvm.boot.kernel import InMemory, Kernel
from minicontainer.kvm.registers import Registers
from minicontainer.native import ffi

STATE = bytes(ffi.sizeof("struct kvm_regs")), bytes(ffi.sizeof("struct kvm_sregs"))


def test_a_result_is_a_line() -> None:
    vcpu = ffi.new("struct mc_vcpu *")
    vcpu.counts[2] = 22  # KVM_EXIT_IO
    result = Result("halt", 0, "", 0, b"Hello\n" * 1000, 0, STATE, [(bytes(ffi.buffer(vcpu)), b"")], 0.25, 0.2)
    shown = repr(result)
    assert shown.startswith(
        "<minicontainer.kvm.Result: halt (0); exits: 22 io; 0.250000 s; output (6000 bytes): b'Hello"
    )
    assert len(shown) < 250


def test_a_result_whose_parts_are_cut_off_is_not_read_beyond_them() -> None:
    result = Result("halt", 0, "", 0, b"", 0, (STATE[0], STATE[1][:-1]), [(b"x", b"")], 0.25, 0.2)
    for read in (lambda: result.registers, lambda: result.exits):
        with pytest.raises(ValueError, match="too small"):
            read()


def test_registers_are_hexadecimal() -> None:
    assert repr(Registers(rip=0x7C00, rax=10)) == "{rip: 0x7c00, rax: 0xa}"
    assert Registers(rip=1) == {"rip": 1}


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [("/no/such", FileNotFoundError, 127), ("/etc/passwd/x", NotADirectoryError, 127), ("/" + "x" * 300, OSError, 126)],
)
def test_a_kernel_that_cannot_be_opened_is_python_s_error_too(path: str, kind: type[OSError], code: int) -> None:
    with pytest.raises(kind) as caught:
        Kernel(path)
    error = caught.value
    assert isinstance(error, KernelError)
    assert (error.exit_code, error.filename, error.path) == (code, path, path)
    assert str(error).startswith("kernel /")
    assert error.__cause__ is None


def test_a_kernel_that_is_none_is_no_error_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(KernelError, match="is empty") as caught:
        Kernel(str(tmp_path / "empty"))
    assert not isinstance(caught.value, OSError)
    with pytest.raises(KernelError, match="kernel <bytes>: is empty"):
        InMemory("<bytes>", b"")
