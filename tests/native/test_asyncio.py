"""The asyncio form: as asyncio.create_subprocess_exec, for a container."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import minicontainer as mc

pytestmark = pytest.mark.needs("root")

create = mc.create_container_exec


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run in debug mode: a coroutine that was never awaited, a transport that was not closed is an error."""
    return asyncio.run(main, debug=True)


# ---- beside asyncio's own

Create = Callable[..., Awaitable[Any]]
TABLE: dict[str, Callable[[Create], Awaitable[Any]]] = {}


def case(function: Callable[[Create], Awaitable[Any]]) -> Callable[[Create], Awaitable[Any]]:
    TABLE[function.__name__] = function
    return function


@case
async def return_code(create: Create) -> Any:
    p = await create("/bin/sh", "-c", "exit 3")
    return p.returncode in (None, 3), await p.wait(), p.returncode, await p.wait()


@case
async def communicate(create: Create) -> Any:
    p = await create("/bin/sh", "-c", "cat; echo err >&2", stdin=-1, stdout=-1, stderr=-1)
    return await p.communicate(b"in\n"), p.returncode


@case
async def communicate_much(create: Create) -> Any:
    p = await create("/bin/cat", stdin=-1, stdout=-1)
    data = b"0123456789abcdef" * (1 << 16)
    out, err = await p.communicate(data)
    return out == data, err


@case
async def input_that_nobody_reads(create: Create) -> Any:
    p = await create("/bin/true", stdin=-1, stdout=-1)
    return await p.communicate(b"x" * (1 << 20)), p.returncode


@case
async def line_by_line(create: Create) -> Any:
    p = await create("/bin/sh", "-c", 'while read x; do echo "got $x"; done', stdin=-1, stdout=-1)
    answers = []
    for word in (b"a\n", b"b\n"):
        p.stdin.write(word)
        await p.stdin.drain()
        answers.append(await p.stdout.readline())
    p.stdin.close()
    await p.stdin.wait_closed()
    return answers, await p.stdout.read(), await p.wait()


@case
async def kill(create: Create) -> Any:
    p = await create("/bin/sleep", "60")
    p.kill()
    return await p.wait(), p.returncode


@case
async def many_waiters(create: Create) -> Any:
    p = await create("/bin/sleep", "0.2")
    return await asyncio.gather(*(p.wait() for _ in range(5)))


@case
async def timeout_of_wait_leaves_it_running(create: Create) -> Any:
    p = await create("/bin/cat", stdin=-1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(p.wait(), 0.1)
    before = p.returncode
    p.stdin.close()
    return before, await p.wait()


@case
async def not_found(create: Create) -> Any:
    with pytest.raises(OSError) as caught:
        await create("/no/such/program")
    return caught.value.errno


@case
async def text_is_refused(create: Create) -> Any:
    with pytest.raises(ValueError):
        await create("/bin/true", text=True)


@pytest.mark.parametrize("name", TABLE)
def test_as_asyncio(name: str, rootfs: Path) -> None:
    async def container(*args: str, **keywords: Any) -> Any:
        return await create(*args, rootfs=rootfs, **keywords)

    expected = run(TABLE[name](asyncio.create_subprocess_exec))  # type: ignore[arg-type]
    assert run(TABLE[name](container)) == expected  # type: ignore[arg-type]


def test_communicate_with_nothing_closes_the_input(rootfs: Path) -> None:
    """As asyncio does since Python 3.12."""

    async def main() -> Any:
        p = await create("/bin/cat", rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE)
        return await p.communicate()

    assert run(main()) == (b"", None)


# ---- many, and cancellation


def test_many_at_once(rootfs: Path) -> None:
    async def one(n: int) -> bytes:
        p = await create("/bin/sh", "-c", f"sleep 0.1; echo {n}", rootfs=rootfs, stdout=mc.PIPE)
        out, _ = await p.communicate()
        assert p.usage().walltime > 0
        return out or b""

    async def main() -> list[bytes]:
        return await asyncio.gather(*(one(n) for n in range(40)))

    assert run(main()) == [f"{n}\n".encode() for n in range(40)]


def test_the_loop_goes_on_while_containers_run(rootfs: Path) -> None:
    async def main() -> int:
        ticks = 0
        p = await create("/bin/sleep", "0.5", rootfs=rootfs)
        waiting = asyncio.ensure_future(p.wait())
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        p.close()
        return ticks

    assert run(main()) > 10


def test_a_cancelled_start_leaves_no_container(rootfs: Path) -> None:
    """At any moment: whether the clone is still to come, under way, or done."""

    async def main() -> int:
        cancelled = 0
        for n in range(30):
            task = asyncio.ensure_future(create("/bin/sleep", "60", rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE))
            await asyncio.sleep(n * 0.0004)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                cancelled += 1
            else:
                p = await task
                p.kill()
                await p.wait()
                p.close()
        return cancelled

    assert run(main()) > 3
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_cancelled_context_ends_the_container(rootfs: Path) -> None:
    seen = {}

    async def work() -> None:
        async with await create("/bin/sh", "-c", "sleep 60 & sleep 61", rootfs=rootfs, stdout=mc.PIPE) as p:
            seen["p"] = p
            assert repr(p).endswith("Container: returncode: None args: ['/bin/sh', '-c', 'sleep 60 & sleep 61']>")
            await p.communicate()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(work(), 0.3)

    run(main())
    assert seen["p"].returncode == -signal.SIGKILL
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_context_waits_for_the_end_with_its_input_closed(rootfs: Path) -> None:
    async def main() -> Any:
        async with await create("/bin/cat", rootfs=rootfs, stdin=mc.PIPE, stdout=mc.DEVNULL) as p:
            assert p.stdin is not None
            p.stdin.write(b"x")
        return p.returncode

    assert run(main()) == 0


def test_an_error_within_the_context_ends_the_container(rootfs: Path) -> None:
    async def main() -> Any:
        with pytest.raises(KeyError):
            async with await create("/bin/sleep", "60", rootfs=rootfs) as p:
                raise KeyError
        return p.returncode, p.reason

    assert run(main()) == (-signal.SIGKILL, "signal")


def test_a_spec_and_its_attributes(rootfs: Path) -> None:
    async def main() -> None:
        p = await create(mc.Spec(("/bin/cat",), rootfs=str(rootfs)), stdin=mc.PIPE, stdout=mc.PIPE)
        assert p.pid > 1
        assert p.reason == ""
        assert p.popen.pidfd > 2
        assert await p.communicate(b"x") == (b"x", None)  # type: ignore[comparison-overlap]
        assert p.reason == "exited"

    run(main())


def test_in_a_loop_of_another_thread(rootfs: Path) -> None:
    found: list[Any] = []

    async def main() -> None:
        p = await create("/bin/echo", "hi", rootfs=rootfs, stdout=mc.PIPE)
        found.append(await p.communicate())

    thread = threading.Thread(target=lambda: run(main()))
    thread.start()
    thread.join(20)
    assert found == [(b"hi\n", None)]


def test_a_hundred_leave_descriptors_flat(rootfs: Path) -> None:
    async def main() -> int:
        async def one() -> None:
            p = await create("/bin/echo", "x", rootfs=rootfs, stdout=mc.PIPE, stderr=mc.PIPE, stdin=mc.PIPE)
            await p.communicate(b"y")

        await one()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(10)))
        await asyncio.sleep(0.05)
        return len(os.listdir("/proc/self/fd")) - before

    assert run(main()) == 0


def test_max_output_of_communicate(rootfs: Path) -> None:
    async def main() -> None:
        p = await create("/bin/sh", "-c", "head -c 3000000 /dev/zero", rootfs=rootfs, stdout=mc.PIPE, max_output=1000)
        out, err = await p.communicate()
        assert (len(out or b""), err, p.returncode) == (1000, None, 0)  # type: ignore[comparison-overlap]
        assert p.popen.lost == {"stdout": 2_999_000, "stderr": 0}

    run(main())
