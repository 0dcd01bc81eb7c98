#!/bin/sh
# A package of a Debian kernel has every module, and modules.builtin and modules.order, but not modules.dep: depmod(8) makes
# it when the package is installed. In a package that was only unpacked modprobe(8) therefore finds no module by its name,
# not even with --dirname and --set-version. What a module depends on is in the module too (its section .modinfo).
#
# Seen with linux-image-6.1.0-50-cloud-amd64 6.1.176-1 and kmod 30 of Debian 12. Needs apt, dpkg-deb and kmod; downloads
# the cloud kernel of this release (the last line says which). Fails where the package has the file, or modprobe finds a module.
set -eu
directory=$(mktemp -d)
trap 'rm -r "$directory"' EXIT
cd "$directory"
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
apt-get download -qq "$package"
dpkg-deb -x ./*.deb unpacked
release=$(ls unpacked/lib/modules)
ls "unpacked/lib/modules/$release"
[ ! -e "unpacked/lib/modules/$release/modules.dep" ]
if modprobe --dirname unpacked --set-version "$release" --show-depends virtiofs; then
	exit 1
fi
modinfo --field depends "$(find unpacked -name 'virtiofs.ko*')" | grep fuse
depmod --basedir unpacked "$release" # what the installation would do
modprobe --dirname unpacked --set-version "$release" --show-depends virtiofs
echo "modules.dep is made by depmod alone: $(ls ./*.deb), $(modprobe --version | head -n 1)"
