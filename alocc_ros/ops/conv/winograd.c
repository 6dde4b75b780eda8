/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * 3x3 and 3x3x3 convolutions with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3) over
 * (y, x), the three taps over z as one longer inner product. Channels last. What it means stands
 * in conv/winograd.py.
 */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
enum { LANES = 8, ROWS = 6, PANEL = 2 * LANES };
typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(32)));

static inline lanes load(const float *p) { return *(const lanes *)p; }
static inline void store(float *p, lanes x) { *(lanes *)p = x; }

/* Rectified; NaN stays NaN. */
static inline lanes rectify(lanes x) {
  const mask negative = x < (lanes){0};
  return (lanes)((mask)x & ~negative);
}

typedef struct {
  const float *x, *weight, *bias, *residual;
  float *y;
  i64 height, width, depth; /* Y, X, Z of input and output */
  i64 inputs, outputs;      /* channels */
  i64 taps;                 /* over z: 1 or 3 */
  int relu;
} Layer;

/* Input patches of `count` tiles, transformed: out [16][count][padded z][C]. The padding in z was
 * zeroed by the caller and is never written. */
static void transform_input(const Layer *l, i64 first, i64 count, const float *zero, float *out) {
  const i64 C = l->inputs, run = l->depth * C, padded = (l->depth + l->taps - 1) * C;
  const i64 tiles_y = (l->height + 1) / 2, tiles_x = (l->width + 1) / 2;
  for (i64 i = 0; i < count; i++) {
    const i64 tile = first + i, tx = tile % tiles_x, ty = tile / tiles_x % tiles_y;
    const float *image = l->x + tile / (tiles_x * tiles_y) * l->height * l->width * run;
    const float *patch[4][4];
    for (int a = 0; a < 4; a++)
      for (int b = 0; b < 4; b++) {
        const i64 y = 2 * ty + a - 1, x = 2 * tx + b - 1;
        const int outside = y < 0 || y >= l->height || x < 0 || x >= l->width;
        patch[a][b] = outside ? zero : image + (y * l->width + x) * run;
      }
    float *to = out + i * padded + l->taps / 2 * C;
    const i64 step = count * padded;
    for (i64 c = 0; c < run; c += LANES) {
      lanes d[4][4];
      for (int b = 0; b < 4; b++) {
        const lanes p0 = load(patch[0][b] + c), p1 = load(patch[1][b] + c);
        const lanes p2 = load(patch[2][b] + c), p3 = load(patch[3][b] + c);
        d[0][b] = p0 - p2, d[1][b] = p1 + p2, d[2][b] = p2 - p1, d[3][b] = p1 - p3;
      }
      for (int a = 0; a < 4; a++) {
        store(to + (4 * a + 0) * step + c, d[a][0] - d[a][2]);
        store(to + (4 * a + 1) * step + c, d[a][1] + d[a][2]);
        store(to + (4 * a + 2) * step + c, d[a][2] - d[a][1]);
        store(to + (4 * a + 3) * step + c, d[a][1] - d[a][3]);
      }
    }
  }
}

/* ROWS x PANEL of a product: row i of A starts at a[i] and is K long, B is [K][PANEL]. */
static inline void product_block(const float *const a[ROWS], const float *restrict b, i64 K,
                                 float *const out[ROWS]) {
  lanes left[ROWS], right[ROWS];
  for (int i = 0; i < ROWS; i++) left[i] = right[i] = (lanes){0};
  for (i64 k = 0; k < K; k++) {
    const lanes b0 = load(b + k * PANEL), b1 = load(b + k * PANEL + LANES);
    for (int i = 0; i < ROWS; i++) {
      left[i] += a[i][k] * b0;
      right[i] += a[i][k] * b1;
    }
  }
  for (int i = 0; i < ROWS; i++) store(out[i], left[i]), store(out[i] + LANES, right[i]);
}

/* [16] products: in [16][count][padded z][C] rows of taps * C, overlapping along z; weight
 * [16][O / PANEL][taps * C][PANEL]; out [16][count * Z][O]. `spill` takes rows past the end. */
static void multiply(const Layer *l, i64 count, const float *in, float *out, float *spill) {
  const i64 C = l->inputs, O = l->outputs, Z = l->depth, K = l->taps * C;
  const i64 padded = Z + l->taps - 1, rows = count * Z;
  for (int e = 0; e < 16; e++) {
    const float *plane = in + e * count * padded * C;
    float *result = out + e * rows * O;
    for (i64 panel = 0; panel < O / PANEL; panel++) {
      const float *b = l->weight + (e * (O / PANEL) + panel) * K * PANEL;
      for (i64 row = 0; row < rows; row += ROWS) {
        const float *a[ROWS];
        float *to[ROWS];
        for (int i = 0; i < ROWS; i++) {
          const i64 r = row + i < rows ? row + i : rows - 1;
          a[i] = plane + (r / Z * padded + r % Z) * C;
          to[i] = row + i < rows ? result + r * O + panel * PANEL : spill;
        }
        product_block(a, b, K, to);
      }
    }
  }
}

static void transform_output(const Layer *l, i64 first, i64 count, const float *in) {
  const i64 O = l->outputs, Z = l->depth, step = count * Z * O;
  const i64 tiles_y = (l->height + 1) / 2, tiles_x = (l->width + 1) / 2;
  for (i64 i = 0; i < count; i++) {
    const i64 tile = first + i, tx = tile % tiles_x, ty = tile / tiles_x % tiles_y;
    const i64 image = tile / (tiles_x * tiles_y) * l->height * l->width;
    for (i64 z = 0; z < Z; z++)
      for (i64 c = 0; c < O; c += LANES) {
        const float *m = in + (i * Z + z) * O + c;
        lanes t[2][4];
        for (int b = 0; b < 4; b++) {
          const lanes m0 = load(m + b * step), m1 = load(m + (4 + b) * step);
          const lanes m2 = load(m + (8 + b) * step), m3 = load(m + (12 + b) * step);
          t[0][b] = m0 + m1 + m2, t[1][b] = m1 - m2 - m3;
        }
        const lanes bias = load(l->bias + c);
        for (int a = 0; a < 2; a++) {
          const i64 y = 2 * ty + a;
          if (y >= l->height) break;
          lanes o[2] = {t[a][0] + t[a][1] + t[a][2] + bias, t[a][1] - t[a][2] - t[a][3] + bias};
          for (int b = 0; b < 2; b++) {
            const i64 x = 2 * tx + b;
            if (x >= l->width) break;
            const i64 at = ((image + y * l->width + x) * Z + z) * O + c;
            if (l->residual) o[b] += load(l->residual + at);
            store(l->y + at, l->relu ? rectify(o[b]) : o[b]);
          }
        }
      }
  }
}

/* Floats of scratch that one call of `winograd` needs. */
i64 winograd_scratch(i64 tiles, i64 depth, i64 inputs, i64 outputs, i64 taps) {
  return 16 * tiles * ((depth + taps - 1) * inputs + depth * outputs) + depth * inputs + PANEL;
}

/* y [N, Y, X, Z, O] = relu(conv(x [N, Y, X, Z, C]) + bias + residual), padding 1, stride 1; `unit`
 * tiles at a time. Tiles [begin, end) out of N * ceil(Y / 2) * ceil(X / 2). */
void winograd(const float *x, const float *weight, const float *bias, const float *residual,
              float *y, float *scratch, i64 height, i64 width, i64 depth, i64 inputs, i64 outputs,
              i64 taps, i64 relu, i64 unit, i64 begin, i64 end) {
  const Layer layer = {x,     weight, bias,   residual, y,    height,   width,
                       depth, inputs, outputs, taps,    (int)relu};
  const i64 in_size = 16 * unit * (depth + taps - 1) * inputs;
  float *in = scratch, *out = in + in_size;
  float *zero = out + 16 * unit * depth * outputs, *spill = zero + depth * inputs;
  memset(zero, 0, depth * inputs * sizeof(float));
  memset(in, 0, in_size * sizeof(float));
  for (i64 first = begin; first < end; first += unit) {
    const i64 count = end - first < unit ? end - first : unit;
    /* A shorter last unit has other strides: its padding lies elsewhere. */
    if (count < unit) memset(in, 0, in_size * sizeof(float));
    transform_input(&layer, first, count, zero, in);
    multiply(&layer, count, in, out, spill);
    transform_output(&layer, first, count, out);
  }
}
