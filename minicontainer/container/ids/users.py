"""Names of users and groups, as the container will know them: by the files that it will see, a volume's too."""

from __future__ import annotations

import os
import re
import stat

from minicontainer.container.filesystem.view import EMPTY, View
from minicontainer.container.host import Identity
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux.files import opened_anew
from minicontainer.linux.mounts import is_kernels
from minicontainer.spec import ID_MAX, Spec

Lines = list[list[str]]
MOST = 2**20  # bytes of such a file that are read


def identity(spec: Spec, userns: str) -> Identity:
    """Resolves ``spec.user`` and ``spec.group_add``; without either, root (the caller, with ``keep-id``).

    As docker does it: a number is never a name; who has an entry has its group, and those of /etc/group that name him,
    unless a group is given; a group alone is root's."""
    if spec.user is None and not spec.group_add and userns != "keep-id":
        return Identity()
    with View(spec) as view:
        users, groups = _read(view, "/etc/passwd"), _read(view, "/etc/group")
    own = f"{os.geteuid()}:{os.getegid()}" if userns == "keep-id" else "0"
    name, _, group = str(own if spec.user is None else spec.user).partition(":")
    name = name or "0"
    entry = _user(name, users)
    uid = int(entry[2]) if entry else int(name)
    gid = _group("user", group, groups) if group else int(entry[3]) if entry else 0
    member = [int(g[2]) for g in groups if entry and not group and entry[0] in g[3].split(",")]
    extra = [_group("group_add", str(g), groups) for g in spec.group_add]
    home = entry[5] if entry and len(entry) > 5 and entry[5] else ("/root" if uid == 0 else "/")
    return Identity(uid, gid, tuple(dict.fromkeys(member + extra)), home)


def check_mapped(spec: Spec, who: Identity, maps: tuple[str, str]) -> None:
    """With one id mapped (``maps``) the program can be no other, and can have no further group."""
    remedy = "install newuidmap and newgidmap, with ranges in /etc/subuid and /etc/subgid"
    if os.geteuid() == 0:
        remedy = "map more in the user namespace that this is run in"
    inside = tuple(int(text.split()[0]) for text in maps)
    if (who.uid, who.gid) != inside:
        reason = "only {}:{} is mapped in this user namespace".format(*inside)
        raise UnsupportedError("user", spec.user or f"{who.uid}:{who.gid}", reason, remedy)
    if spec.group_add:
        names = ",".join(map(str, spec.group_add))
        raise UnsupportedError("group_add", names, "no further group is mapped", remedy)


def _read(view: View, path: str) -> Lines:
    """The lines of a colon-separated file of the container; [] if there is none.

    Nothing but a file is opened, and none of the kernel's: to open a device can be to act on it. A lease of it is not
    waited for (fcntl(2)), nor taken for that there is none."""
    try:
        place = view.find(path)
        if place.fd == EMPTY or not stat.S_ISREG(os.fstat(place.fd).st_mode) or is_kernels(place.fd):
            return []
        with open(opened_anew(place.fd, os.O_RDONLY), "rb") as file:
            lines = file.read(MOST).decode("utf-8", "surrogateescape").splitlines()
    except BlockingIOError as e:
        raise UnsupportedError("user", None, f"the container's {path}: {e.strerror}", "once more") from None
    except OSError:
        return []
    fields = [line.split(":") for line in lines if "\0" not in line]
    return [f for f in fields if len(f) >= 4 and _is_id(f[2])]


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,10}", text) is not None and int(text) <= ID_MAX


def _user(name: str, users: Lines) -> list[str] | None:
    users = [u for u in users if _is_id(u[3])]
    found = [u for u in users if (int(u[2]) == int(name) if _is_id(name) else u[0] == name)]
    if not found and not _is_id(name):
        raise SpecError("user", name, "is not in the container's /etc/passwd", "give a number: --user 1000:1000")
    return found[0] if found else None


def _group(what: str, name: str, groups: Lines) -> int:
    if _is_id(name):
        return int(name)
    for entry in groups:
        if entry[0] == name:
            return int(entry[2])
    raise SpecError(what, name, "is not in the container's /etc/group", "give a number")
