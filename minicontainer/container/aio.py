"""The asyncio form, in the shape of ``asyncio.create_subprocess_exec``::

    p = await mc.create_container_exec("/bin/sh", "-c", "cat", rootfs="rootfs/", stdin=mc.PIPE, stdout=mc.PIPE)
    out, err = await p.communicate(b"hi")

The container is started in a worker thread (its caller sleeps until the program runs, a fraction of a millisecond);
its end is a readable pidfd, its pipes are asyncio's streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

from minicontainer.container.process import Popen
from minicontainer.container.result import Usage
from minicontainer.spec import Spec


class Container:
    """As asyncio.subprocess.Process: ``stdin`` (StreamWriter), ``stdout``, ``stderr`` (StreamReader), ``wait`` ..."""

    def __init__(self, popen: Popen) -> None:
        self.popen = popen
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("stdout", "stderr"):
            pipe = getattr(self.popen, name)
            if pipe is not None:
                reader = asyncio.StreamReader(loop=loop)
                protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
                transport, _ = await loop.connect_read_pipe(lambda p=protocol: p, pipe)  # type: ignore[misc]
                self._transports.append(transport)
                setattr(self, name, reader)
        if self.popen.stdin is not None:
            writing, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, self.popen.stdin)
            self._transports.append(writing)
            self.stdin = asyncio.StreamWriter(writing, flow, None, loop)

    @property
    def pid(self) -> int:
        """Process 1 of the container, as the caller counts."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self.popen.returncode

    @property
    def reason(self) -> str:
        """As Popen's."""
        return self.popen.reason

    def usage(self) -> Usage:
        """As Popen's."""
        return self.popen.usage()

    def send_signal(self, number: int) -> None:
        """A signal to process 1."""
        self.popen.send_signal(number)

    def terminate(self) -> None:
        """The stop signal to process 1."""
        self.popen.terminate()

    def kill(self) -> None:
        """Ends the whole container."""
        self.popen.kill()

    async def wait(self) -> int:
        """The return code, when process 1 has ended."""
        if self.popen.poll() is None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            fd = self.popen.pidfd
            loop.add_reader(fd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(fd)
            self.popen.poll()
        assert self.popen.returncode is not None
        return self.popen.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Feeds stdin, reads both outputs to their end, waits."""
        feed = self._feed(input) if self.stdin is not None else _nothing()
        _, out, err = await asyncio.gather(feed, _read(self.stdout), _read(self.stderr))
        await self.wait()
        self.close()
        return out, err

    async def _feed(self, data: bytes | None) -> None:
        assert self.stdin is not None
        try:
            self.stdin.write(data or b"")
            await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # a program that does not read its input, as in subprocess
        self.stdin.close()

    def close(self) -> None:
        """Closes the streams."""
        for transport in self._transports:
            transport.close()
        self.popen.close()

    async def __aenter__(self) -> Container:
        return self

    async def __aexit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if self.returncode is None and kind is not None:
            self.kill()
        await self.wait()
        self.close()


async def _nothing() -> None:
    return None


async def _read(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


async def create_container_exec(program: str | Spec, *args: str, **keywords: Any) -> Container:
    """Starts a container; keywords are Popen's (bytes only, as asyncio's)."""
    if keywords.keys() & {"text", "encoding", "errors"}:
        raise ValueError("streams are bytes, as those of asyncio.create_subprocess_exec")
    what = program if isinstance(program, Spec) else [program, *args]
    loop = asyncio.get_running_loop()
    popen = await loop.run_in_executor(None, lambda: Popen(what, **keywords))
    container = Container(popen)
    try:
        await container._connect()
    except BaseException:
        popen.kill()
        popen.wait()
        container.close()
        raise
    return container
