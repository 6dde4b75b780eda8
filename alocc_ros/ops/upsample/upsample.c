/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Sums of upsampled levels.
 */
#include "../kernel.h"

typedef struct {
  i64 low;
  float weight; /* of low + 1 */
} Step;

/* Position of output index i in a low-resolution axis, ends aligned with ends. */
static inline Step align(i64 i, i64 size_out, i64 size_in) {
  if (size_in == 1 || size_out == 1) return (Step){0, 0};
  const double s = (double)i * (size_in - 1) / (size_out - 1);
  i64 low = (i64)s;
  if (low > size_in - 2) low = size_in - 2;
  return (Step){low, (float)(s - low)};
}

/* out [Y, X, Z, C] = relu(out + sum over levels of trilinear(level)); level l is
 * [sizes[3l], sizes[3l+1], sizes[3l+2], C]. Rows are y. */
void upsample_add(float *out, const float *const *levels, const i64 *sizes, i64 count, i64 Y, i64 X,
                  i64 Z, i64 channels, int relu, i64 begin, i64 end) {
  for (i64 y = begin; y < end; y++)
    for (i64 x = 0; x < X; x++)
      for (i64 z = 0; z < Z; z++) {
        float *restrict cell = out + ((y * X + x) * Z + z) * channels;
        for (i64 l = 0; l < count; l++) {
          const i64 *size = sizes + 3 * l;
          const Step sy = align(y, Y, size[0]), sx = align(x, X, size[1]), sz = align(z, Z, size[2]);
          for (int corner = 0; corner < 8; corner++) {
            const float weight = (corner & 1 ? sy.weight : 1 - sy.weight) *
                                 (corner >> 1 & 1 ? sx.weight : 1 - sx.weight) *
                                 (corner >> 2 ? sz.weight : 1 - sz.weight);
            if (weight == 0) continue;
            const float *restrict source =
                levels[l] + (((sy.low + (corner & 1)) * size[1] + sx.low + (corner >> 1 & 1)) *
                                 size[2] + sz.low + (corner >> 2)) * channels;
            for (i64 c = 0; c < channels; c++) cell[c] += weight * source[c];
          }
        }
        if (relu)
          for (i64 c = 0; c < channels; c++) cell[c] = rectify(cell[c]);
      }
}

/* One level of conv3x3(concatenated upsampled levels), see cpu.py: low [h, w, 9, C] holds,
 * for each of the nine kernel taps (ky, kx), the low-resolution map already multiplied by that
 * tap's weights. out [Y, X, C] += sum over taps of bilinear(low[tap]) at (y + ky - 1, x + kx - 1), zero
 * outside the image; with relu (the last level) then relu(out). Rows are y. */
void upsample_taps(float *out, const float *low, i64 h, i64 w, i64 Y, i64 X, i64 channels, int relu,
                   i64 begin, i64 end) {
  for (i64 y = begin; y < end; y++)
    for (i64 x = 0; x < X; x++) {
      float *restrict cell = out + (y * X + x) * channels;
      for (int ky = 0; ky < 3; ky++) {
        const i64 yy = y + ky - 1;
        if (yy < 0 || yy >= Y) continue;
        const Step sy = align(yy, Y, h);
        for (int kx = 0; kx < 3; kx++) {
          const i64 xx = x + kx - 1;
          if (xx < 0 || xx >= X) continue;
          const Step sx = align(xx, X, w);
          const i64 tap = (ky * 3 + kx) * channels, pixel = 9 * channels;
          const i64 right = sx.weight == 0 ? 0 : pixel, below = sy.weight == 0 ? 0 : w * pixel;
          const float *p = low + (sy.low * w + sx.low) * pixel + tap;
          const float *restrict p00 = p, *restrict p01 = p + right;
          const float *restrict p10 = p + below, *restrict p11 = p + below + right;
          const float w00 = (1 - sy.weight) * (1 - sx.weight), w01 = (1 - sy.weight) * sx.weight;
          const float w10 = sy.weight * (1 - sx.weight), w11 = sy.weight * sx.weight;
          for (i64 c = 0; c < channels; c++)
            cell[c] += w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c];
        }
      }
      if (relu)
        for (i64 c = 0; c < channels; c++) cell[c] = rectify(cell[c]);
    }
}
