/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Flow correlation.
 */
#include "../kernel.h"

/* current, previous [Y, X, C], both with unit channels; empty [Y, X] is 1 where the raw previous
 * feature sums to zero. out [Y, X, taps * taps]: (dot / temperature - penalty where empty or
 * outside), softmax over the taps, displacement (k - taps / 2) * dilation. Rows are y. */
void correlation(const float *current, const float *previous, const uint8_t *empty, float *out,
                 i64 Y, i64 X, i64 channels, i64 taps, i64 dilation, float temperature,
                 float penalty, i64 begin, i64 end) {
  for (i64 y = begin; y < end; y++)
    for (i64 x = 0; x < X; x++) {
      const float *restrict here = current + (y * X + x) * channels;
      float *restrict score = out + (y * X + x) * taps * taps;
      float highest = -INFINITY;
      for (i64 k = 0; k < taps * taps; k++) {
        const i64 yy = y + (k / taps - taps / 2) * dilation, xx = x + (k % taps - taps / 2) * dilation;
        float value = -penalty;
        if (yy >= 0 && yy < Y && xx >= 0 && xx < X) {
          const float *restrict there = previous + (yy * X + xx) * channels;
          float lane[8] = {0}, dot = 0;
          i64 c = 0;
          for (; c + 8 <= channels; c += 8)
            for (int j = 0; j < 8; j++) lane[j] += here[c + j] * there[c + j];
          for (; c < channels; c++) dot += here[c] * there[c];
          for (int j = 0; j < 8; j++) dot += lane[j];
          value = dot / temperature - (empty[yy * X + xx] ? penalty : 0);
        }
        score[k] = value;
        if (value > highest) highest = value;
      }
      float sum = 0;
      for (i64 k = 0; k < taps * taps; k++) sum += score[k] = expf(score[k] - highest);
      for (i64 k = 0; k < taps * taps; k++) score[k] /= sum;
    }
}
