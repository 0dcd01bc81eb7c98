/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/quote.c: a value in a message, as the command line shows it (quote() in minicontainer/errors.py): unchanged
 * if it is printable and without spaces, else as Python's repr shows the text that os.fsdecode() makes of the bytes.
 */
#include "compiled/compiled.h"

#define SHOWN_MAX 200 /* characters of a value; of a longer one, the first SHOWN_CUT */
#define SHOWN_CUT 180
#define ESCAPED 0xdc00u /* and a byte: what Python makes of a byte that is not UTF-8 (PEP 383) */

/* What of Unicode is assigned and not printable (str.isprintable()): other spaces than ' ', and what is itself
 * invisible, but changes the direction or the place of what follows. */
static const struct {
	uint32_t first, last;
} unprintable[] = {
	{ 0, 0x1f },         { 0x7f, 0xa0 },      { 0xad, 0xad },       { 0x600, 0x605 },     { 0x61c, 0x61c },
	{ 0x6dd, 0x6dd },    { 0x70f, 0x70f },    { 0x890, 0x891 },     { 0x8e2, 0x8e2 },     { 0x1680, 0x1680 },
	{ 0x180e, 0x180e },  { 0x2000, 0x200f },  { 0x2028, 0x202f },   { 0x205f, 0x206f },   { 0x3000, 0x3000 },
	{ 0xd800, 0xf8ff },  { 0xfeff, 0xfeff },  { 0xfff9, 0xfffb },   { 0x110bd, 0x110bd }, { 0x110cd, 0x110cd },
	{ 0x13430, 0x1343f }, { 0x1bca0, 0x1bca3 }, { 0x1d173, 0x1d17a }, { 0xe0001, 0xe007f }, { 0xf0000, 0x10ffff },
};

static int is_printable(uint32_t code)
{
	for (size_t i = 0; i < sizeof(unprintable) / sizeof(*unprintable); i++)
		if (code >= unprintable[i].first && code <= unprintable[i].last)
			return 0;
	return 1;
}

/* The character at `text`, and how many bytes it takes (utf-8(7)). */
static uint32_t decode(const char *text, size_t *size)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 }; /* of so many bytes */
	const unsigned char *byte = (const unsigned char *)text, first = *byte;
	const size_t n = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	uint32_t code = n == 1 ? first : first & (0x7fu >> n);
	int is_valid = n == 1 || (first >= 0xc0 && first < 0xf8);

	for (size_t i = 1; i < n && is_valid; i++) {
		is_valid = (byte[i] & 0xc0) == 0x80;
		code = code << 6 | (byte[i] & 0x3f);
	}
	is_valid = is_valid && code >= least[n] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
	*size = is_valid ? n : 1;
	return is_valid ? code : ESCAPED + first;
}

static void put_code(struct text *t, uint32_t code)
{
	if (code < 0x100)
		put(t, "\\x"), put_hex(t, code, 2);
	else if (code < 0x10000)
		put(t, "\\u"), put_hex(t, code, 4);
	else
		put(t, "\\U"), put_hex(t, code, 8);
}

static void put_escaped(struct text *t, const char *text, const char *end, char quote)
{
	for (size_t size; text < end; text += size) {
		const uint32_t code = decode(text, &size);

		if (code == (unsigned char)quote || code == '\\')
			put(t, "\\");
		if (code == '\n')
			put(t, "\\n");
		else if (code == '\r')
			put(t, "\\r");
		else if (code == '\t')
			put(t, "\\t");
		else if (!is_printable(code))
			put_code(t, code);
		else
			put_bytes(t, text, size);
	}
}

/* As repr: double quotes only around a text with single ones and no double ones. */
static char quote_for(const char *text, const char *end)
{
	int has_single = 0;

	for (; text < end; text++) {
		if (*text == '"')
			return '\'';
		has_single |= *text == '\'';
	}
	return has_single ? '"' : '\'';
}

void put_quoted(struct text *t, const char *text)
{
	const char *end = text, *cut = text;
	int64_t characters = 0;
	int is_plain = *text != 0;
	char quote;

	for (size_t size; *end; end += size) {
		const uint32_t code = decode(end, &size);

		is_plain &= code != ' ' && is_printable(code);
		cut = characters++ == SHOWN_CUT ? end : cut;
	}
	cut = characters > SHOWN_MAX ? cut : end;
	quote = quote_for(text, cut);
	if (is_plain) {
		put_bytes(t, text, (size_t)(cut - text));
	} else {
		put_bytes(t, &quote, 1);
		put_escaped(t, text, cut, quote);
	}
	if (cut < end) {
		put(t, "...(");
		put_number(t, characters);
		put(t, " characters)");
	}
	put_bytes(t, &quote, !is_plain);
}
