"""The cffi builder of ``minicontainer._native`` (out-of-line API mode, one extension).

The part of ``native.h`` between the CDEF marks is the declaration; the names between those of ``constants.h``
are declared as ``#define NAME ...``, so that the compiler fills in the kernel's values and none is typed here.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = ("plan.c", "exec.c", "clone.c", "spawn.c")
FLAGS = [
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror=incompatible-pointer-types",
    "-Werror=implicit-function-declaration", "-Werror=int-conversion", "-Wno-missing-field-initializers",
    "-Wno-unused-function",
]  # fmt: skip


def marked(name: str) -> str:
    """The declarations of one header: what lies between its CDEF marks."""
    text = (HERE / name).read_text(encoding="utf-8")
    return text.split("/* CDEF BEGIN */")[1].split("/* CDEF END */")[0]


ffibuilder = FFI()
ffibuilder.cdef(marked("native.h"))
ffibuilder.cdef("\n".join(f"#define {name} ..." for name in marked("constants.h").split()))
ffibuilder.set_source(
    "minicontainer._native",
    '#include "native.h"\n#include "constants.h"\n',
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=[str(HERE)],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
