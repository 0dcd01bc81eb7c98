"""The asyncio API, as ``asyncio.create_subprocess_exec``::

    p = await mc.create_container_exec("/bin/sh", "-c", "cat", rootfs="rootfs/", stdin=mc.PIPE, stdout=mc.PIPE)
    out, err = await p.communicate(b"hi")

A worker thread starts the container (Popen blocks until the program runs, a fraction of a millisecond). The loop waits
for the pidfd; the pipes are asyncio's streams. A start that is cancelled, or a task cancelled within ``async with``,
leaves no container; as in asyncio, a cancelled ``wait`` or ``communicate`` leaves it running.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from minicontainer.container.process import Popen
from minicontainer.container.result import Usage
from minicontainer.container.stdio.communicate import CHUNK, Captured
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicontainer.spec.keywords import AsyncioKeywords


class Container:
    """As asyncio.subprocess.Process: ``stdin`` (StreamWriter), ``stdout``, ``stderr`` (StreamReader), ``wait`` ..."""

    def __init__(self, popen: Popen[bytes]) -> None:
        self.popen = popen
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []

    def __repr__(self) -> str:
        return f"<minicontainer.container.asyncio.Container: returncode: {self.returncode} args: {self.popen.args!r}>"

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self.popen.pidfd, self._end, loop)
        for name in ("stdout", "stderr"):
            pipe = getattr(self.popen, name)
            if pipe is not None:
                reader = asyncio.StreamReader(loop=loop)
                protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
                transport, _ = await loop.connect_read_pipe(lambda p=protocol: p, pipe)  # type: ignore[misc]
                self._transports.append(transport)
                setattr(self, name, reader)
        if self.popen.stdin is not None:
            # StreamWriter.drain needs a protocol with flow control; its reader is unused
            flow = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
            writer, _ = await loop.connect_write_pipe(lambda: flow, self.popen.stdin)
            self._transports.append(writer)
            self.stdin = asyncio.StreamWriter(writer, flow, None, loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reaps process 1, which has ended, and wakes the tasks that wait."""
        loop.remove_reader(self.popen.pidfd)
        try:
            self.popen.poll()
        except Exception as e:
            if not self._ended.done():
                self._ended.set_exception(e)
        else:
            if not self._ended.done():
                self._ended.set_result(None)

    @property
    def pid(self) -> int:
        """The process id of the container's process 1, in the caller's pid namespace."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """The return code of process 1; None while it runs."""
        return self.popen.returncode

    @property
    def reason(self) -> str:
        """As Popen's."""
        return self.popen.reason

    def usage(self) -> Usage:
        """As Popen's."""
        return self.popen.usage()

    def send_signal(self, number: int) -> None:
        """Sends a signal to process 1."""
        self.popen.send_signal(number)

    def terminate(self) -> None:
        """Sends the spec's stop signal to process 1."""
        self.popen.terminate()

    def kill(self) -> None:
        """Kills every process of the container."""
        self.popen.kill()

    async def wait(self) -> int:
        """Waits for process 1 to end; returns its return code."""
        await asyncio.shield(self._ended)
        assert self.popen.returncode is not None
        return self.popen.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """Writes stdin, reads stdout and stderr to their end (None for one that is no pipe), and waits. ``popen.lost``
        counts the bytes beyond ``max_output``."""
        write = self._write(input) if self.stdin is not None else _nothing()
        _, out, err = await asyncio.gather(write, self._read("stdout"), self._read("stderr"))
        await self.wait()
        self.close()
        return out, err  # type: ignore[return-value]  # as Popen.communicate

    async def _read(self, name: str) -> bytes | None:
        """Reads an output to its end; returns the first ``max_output`` bytes."""
        stream: asyncio.StreamReader | None = getattr(self, name)
        if stream is None:
            return None
        captured = Captured(name, self.popen.lost, self.popen.max_output)
        while data := await stream.read(CHUNK):
            captured.add(data)
        return captured.data()

    async def _write(self, data: bytes | None) -> None:
        assert self.stdin is not None
        try:
            self.stdin.write(data or b"")
            await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the program does not read its input; ignored, as in subprocess
        self.stdin.close()

    def close(self) -> None:
        """Closes the streams."""
        for transport in self._transports:
            if transport.is_closing():
                continue
            transport.abort() if isinstance(transport, asyncio.WriteTransport) else transport.close()
        self.popen.close()

    async def _kill(self) -> None:
        """Kills and reaps the container, even if this task is cancelled meanwhile."""
        self.kill()
        while not self._ended.done():
            try:
                await asyncio.wait([self._ended])
            except asyncio.CancelledError:
                pass

    async def __aenter__(self) -> Container:
        return self

    async def __aexit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """As Popen's: an exception (a cancellation too) kills the container; without one, waits for its end."""
        try:
            if kind is None:
                if self.stdin is not None:
                    self.stdin.close()
                await self.wait()
        finally:
            if self.returncode is None:
                await self._kill()
            self.close()


async def _nothing() -> None:
    return None


async def create_container_exec(program: str | Spec, *args: str, **keywords: Unpack[AsyncioKeywords]) -> Container:
    """Starts a container. Keywords are those of Popen; the streams are bytes, as in asyncio."""
    if keywords.keys() & {"text", "encoding", "errors"}:
        raise ValueError("streams are bytes, as those of asyncio.create_subprocess_exec")
    command = program if isinstance(program, Spec) else [program, *args]
    loop = asyncio.get_running_loop()
    starting = loop.run_in_executor(None, lambda: Popen(command, **keywords))
    try:
        container = Container(await asyncio.shield(starting))
        await container._connect()
    except BaseException:
        await _undo(starting)
        raise
    return container


async def _undo(starting: asyncio.Future[Popen[bytes]]) -> None:
    """Waits for the thread, which cannot be cancelled, and ends the container that it started."""
    while not starting.done():
        try:
            await asyncio.wait([starting])
        except asyncio.CancelledError:
            pass
    if starting.exception() is None:
        popen = starting.result()
        asyncio.get_running_loop().remove_reader(popen.pidfd)
        popen.kill()
        popen.wait()
        popen.close()
