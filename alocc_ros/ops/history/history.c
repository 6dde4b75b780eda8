/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Temporal fusion: warp and rectify the remembered slots.
 */
#include "../kernel.h"

/* history [Y, X, Z, slots * C] -> the same moved by the 3x4 index-space matrix (out index
 * (x, y, z, 1) -> source index), zero outside, bilinear in x, y and, where Z > 1, z.
 * Slot k of the history becomes slot k + 1 of `state`, whose slot 0 stays as it is; the oldest is
 * dropped from it. activation [rows * X * Z, slots * C] gets relu(value + bias) of ALL slots; its
 * first row belongs to (y_begin, 0, 0). state may be NULL (memory is only read).
 * Works on y rows [y_begin, y_end), columns x [begin, end). */
void warp_history(const float *history, const double *matrix, const float *bias, float *state,
                  float *activation, i64 Y, i64 X, i64 Z, i64 slots, i64 channels, i64 y_begin,
                  i64 y_end, i64 begin, i64 end) {
  const i64 width = slots * channels;
  for (i64 y = y_begin; y < y_end; y++)
    for (i64 x = begin; x < end; x++)
      for (i64 z = 0; z < Z; z++) {
        const i64 at = (y * X + x) * Z + z;
        const double zz = Z > 1 ? (double)z : 1.0; /* 2D: the plane z = 1 m (docs/network.md section 8) */
        double s[3];
        for (int a = 0; a < 3; a++)
          s[a] = matrix[4 * a] * x + matrix[4 * a + 1] * y + matrix[4 * a + 2] * zz + matrix[4 * a + 3];
        if (Z == 1) s[2] = 0;
        const float *tap[8];
        float weight[8];
        int taps = 0;
        if (s[0] > -1 && s[0] < X && s[1] > -1 && s[1] < Y && s[2] > -1 && s[2] < Z) {
          const double f[3] = {floor(s[0]), floor(s[1]), floor(s[2])};
          for (int corner = 0; corner < 8; corner++) {
            const i64 cx = (i64)f[0] + (corner & 1), cy = (i64)f[1] + (corner >> 1 & 1),
                      cz = (i64)f[2] + (corner >> 2);
            if (cx < 0 || cx >= X || cy < 0 || cy >= Y || cz < 0 || cz >= Z) continue;
            const double wx = corner & 1 ? s[0] - f[0] : 1 - (s[0] - f[0]);
            const double wy = corner >> 1 & 1 ? s[1] - f[1] : 1 - (s[1] - f[1]);
            const double wz = corner >> 2 ? s[2] - f[2] : 1 - (s[2] - f[2]);
            const float both = (float)(wx * wy * wz);
            if (both == 0) continue;
            tap[taps] = history + ((cy * X + cx) * Z + cz) * width;
            weight[taps++] = both;
          }
        }
        float *restrict active = activation + (at - y_begin * X * Z) * width;
        float *restrict kept = state ? state + at * width : 0;
        /* Blocks of 32 floats: their sums stay in registers while the taps are added. */
        enum { BLOCK = 32 };
        for (i64 c0 = 0; c0 < width; c0 += BLOCK) {
          const i64 count = width - c0 < BLOCK ? width - c0 : BLOCK;
          float sum[BLOCK];
          if (count == BLOCK) {
            lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            for (int t = 0; t < taps; t++) {
              const lanes *p = (const lanes *)(tap[t] + c0);
              s0 += weight[t] * p[0], s1 += weight[t] * p[1];
              s2 += weight[t] * p[2], s3 += weight[t] * p[3];
            }
            lanes *to = (lanes *)sum;
            to[0] = s0, to[1] = s1, to[2] = s2, to[3] = s3;
          } else {
            for (int k = 0; k < BLOCK; k++) sum[k] = 0;
            for (int t = 0; t < taps; t++)
              for (i64 k = 0; k < count; k++) sum[k] += weight[t] * tap[t][c0 + k];
          }
          for (i64 k = 0; k < count; k++) active[c0 + k] = rectify(sum[k] + bias[c0 + k]);
          if (kept && c0 < width - channels) {
            const i64 keep = width - channels - c0 < count ? width - channels - c0 : count;
            memcpy(kept + channels + c0, sum, keep * sizeof(float));
          }
        }
      }
}
