"""Root file systems from the host's static busybox, and from untrusted tar archives.

    from minicontainer import rootfs

    rootfs.busybox("rootfs/")
    report = rootfs.tar("layer.tar.gz", "layer/", limit=2 << 30)
    report.members, report.size, report.notes

``staging`` creates a directory completely or not at all, ``removal`` removes a tree, ``stream`` and ``archive`` read an
archive, ``tree`` confines every path to the directory, ``extract`` unpacks the members.
"""

from minicontainer.rootfs.applets import busybox
from minicontainer.rootfs.extract import MEMBERS, SIZE, Note, Report, tar
from minicontainer.rootfs.stream import ArchiveError

__all__ = ["MEMBERS", "SIZE", "ArchiveError", "Note", "Report", "busybox", "tar"]
