/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * CPU kernels. All tensors are channels last, so the innermost loop always runs over contiguous
 * channels and vectorises. Every function works on rows [begin, end) and may run on several
 * threads at once; none writes where another range writes. The torch twins, which say what
 * each kernel means, stand in the Python file of the operator.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

/* Eight floats, at any float's address. */
typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

/* Rectified; NaN stays NaN (fmaxf would hide it, and does not vectorise). */
static inline float rectify(float x) { return x < 0 ? 0 : x; }

static inline i64 clamp(i64 x, i64 lo, i64 hi) { return x < lo ? lo : x > hi ? hi : x; }

/* ---- stereo cost volume (cost_volume.py) ------------------------------------------------- */

/* Sum over channels of |current - bilinear(previous)| for one pixel and one depth. The four
 * taps are given by pointers; a tap outside the image has weight zero and a safe pointer. */
static float matching_cost(const float *restrict current, const float *restrict p00,
                           const float *restrict p01, const float *restrict p10,
                           const float *restrict p11, const float w[4], i64 channels) {
  float lane[16] = {0};
  i64 c = 0;
  for (; c + 16 <= channels; c += 16)
    for (int k = 0; k < 16; k++) {
      float warped = w[0] * p00[c + k] + w[1] * p01[c + k] + w[2] * p10[c + k] + w[3] * p11[c + k];
      lane[k] += fabsf(current[c + k] - warped);
    }
  float sum = 0;
  for (; c < channels; c++)
    sum += fabsf(current[c] - (w[0] * p00[c] + w[1] * p01[c] + w[2] * p10[c] + w[3] * p11[c]));
  for (int k = 0; k < 16; k++) sum += lane[k];
  return sum;
}

/* current, previous: [n, h, w, channels]; homography [n, 9] and offset [n, 3] give the
 * homogeneous position in the previous feature map of pixel (x, y) at depth d:
 * d * H (x, y, 1) + offset; z below 1e-3 is behind the camera. out: [n, h, w, bins], softmax
 * over bins of -cost. Rows count n * h. */
void cost_volume(const float *current, const float *previous, const double *homography,
                 const double *offset, float *out, i64 h, i64 w, i64 channels, i64 bins,
                 double depth0, double depth_step, i64 validity_channel, float penalty, i64 begin,
                 i64 end) {
  for (i64 row = begin; row < end; row++) {
    const i64 n = row / h, y = row % h;
    const double *H = homography + 9 * n, *t = offset + 3 * n;
    const float *image = previous + n * h * w * channels;
    for (i64 x = 0; x < w; x++) {
      const float *here = current + (row * w + x) * channels;
      float *volume = out + (row * w + x) * bins;
      double ray[3];
      for (int i = 0; i < 3; i++) ray[i] = H[3 * i] * x + H[3 * i + 1] * y + H[3 * i + 2];
      float nothing = 0; /* the cost where the sample falls outside: sum |current| */
      for (i64 c = 0; c < channels; c++) nothing += fabsf(here[c]);
      float lowest = INFINITY;
      for (i64 d = 0; d < bins; d++) {
        const double depth = depth0 + depth_step * d;
        const double qz = depth * ray[2] + t[2];
        const double qx = (depth * ray[0] + t[0]) / qz, qy = (depth * ray[1] + t[1]) / qz;
        float cost = nothing + penalty;
        if (qz >= 1e-3 && qx > -1 && qx < w && qy > -1 && qy < h) {
          const double fx = floor(qx), fy = floor(qy);
          const i64 x0 = (i64)fx, y0 = (i64)fy;
          const float ax = qx - fx, ay = qy - fy;
          const int l = x0 >= 0, r = x0 + 1 < w, u = y0 >= 0, b = y0 + 1 < h;
          const float weight[4] = {l && u ? (1 - ax) * (1 - ay) : 0, r && u ? ax * (1 - ay) : 0,
                                   l && b ? (1 - ax) * ay : 0, r && b ? ax * ay : 0};
          const i64 xl = l ? x0 : 0, xr = r ? x0 + 1 : w - 1;
          const float *up = image + (u ? y0 : 0) * w * channels;
          const float *down = image + (b ? y0 + 1 : h - 1) * w * channels;
          const float *p00 = up + xl * channels, *p01 = up + xr * channels;
          const float *p10 = down + xl * channels, *p11 = down + xr * channels;
          const i64 v = validity_channel;
          const float seen = weight[0] * p00[v] + weight[1] * p01[v] + weight[2] * p10[v] +
                             weight[3] * p11[v];
          cost = matching_cost(here, p00, p01, p10, p11, weight, channels);
          if (seen == 0) cost += penalty;
        }
        volume[d] = cost;
        if (cost < lowest) lowest = cost;
      }
      float sum = 0;
      for (i64 d = 0; d < bins; d++) sum += volume[d] = expf(lowest - volume[d]);
      const float scale = 1 / sum;
      for (i64 d = 0; d < bins; d++) volume[d] *= scale;
    }
  }
}

/* ---- lifting (splat.py) ------------------------------------------------------------------- */

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
 * NULL: then there are no side copies. Camera n is skipped where alive[n] is 0. Rows are y rows of
 * the volume, which must be zero before: each call scans all points and keeps its own rows,
 * so sums have one order whatever the number of threads. */
void splat(const float *geometry, const float *context, const double *ray_matrix,
           const double *origin, const double *us, const double *vs, const float *side_weight,
           const float *side_offset, const uint8_t *alive, float *volume, i64 cameras, i64 h,
           i64 w, i64 bins, i64 channels, double depth0, double depth_step, i64 index_max,
           const double *lower, const double *step, const i64 *size, i64 begin, i64 end) {
  Target target = {.channels = channels, .y_begin = begin, .y_end = end, .volume = volume};
  for (int a = 0; a < 3; a++) {
    target.cell[a] = 1 / step[a];
    target.base[a] = lower[a];
    target.size[a] = size[a];
  }
  for (i64 n = 0; n < cameras; n++) {
    if (!alive[n]) continue;
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

/* ---- history warp (history.py) ------------------------------------------------------------ */

/* history [Y, X, Z, slots * C] -> the same moved by the 3x4 index-space matrix (out index
 * (x, y, z, 1) -> source index), zero outside, bilinear in x, y and, where Z > 1, z.
 * newest [Y, X, Z, C] becomes slot 0 of `state`; slot k of the history slot k + 1, the oldest
 * is dropped from it. activation [rows * X * Z, (slots + 1) * C] gets relu(value + bias) of newest and
 * ALL slots; its first row belongs to (y_begin, 0, 0). state may be NULL (memory is only read).
 * Works on y rows [y_begin, y_end), columns x [begin, end). */
void warp_history(const float *history, const float *newest, const double *matrix,
                  const float *bias, float *state, float *activation, i64 Y, i64 X, i64 Z,
                  i64 slots, i64 channels, i64 y_begin, i64 y_end, i64 begin, i64 end) {
  const i64 width = slots * channels;
  for (i64 y = y_begin; y < y_end; y++)
    for (i64 x = begin; x < end; x++)
      for (i64 z = 0; z < Z; z++) {
        const i64 at = (y * X + x) * Z + z;
        const double zz = Z > 1 ? (double)z : 1.0; /* 2D: the plane z = 1 m (spec section 8) */
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
        float *restrict active =
            activation + (at - y_begin * X * Z) * (slots + 1) * channels;
        const float *fresh = newest + at * channels;
        for (i64 c = 0; c < channels; c++) active[c] = rectify(fresh[c] + bias[c]);
        float *restrict kept = state ? state + at * width : 0;
        if (kept) memcpy(kept, fresh, channels * sizeof(float));
        const float *shift = bias + channels;
        active += channels;
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
          for (i64 k = 0; k < count; k++) active[c0 + k] = rectify(sum[k] + shift[c0 + k]);
          if (kept && c0 < width - channels) {
            const i64 keep = width - channels - c0 < count ? width - channels - c0 : count;
            memcpy(kept + channels + c0, sum, keep * sizeof(float));
          }
        }
      }
}

/* ---- upsampling sums (upsample.py) -------------------------------------------------------- */

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

/* One level of conv3x3(concatenated upsampled levels), see upsample.py: low [h, w, 9, C] holds,
 * for each of the nine kernel taps (ky, kx), the low-resolution map already multiplied by that
 * tap's weights. out [Y, X, C] += sum over taps of bilinear(low[tap]) at (y + ky - 1, x + kx - 1), zero
 * outside the image. Rows are y. */
void upsample_taps(float *out, const float *low, i64 h, i64 w, i64 Y, i64 X, i64 channels,
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
    }
}

/* ---- flow correlation (correlation.py) ------------------------------------------------------ */

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

/* ---- labels (classify.py) ------------------------------------------------------------------ */

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
