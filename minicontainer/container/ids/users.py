"""Resolves user and group names by the container's /etc/passwd and /etc/group, also where a volume covers them."""

from __future__ import annotations

import os
import stat

from minicontainer.container.host import Identity
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.spec.values import ID_MAX, is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.filesystem.view import View
    from minicontainer.spec import Spec

Lines = list[list[str]]
BYTES_MAX = 2**20  # bytes that are read of each file


def identity(spec: Spec, userns: str) -> Identity:
    """Resolves ``spec.user`` and ``spec.group_add``; without either, root (with ``keep-id``, the caller).

    As in docker: a number is never a name. Without a group, a user with an entry gets the entry's group, and the groups
    of /etc/group that list the user. A group without a user is root's."""
    if spec.user is None and not spec.group_add and userns != "keep-id":
        return Identity()
    from minicontainer.container.filesystem.view import View

    with View(spec) as view:
        users, groups = _read(view, "/etc/passwd"), _read(view, "/etc/group")
    default = f"{os.geteuid()}:{os.getegid()}" if userns == "keep-id" else "0"
    name, _, group = str(default if spec.user is None else spec.user).partition(":")
    name = name or "0"
    entry = _user(name, users)
    uid = int(entry[2]) if entry else int(name)
    gid = _group("user", group, groups) if group else int(entry[3]) if entry else 0
    member = [int(g[2]) for g in groups if entry and not group and entry[0] in g[3].split(",")]
    extra = [_group("group_add", str(g), groups) for g in spec.group_add]
    home = entry[5] if entry and len(entry) > 5 and entry[5] else ("/root" if uid == 0 else "/")
    return Identity(uid, gid, tuple(dict.fromkeys(member + extra)), home)


def check_mapped(spec: Spec, identity: Identity, maps: tuple[str, str]) -> None:
    """UnsupportedError where ``maps``, of one id each, do not map the program's user and group, or the spec adds
    groups."""
    remedy = "install newuidmap and newgidmap, with ranges in /etc/subuid and /etc/subgid"
    if os.geteuid() == 0:
        remedy = "map more in the user namespace that this is run in"
    inside = tuple(int(text.split()[0]) for text in maps)
    if (identity.uid, identity.gid) != inside:
        reason = "only {}:{} is mapped in this user namespace".format(*inside)
        raise UnsupportedError("user", spec.user or f"{identity.uid}:{identity.gid}", reason, remedy)
    if spec.group_add:
        names = ",".join(map(str, spec.group_add))
        raise UnsupportedError("group_add", names, "no further group is mapped", remedy)


def _read(view: View, path: str) -> Lines:
    """The fields of each line of a colon-separated file of the container; [] where the file is missing.

    Only a regular file is opened, and none of the kernel's: opening a device can have effects. A file with a lease
    (fcntl(2), F_SETLEASE) is an UnsupportedError: the open would wait for its holder."""
    from minicontainer.container.filesystem.view import MISSING
    from minicontainer.linux.files import reopen
    from minicontainer.linux.mounts import is_kernel_filesystem

    try:
        place = view.find(path)
        if place.fd == MISSING or not stat.S_ISREG(os.fstat(place.fd).st_mode) or is_kernel_filesystem(place.fd):
            return []
        with open(reopen(place.fd, os.O_RDONLY), "rb") as file:
            lines = file.read(BYTES_MAX).decode("utf-8", "surrogateescape").splitlines()
    except BlockingIOError as e:
        raise UnsupportedError("user", None, f"the container's {path}: {e.strerror}", "once more") from None
    except OSError:
        return []
    fields = [line.split(":") for line in lines if "\0" not in line]
    return [f for f in fields if len(f) >= 4 and _is_id(f[2])]


def _is_id(text: str) -> bool:
    return is_digits(text, 10) and int(text) <= ID_MAX


def _user(name: str, users: Lines) -> list[str] | None:
    users = [u for u in users if _is_id(u[3])]
    matches = [u for u in users if (int(u[2]) == int(name) if _is_id(name) else u[0] == name)]
    if not matches and not _is_id(name):
        raise SpecError("user", name, "is not in the container's /etc/passwd", "give a number: --user 1000:1000")
    return matches[0] if matches else None


def _group(what: str, name: str, groups: Lines) -> int:
    if _is_id(name):
        return int(name)
    for entry in groups:
        if entry[0] == name:
            return int(entry[2])
    raise SpecError(what, name, "is not in the container's /etc/group", "give a number")
