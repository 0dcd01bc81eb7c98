"""10. Many containers at once: threads share one spec, which is compiled once; asyncio waits for pidfds.

Run as root: python examples/10_many.py ROOTFS
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import minicontainer as mc

spec = mc.Spec(["/bin/sh", "-c", "echo $$ on $(hostname)"], rootfs=sys.argv[1] if len(sys.argv) > 1 else "rootfs")

with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(lambda _: mc.run(spec, capture_output=True, text=True), range(20)))
print(len(results), "by threads:", len({r.stdout for r in results}), "names, such as", results[0].stdout.strip())


async def one(n: int) -> bytes | None:
    p = await mc.create_container_exec(spec, stdout=mc.PIPE, hostname=f"box{n}")
    out, _ = await p.communicate()
    return out


async def main() -> None:
    outs = await asyncio.gather(*(one(n) for n in range(10)))
    print(len(outs), "by asyncio:", outs[7])


asyncio.run(main())

# expect: 20 by threads: 20 names, such as 1 on [0-9a-f]{12}
# expect: 10 by asyncio: b'1 on box7\\n'
