"""Root file systems: from the host's static busybox, and from tar archives that nobody vouches for.

    from minicontainer import rootfs

    rootfs.busybox("rootfs/")
    report = rootfs.tar("layer.tar.gz", "layer/", limit=2 << 30)
    report.members, report.size, report.notes

``staging`` makes a directory whole or not at all, ``removal`` takes a tree away, ``stream`` and ``archive`` read an
archive, ``tree`` keeps every path inside, ``extract`` puts the members there.
"""

from minicontainer.rootfs.applets import busybox
from minicontainer.rootfs.extract import MEMBERS, SIZE, Note, Report, tar
from minicontainer.rootfs.stream import ArchiveError

__all__ = ["MEMBERS", "SIZE", "ArchiveError", "Note", "Report", "busybox", "tar"]
