#!/bin/sh
# QEMU's emulated processor (TCG; seen in 7.2.22 of Debian 12) sets bit 5, as if it were an accessed flag, in the entries of
# the page-directory-pointer table of PAE paging. Such an entry has none: bits 8:5 are reserved and must be 0 (Intel SDM
# volume 3, "Format of a PAE Page-Directory-Pointer-Table Entry"; AMD APM volume 2, "Legacy PAE"), and a processor that
# reloads the table, at a change of CR4 for example, faults on it. QEMU's does not mind, but KVM inside QEMU does, for its
# guests' tables with nested paging: Linux for i686 with PAE ends early there by a general protection fault at "mov %eax, %cr4".
#
# Needs gcc and qemu-system-x86 (the last line says which). Fails where the bit stays clear.
set -eu
directory=$(mktemp -d)
trap 'rm -r "$directory"' EXIT
cat > "$directory/kernel.S" <<'ASSEMBLER'
	.set TABLE, 0x200000			/* one entry, to a directory of two pages of 2 MiB */
	.long 0x1BADB002, 0, -0x1BADB002	/* multiboot */
	.globl _start
_start:	movl $TABLE, %edi
	xorl %eax, %eax
	movl $2048, %ecx
	rep stosl
	movl $(TABLE + 0x1000 + 1), TABLE	/* present */
	movl $0x83, TABLE + 0x1000		/* present, writable, large */
	movl $0x200083, TABLE + 0x1008
	movl $TABLE, %eax
	movl %eax, %cr3
	movl $0x20, %eax			/* PAE */
	movl %eax, %cr4
	movl %cr0, %eax
	orl $0x80000000, %eax			/* paging */
	movl %eax, %cr0
	movl TABLE, %eax			/* the entry, after it was used */
	andb $0x7F, %al
	outb %al, $0xF4
	hlt
ASSEMBLER
gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none -o "$directory/kernel" "$directory/kernel.S"
status=0
qemu-system-x86_64 -accel tcg -cpu max -m 16 -display none -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=1 \
	-kernel "$directory/kernel" || status=$?
entry=$((status >> 1)) # isa-debug-exit: twice the value, plus 1
printf 'the entry was written as 0x01, and reads 0x%02x after its use; %s\n' "$entry" "$(qemu-system-x86_64 --version | head -n 1)"
[ "$entry" = 33 ]
