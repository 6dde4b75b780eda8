/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Lifting: scatter of pixels into the lattice.
 */
#include "../kernel.h"

typedef struct {
  double cell[3]; /* 1 / step */
  double base[3]; /* lower corner, metres */
  i64 size[3];    /* cells x, y, z */
  i64 channels;
  i64 y_begin, y_end; /* rows of the volume that this call may write */
  float *volume;      /* [Y, X, Z, C] */
} Target;

/* Trilinear scatter of value * context around a point in metres. */
static inline void splat_point(const Target *target, const double point[3], float value,
                               const float *restrict context) {
  double low[3];
  float high_weight[3];
  for (int a = 0; a < 3; a++) {
    const double g = (point[a] - target->base[a]) * target->cell[a];
    if (!(g > -1 && g < target->size[a])) return;
    low[a] = floor(g);
    high_weight[a] = (float)(g - low[a]);
  }
  const i64 channels = target->channels;
  for (int by = 0; by < 2; by++) {
    const i64 y = (i64)low[1] + by;
    if (y < target->y_begin || y >= target->y_end) continue;
    const float wy = value * (by ? high_weight[1] : 1 - high_weight[1]);
    for (int bx = 0; bx < 2; bx++) {
      const i64 x = (i64)low[0] + bx;
      if (x < 0 || x >= target->size[0]) continue;
      const float wx = wy * (bx ? high_weight[0] : 1 - high_weight[0]);
      for (int bz = 0; bz < 2; bz++) {
        const i64 z = (i64)low[2] + bz;
        if (z < 0 || z >= target->size[2]) continue;
        const float weight = wx * (bz ? high_weight[2] : 1 - high_weight[2]);
        float *restrict cell =
            target->volume + ((y * target->size[0] + x) * target->size[2] + z) * channels;
        for (i64 c = 0; c < channels; c++) cell[c] += weight * context[c];
      }
    }
  }
}

/* geometry [n, h*w, bins], context [n, h*w, channels]; ray_matrix [n, 9] and origin [n, 3]
 * give the point of input-image pixel (u, v) at depth d: d * M (u, v, 1) + origin.
 * side_weight [n, h*w, 27] (after the sigmoid) and side_offset [n, h*w, 18] (pixels) may be
 * NULL: then there are no side copies. Camera n is skipped where camera_mask[n] is 0. Rows are y rows of
 * the volume, which must be zero before: each call scans all points and keeps its own rows,
 * so sums have one order whatever the number of threads. */
void lift(const float *geometry, const float *context, const double *ray_matrix,
           const double *origin, const double *us, const double *vs, const float *side_weight,
           const float *side_offset, const uint8_t *camera_mask, float *volume, i64 cameras, i64 h,
           i64 w, i64 bins, i64 channels, double depth0, double depth_step, i64 index_max,
           const double *lower, const double *step, const i64 *size, i64 begin, i64 end) {
  Target target = {.channels = channels, .y_begin = begin, .y_end = end, .volume = volume};
  for (int a = 0; a < 3; a++) {
    target.cell[a] = 1 / step[a];
    target.base[a] = lower[a];
    target.size[a] = size[a];
  }
  for (i64 n = 0; n < cameras; n++) {
    if (!camera_mask[n]) continue;
    const double *M = ray_matrix + 9 * n, *o = origin + 3 * n;
    for (i64 pixel = 0; pixel < h * w; pixel++) {
      const i64 at = n * h * w + pixel;
      const double u = us[pixel % w], v = vs[pixel / w];
      const float *mass = geometry + at * bins, *here = context + at * channels;
      double ray[3], point[3];
      for (int a = 0; a < 3; a++) ray[a] = M[3 * a] * u + M[3 * a + 1] * v + M[3 * a + 2];
      i64 peak = 0;
      for (i64 d = 0; d < bins; d++) {
        if (mass[d] > mass[peak]) peak = d;
        const double depth = depth0 + depth_step * d;
        for (int a = 0; a < 3; a++) point[a] = depth * ray[a] + o[a];
        splat_point(&target, point, mass[d], here);
      }
      if (!side_weight) continue;
      for (int cell = 0; cell < 9; cell++) {
        if (cell == 4) continue; /* the centre is the pixel itself */
        const double du = side_offset[at * 18 + 2 * cell], dv = side_offset[at * 18 + 2 * cell + 1];
        double moved[3];
        for (int a = 0; a < 3; a++) moved[a] = ray[a] + M[3 * a] * du + M[3 * a + 1] * dv;
        for (int slot = 0; slot < 3; slot++) {
          i64 bin = peak + slot - 1;
          if (bin < 0) continue;
          bin = clamp(bin, 0, index_max);
          const double depth = depth0 + depth_step * bin;
          for (int a = 0; a < 3; a++) point[a] = depth * moved[a] + o[a];
          splat_point(&target, point, mass[bin] * side_weight[at * 27 + cell * 3 + slot], here);
        }
      }
    }
  }
}
