"""The cffi builder of ``minicontainer._native`` (out-of-line API mode, one extension).

The declarations are the text between the CDEF marks of the headers, and the names between the NAMES marks: kernel
constants, declared as ``#define NAME ...``, whose values the C compiler fills in; so are those of the macros between
the STRINGS marks. Virtual machines (``kvm/``) are for x86_64 alone.
"""

import platform
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
PLAN = "check clone dumpable exec identity lay mountpoint netlink now packet parent program spawn walk".split()
SOURCES = [f"plan/{name}.c" for name in PLAN] + [f"start/{name}.c" for name in ("caller", "measure", "place")]
HEADERS = ["plan/native.h", "start/start.h", "monitor/shared.h", "compiled/payload.h", "plan/constants.h"]
FLAGS = [
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror=incompatible-pointer-types",
    "-Werror=implicit-function-declaration", "-Werror=int-conversion", "-Wno-missing-field-initializers",
    "-Wno-unused-function",
]  # fmt: skip
if platform.machine() == "x86_64":
    SOURCES += [f"kvm/{name}.c" for name in ("exits", "lz4", "serial", "vcpu")]
    HEADERS += ["kvm/vcpu.h", "kvm/kvm.h", "guest/control.h", "vmm/machine.h", "vmexec/vmexec.h"]


def marked(name: str, kind: str) -> str:
    """The text between the marks ``kind`` of a header; empty if it has no such marks."""
    text = (HERE / name).read_text(encoding="utf-8")
    return text.partition(f"/* {kind} BEGIN */")[2].partition(f"/* {kind} END */")[0]


def declare(ffi: FFI) -> None:
    """Structures, functions and constants of all headers."""
    for name in HEADERS:
        ffi.cdef(marked(name, "CDEF"))
        ffi.cdef("\n".join(f"#define {constant} ..." for constant in marked(name, "NAMES").split()))
        strings = re.findall(r"#define (\w+)", marked(name, "STRINGS"))
        ffi.cdef("\n".join(f"static char *const {string};" for string in strings))


ffibuilder = FFI()
declare(ffibuilder)
ffibuilder.set_source(
    "minicontainer._native",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=[str(HERE)],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread", "-lrt"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
