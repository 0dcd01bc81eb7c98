/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * bios: the part of a PC's firmware that a boot sector needs to print. It is not a guest: it is loaded at F000:0000
 * beside a boot sector or a multiboot kernel, and the interrupt vectors at address 0 point to it
 * (minicontainer/kvm/boot/bios.py). Real mode.
 *
 * INT 10h, AH = 0Eh: prints AL ("teletype"), here to the serial port, or to the screen if the machine has one. On a
 * screen there are also AH = 0: clears it (modes 0 to 3), 1: sets the cursor's shape to CX, 2: moves the cursor to line
 * DH and column DL, 3: returns both there, 9: writes AL with the attribute BL from the cursor on, CX times, 0Ah: with
 * the attributes that are there; and by what kernels know that it is a VGA (RBIL, INTERRUP.A): 0Fh: the mode, 12h with
 * BL = 10h: an EGA's memory, 1A00h: the display. INT 10h with another AH: does nothing. Every other interrupt: returns
 * with the carry flag set, a BIOS's "error". All other registers are preserved.
 */
#include "guest.h"

#define COLUMNS 80
#define LINES 25
#define BLANK 0x0720         /* a space, grey on black                                               */
#define TEXT_SEGMENT 0xb800
#define CRTC 0x3d4           /* index; data follow                                                   */
#define CURSOR_START 0x0a    /* indices: each of two bytes, the high one first                       */
#define CURSOR_LOCATION 0x0e
#define DATA_SEGMENT 0x40    /* of the BIOS data area                                                */
#define MODE 3               /* text in 80 columns, 16 colours                                       */
#define EGA_MEMORY 0x0003    /* colour; 256 KiB                                                      */
#define EGA_SWITCHES 9       /* a colour monitor                                                     */
#define VGA 8                /* with a colour monitor                                                */
#define POSITION 0x50        /* in it: column and line of the cursor                                 */
#define SHAPE 0x60           /* in it: its last and first scan line                                  */

	.code16
	.globl _start
_start:
	.word	video           /* the handler of INT 10h, without a screen                             */
	.word	other           /* that of all other interrupts                                         */
	.word	screen          /* the handler of INT 10h, with a screen                                */

video:
	cmp	$0x0e, %ah
	jne	1f
	push	%dx
	mov	$SERIAL, %dx
	out	%al, %dx
	pop	%dx
1:	iret

/* INT has pushed the flags, cs and ip; IRET pops them. So the carry flag is set in the flags on the stack. */
other:
	push	%bp
	mov	%sp, %bp
	orb	$1, 6(%bp)      /* above bp: bp itself, ip, cs, flags                   */
	pop	%bp
	iret

mode:
	mov	$COLUMNS << 8 | MODE, %ax
	xor	%bh, %bh        /* the page                                             */
	iret

ega:
	cmp	$0x10, %bl
	jne	1f
	mov	$EGA_MEMORY, %bx
	mov	$EGA_SWITCHES, %cx
1:	iret

display:
	test	%al, %al
	jnz	1f
	mov	$0x1a, %al      /* the call is known                                    */
	mov	$VGA, %bx
1:	iret

screen:
	cmp	$0x0f, %ah
	je	mode
	cmp	$0x12, %ah
	je	ega
	cmp	$0x1a, %ah
	je	display
	push	%ds
	push	$DATA_SEGMENT
	pop	%ds
	cmp	$0x03, %ah
	jne	1f
	mov	POSITION, %dx
	mov	SHAPE, %cx
	pop	%ds
	iret
1:	push	%es
	pusha
	push	$TEXT_SEGMENT
	pop	%es
	cld
	cmp	$0x0e, %ah
	je	teletype
	cmp	$0x02, %ah
	je	move
	cmp	$0x01, %ah
	je	shape
	cmp	$0x09, %ah
	je	write
	cmp	$0x0a, %ah
	je	write
	test	%ah, %ah
	jnz	done
	cmp	$0x03, %al      /* of the modes, text only                              */
	ja	done
	xor	%dx, %dx
	xor	%di, %di
	mov	$COLUMNS * LINES, %cx
	jmp	blank

shape:
	mov	%cx, SHAPE
	mov	%cx, %bx
	mov	$CURSOR_START, %al
	call	set
	jmp	done

/* The cursor stays. What is beyond the last cell is not written. */
write:
	mov	POSITION, %dx
	mov	%ax, %si
	call	place
	mov	$COLUMNS * LINES, %dx
	sub	%ax, %dx
	jbe	done
	cmp	%dx, %cx
	jbe	1f
	mov	%dx, %cx
1:	jcxz	done
	shl	$1, %ax
	mov	%ax, %di
	mov	%si, %ax
2:	stosb
	cmp	$0x09, %ah
	jne	3f
	mov	%bl, %es:(%di)
3:	inc	%di
	loop	2b
	jmp	done

teletype:
	mov	POSITION, %dx
	cmp	$'\r', %al
	je	start
	cmp	$'\n', %al
	je	feed
	cmp	$8, %al          /* backspace                                           */
	je	back
	cmp	$7, %al          /* the bell                                            */
	je	done
	mov	%al, %cl
	call	place
	shl	$1, %ax
	mov	%ax, %di
	mov	%cl, %es:(%di)  /* the attribute stays                                  */
	inc	%dl
	cmp	$COLUMNS, %dl
	jb	move
	xor	%dl, %dl
feed:
	inc	%dh
	cmp	$LINES, %dh
	jb	move
	mov	$LINES - 1, %dh /* scroll: each line moves to the one above it          */
	mov	$2 * COLUMNS, %si
	xor	%di, %di
	mov	$COLUMNS * (LINES - 1), %cx
	rep movsw %es:(%si), %es:(%di)
	mov	$COLUMNS, %cx
blank:
	mov	$BLANK, %ax
	rep stosw
	jmp	move
start:
	mov	$1, %dl
back:
	sub	$1, %dl
	jae	move
	inc	%dl
move:
	mov	%dx, POSITION
	call	place
	mov	%ax, %bx
	mov	$CURSOR_LOCATION, %al
	call	set
done:
	popa
	pop	%es
	pop	%ds
	iret

/* ax = the number of the cell at line dh and column dl. */
place:
	mov	$COLUMNS, %al
	mul	%dh
	add	%dl, %al
	adc	$0, %ah
	ret

/* Sets the registers al and al + 1 of the CRTC to bh and bl. */
set:
	mov	$CRTC, %dx
	mov	%bh, %ah
	out	%ax, %dx
	inc	%al
	mov	%bl, %ah
	out	%ax, %dx
	ret
