/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * All voxels that rays pass or hit. What it means stands in synthetic/truth.py.
 */
#include <stdint.h>

typedef int64_t i64;

/* solid [sx, sy, sz]; for each ray its first cell [rays, 3], the way (1 or -1) it goes along each
 * axis, how far the next face across each axis is, and how far faces are apart. Sets seen to 1. */
void touch_voxels(const uint8_t *solid, i64 sx, i64 sy, i64 sz, const int32_t *cells,
                  const int32_t *ways, const float *reaches, const float *paces, uint8_t *seen,
                  i64 begin, i64 end) {
  const i64 stride[3] = {sy * sz, sz, 1};
  const int32_t size[3] = {(int32_t)sx, (int32_t)sy, (int32_t)sz};
  for (i64 ray = begin; ray < end; ray++) {
    const int32_t *way = ways + 3 * ray;
    const float *pace = paces + 3 * ray;
    int32_t cell[3];
    float reach[3];
    i64 flat = 0;
    for (int a = 0; a < 3; a++) {
      cell[a] = cells[3 * ray + a];
      reach[a] = reaches[3 * ray + a];
      flat += cell[a] * stride[a];
    }
    for (;;) {
      seen[flat] = 1;
      if (solid[flat]) break;
      int axis = reach[1] < reach[0] ? 1 : 0;
      if (reach[2] < reach[axis]) axis = 2;
      cell[axis] += way[axis];
      if (cell[axis] < 0 || cell[axis] >= size[axis]) break;
      reach[axis] += pace[axis];
      flat += way[axis] * stride[axis];
    }
  }
}
