# Two commands: `make demo` shows a container and a machine on a fresh Debian or Ubuntu, `make test` runs the whole suite.
# Both install what is missing (as root, or with sudo), and cost nothing when all is there.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ROOT   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT    := gcc libc6-dev python3-dev python3-venv libcap-dev libseccomp2 libnftables1 libzstd1 busybox-static
APT_TEST := slirp4netns passt qemu-system-x86 kmod e2fsprogs erofs-utils iproute2 iputils-ping uidmap strace gdb
SOURCES := $(wildcard csrc/*.* csrc/*/*.* csrc/*/*/*.*) bin/minicontainer setup.py pyproject.toml
.DEFAULT_GOAL := help
.PHONY: help demo test build lint clean

# $(call packages,NAMES): installs those that are missing, and says which. Only Debian's tools are known here.
define packages
@missing=$$(for p in $(1); do dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	[ -z "$$missing" ] || { echo "installing:" $$missing; \
	  DEBIAN_FRONTEND=noninteractive $(ROOT) sh -c 'apt-get install -qy --no-install-recommends $$0 "$$@" >/dev/null || \
	    { apt-get -q update && apt-get install -qy --no-install-recommends $$0 "$$@" >/dev/null; }' $$missing; }
endef

help:
	@echo "make demo   a container and a virtual machine, and the primitives they are made of"
	@echo "make test   unit tests, native tests as root, and tests on a real kernel in a virtual machine"
	@echo "make build  the extension and the static helpers, after a change in csrc/"
	@echo "make lint   ruff and mypy"

demo: $(VENV)/.built rootfs
	$(ROOT) $(BIN)/minicontainer run --explain rootfs/ /bin/sh -c \
	    'echo "hello from process $$$$ of $$(hostname), as uid $$(id -u)"; ps; ls /; ip link'
	@if [ -e /dev/kvm ] && [ "$$(uname -m)" = x86_64 ]; then set -x; $(ROOT) $(BIN)/minicontainer kvm-boot --explain hello; \
	else echo "no virtual machine: /dev/kvm of an x86_64 host is missing (minicontainer doctor says more)"; fi

test: $(VENV)/.test
	$(BIN)/python tests/run.py

build: $(VENV)/.built

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

rootfs: $(VENV)/.built
	$(BIN)/minicontainer rootfs busybox rootfs
	@touch rootfs

$(VENV)/.built: $(SOURCES)
	$(call packages,$(APT))
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --config-settings editable_mode=compat --editable .
	$(BIN)/python -m compileall -q minicontainer
	@mkdir -p $(VENV)/share/man/man1 && $(BIN)/minicontainer manual > $(VENV)/share/man/man1/minicontainer.1
	@touch $@

$(VENV)/.test: $(VENV)/.built
	$(call packages,$(APT_TEST))
	$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --config-settings editable_mode=compat --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info rootfs minicontainer/_native.abi3.so minicontainer/_libseccomp.py minicontainer/_libnftables.py minicontainer/_libzstd.py minicontainer/libexec
