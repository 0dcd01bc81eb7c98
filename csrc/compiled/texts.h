/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/texts.h: the texts of steps: four consecutive strings for each.
 */
#ifndef MC_COMPILED_TEXTS_H
#define MC_COMPILED_TEXTS_H

#include "compiled/compiled.h"

enum { TEXT_PHASE, TEXT_CALL, TEXT_LABEL, TEXT_HINT, TEXTS };

const char *step_text(const struct mc_compiled *c, uint32_t texts, uint32_t step, int which); /* "": there is none */
void put_call(struct text *t, const char *call, const char *id); /* a byte 1 in the text stands for the id */

#endif
