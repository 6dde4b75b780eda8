/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Recurrent fusion: correct the predicted offsets and fetch what was there; and the scene layer.
 */
#include "../kernel.h"

/* One step of the predicted offsets towards the remembered ones, and the remembered volume where
 * they lead. history [Y, X, Z, C]; previous [Y, X, Z, 3] or NULL (no step); offsets [Y, X, Z, 3]
 * hold the prediction and then the result; fetched [rows * X * Z, C] begins with (y_begin, 0, 0).
 * Works on y rows [y_begin, y_end), columns x [begin, end). */
void fetch_history(const float *history, const float *previous, const double *matrix,
                   float *offsets, float *fetched, i64 Y, i64 X, i64 Z, i64 channels, i64 y_begin,
                   i64 y_end, i64 begin, i64 end) {
  const i64 size[3] = {X, Y, Z};
  for (i64 y = y_begin; y < y_end; y++)
    for (i64 x = begin; x < end; x++)
      for (i64 z = 0; z < Z; z++) {
        const i64 at = (y * X + x) * Z + z;
        float *offset = offsets + at * 3;
        double base[3], s[3];
        for (int a = 0; a < 3; a++) {
          /* A slab lies in the plane z = 1 and has no other place along z. */
          base[a] = matrix[4 * a] * x + matrix[4 * a + 1] * y +
                    matrix[4 * a + 2] * (Z == 1 ? 1 : z) + matrix[4 * a + 3];
          if (a == 2 && Z == 1) base[a] = 0;
          s[a] = base[a] + offset[a];
        }
        if (previous && s[0] >= 0 && s[0] <= X - 1 && s[1] >= 0 && s[1] <= Y - 1 && s[2] >= 0 &&
            s[2] <= Z - 1) {
          i64 node[3][2];
          float share[3][2];
          for (int a = 0; a < 3; a++) {
            const double lower = floor(s[a]);
            node[a][0] = clamp((i64)lower, 0, size[a] - 1);
            node[a][1] = clamp((i64)lower + 1, 0, size[a] - 1);
            share[a][1] = (float)(s[a] - lower), share[a][0] = 1 - share[a][1];
          }
          float value[3] = {0}, slope[3][3] = {{0}}; /* slope[axis][component] */
          for (int corner = 0; corner < 8; corner++) {
            const int bx = corner & 1, by = corner >> 1 & 1, bz = corner >> 2;
            const float *tap =
                previous + ((node[1][by] * X + node[0][bx]) * Z + node[2][bz]) * 3;
            const float yz = share[1][by] * share[2][bz], xz = share[0][bx] * share[2][bz],
                        xy = share[0][bx] * share[1][by];
            for (int c = 0; c < 3; c++) {
              value[c] += share[0][bx] * yz * tap[c];
              slope[0][c] += (bx ? yz : -yz) * tap[c];
              slope[1][c] += (by ? xz : -xz) * tap[c];
              slope[2][c] += (bz ? xy : -xy) * tap[c];
            }
          }
          float error[3];
          for (int c = 0; c < 3; c++) error[c] = value[c] - offset[c];
          for (int a = 0; a < 3; a++) {
            float gradient = -error[a];
            for (int c = 0; c < 3; c++) gradient += slope[a][c] * error[c];
            gradient *= 2.0f / 3;
            /* NaN passes both comparisons and stays. */
            if (gradient > 20) gradient = 20;
            if (gradient < -20) gradient = -20;
            offset[a] -= 0.1f * gradient;
          }
          for (int a = 0; a < 3; a++) s[a] = base[a] + offset[a];
        }
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
            tap[taps] = history + ((cy * X + cx) * Z + cz) * channels;
            weight[taps++] = (float)(wx * wy * wz);
          }
        }
        float *restrict to = fetched + (at - y_begin * X * Z) * channels;
        i64 c = 0;
        for (; c + 8 <= channels; c += 8) {
          lanes sum = {0};
          for (int t = 0; t < taps; t++) sum += weight[t] * *(const lanes *)(tap[t] + c);
          *(lanes *)(to + c) = sum;
        }
        for (; c < channels; c++) {
          float sum = 0;
          for (int t = 0; t < taps; t++) sum += weight[t] * tap[t][c];
          to[c] = sum;
        }
      }
}

enum { MOST = 128 }; /* channels of a scene layer */

/* y = x A with A [C, C] and, if there is one, + b. */
static inline void product(const float *x, const float *matrix, const float *bias, float *y,
                           i64 channels) {
  i64 c = 0;
  for (; c + 32 <= channels; c += 32) {
    lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    if (bias) {
      const lanes *b = (const lanes *)(bias + c);
      s0 = b[0], s1 = b[1], s2 = b[2], s3 = b[3];
    }
    for (i64 k = 0; k < channels; k++) {
      const lanes *row = (const lanes *)(matrix + k * channels + c);
      s0 += x[k] * row[0], s1 += x[k] * row[1], s2 += x[k] * row[2], s3 += x[k] * row[3];
    }
    lanes *to = (lanes *)(y + c);
    to[0] = s0, to[1] = s1, to[2] = s2, to[3] = s3;
  }
  for (; c < channels; c++) {
    float sum = bias ? bias[c] : 0;
    for (i64 k = 0; k < channels; k++) sum += x[k] * matrix[k * channels + c];
    y[c] = sum;
  }
}

/* In eight running sums, which is how it becomes vectors; the order does not depend on anything. */
static inline float total(const float *x, i64 channels) {
  float part[8] = {0};
  i64 c = 0;
  for (; c + 8 <= channels; c += 8)
    for (int k = 0; k < 8; k++) part[k] += x[c + k];
  for (; c < channels; c++) part[0] += x[c];
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

/* Mean 0, variance 1; returns 1 / deviation. */
static inline float standardise(float *z, float epsilon, i64 channels) {
  float square[MOST];
  const float mean = total(z, channels) / channels;
  for (i64 c = 0; c < channels; c++) z[c] -= mean, square[c] = z[c] * z[c];
  const float inverse = 1 / sqrtf(total(square, channels) / channels + epsilon);
  for (i64 c = 0; c < channels; c++) z[c] *= inverse;
  return inverse;
}

/* Gradients of the scene layer, summed over each row of the lattice. rows [Y, width, C]; first
 * [C, C] (transposed W K), offset [C], wanted [C, C] (transposed V - K), scale and shift [C] ->
 * parts [Y, C, C + 3]: pull x^T, sum of pull, 2 sum of error * unit, 2 sum of error.
 * Rows [begin, end). */
void scene_gradient(const float *rows, const float *first, const float *offset,
                    const float *wanted, const float *scale, const float *shift, float *parts,
                    float epsilon, i64 width, i64 channels, i64 begin, i64 end) {
  const i64 stride = channels + 3;
  float unit[MOST], error[MOST], pull[MOST], aim[MOST], both[MOST];
  float outer[MOST * MOST], sums[3][MOST];
  for (i64 y = begin; y < end; y++) {
    float *part = parts + y * channels * stride;
    memset(outer, 0, channels * channels * sizeof(float));
    memset(sums, 0, sizeof sums);
    for (i64 i = 0; i < width; i++) {
      const float *x = rows + (y * width + i) * channels;
      product(x, first, offset, unit, channels);
      product(x, wanted, 0, aim, channels);
      const float inverse = standardise(unit, epsilon, channels);
      for (i64 c = 0; c < channels; c++) {
        error[c] = scale[c] * unit[c] + shift[c] - aim[c];
        pull[c] = scale[c] * error[c];
        both[c] = pull[c] * unit[c];
      }
      const float mean = total(pull, channels) / channels, along = total(both, channels) / channels;
      for (i64 c = 0; c < channels; c++) {
        pull[c] = 2 * (pull[c] - mean - unit[c] * along) * inverse;
        sums[0][c] += pull[c];
        sums[1][c] += 2 * error[c] * unit[c];
        sums[2][c] += 2 * error[c];
      }
      for (i64 k = 0; k < channels; k++) {
        float *restrict to = outer + k * channels; /* by channel of x */
        const float xk = x[k];
        for (i64 c = 0; c < channels; c++) to[c] += xk * pull[c];
      }
    }
    for (i64 c = 0; c < channels; c++) {
      for (i64 k = 0; k < channels; k++) part[c * stride + k] = outer[k * channels + c];
      for (int s = 0; s < 3; s++) part[c * stride + channels + s] = sums[s][c];
    }
  }
}

/* The scene layer's answer: scale * LayerNorm(x A + offset) + shift + x Q^T. Rows [begin, end). */
void scene_answer(const float *rows, const float *layer, const float *offset, const float *query,
                  const float *scale, const float *shift, float *out, float epsilon, i64 width,
                  i64 channels, i64 begin, i64 end) {
  float unit[MOST], asked[MOST];
  for (i64 i = begin * width; i < end * width; i++) {
    const float *x = rows + i * channels;
    product(x, layer, offset, unit, channels);
    product(x, query, 0, asked, channels);
    standardise(unit, epsilon, channels);
    float *restrict to = out + i * channels;
    for (i64 c = 0; c < channels; c++) to[c] = scale[c] * unit[c] + shift[c] + asked[c];
  }
}
