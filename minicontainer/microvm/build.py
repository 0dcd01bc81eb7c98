"""How a kernel was built: an option by its configuration, or by a string of its image."""

from __future__ import annotations

from minicontainer.errors import as_step_error
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.light import ExitStack
from minicontainer.microvm import kernelimage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.microvm.features import Feature
    from minicontainer.microvm.kernelfile import LinuxKernel

CONFIG_MAX = 4 << 20
BUILT_IN, MODULE, MISSING, UNKNOWN = "built in", "module", "missing", "unknown"
VALUES = {"y": BUILT_IN, "m": MODULE}


class Build:
    """``with Build(kernel) as build``. The image is unpacked only where the configuration is in no file."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._open = ExitStack()
        self._options: dict[str, str] | None = None
        self._image: Any = None
        self._is_read = False

    def __enter__(self) -> Build:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def state(self, feature: Feature) -> str:
        """BUILT_IN, MODULE, MISSING or UNKNOWN."""
        self._read()
        if self._options is not None:
            return VALUES.get(self._options.get(feature.option, ""), MISSING)
        if self._image is None or not feature.marks:
            return UNKNOWN
        if any(self._image.find(mark) >= 0 for mark in feature.marks):
            return BUILT_IN
        return MISSING

    def value(self, option: str) -> str:
        """The value of an option of the configuration; "" also where that cannot be read."""
        self._read()
        return (self._options or {}).get(option, "")

    def _read(self) -> None:
        if self._is_read:
            return
        self._is_read = True
        if self._kernel.config is not None:
            text = _text_of(self._kernel.config)
        else:
            self._image = self._open_image()
            text = kernelimage.configuration(self._image) if self._image is not None else ""
        if text:
            self._options = options(text)

    def _open_image(self) -> Any:
        enter = self._open.enter_context
        inner = enter(kernelimage.unpacked(enter(Kernel(self._kernel.path))))
        return None if inner is None else enter(kernelimage.content(inner))


def _text_of(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(CONFIG_MAX).decode("latin-1")
    except OSError as e:
        raise as_step_error(e, f"read({path!r})") from None


def options(text: str) -> dict[str, str]:
    """The options of a configuration that are set, with their values."""
    lines = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {name: value.strip() for name, equals, value in lines if equals}
