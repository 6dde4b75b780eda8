/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Occupancy argmax.
 */
#include "../kernel.h"

/* score [rows, classes] -> label [rows], the first of the highest, plus `first`. */
void argmax_rows(const float *score, uint8_t *label, i64 classes, i64 first, i64 begin, i64 end) {
  for (i64 row = begin; row < end; row++) {
    const float *s = score + row * classes;
    i64 best = 0;
    float high = s[0];
    for (i64 c = 1; c < classes; c++)
      if (s[c] > high) high = s[c], best = c;
    label[row] = (uint8_t)(best + first);
  }
}
