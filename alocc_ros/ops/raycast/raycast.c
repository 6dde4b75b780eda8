/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * The first voxel that each ray hits. What it means stands in metrics/rays.py. Results must be
 * equal to the last bit everywhere, so there is no sum of a product here that a compiler could
 * contract: directions come with their final length.
 */
#include <float.h>
#include <stdint.h>

typedef int64_t i64;

/* labels [sx, sy, sz]; origins [t, 3] and directions [t, rays, 3] in voxels. Writes for each ray
 * [t, rays] the flat index of the voxel it ends in (-1: it never was in the grid) and how far from
 * its origin it leaves that voxel, in voxels. Rows count t * rays. */
void cast_rays(const uint8_t *labels, i64 sx, i64 sy, i64 sz, int free_label, const double *origins,
               const double *directions, i64 rays, int step_limit, int32_t *voxel, float *distance,
               i64 begin, i64 end) {
  const i64 stride[3] = {sy * sz, sz, 1};
  for (i64 row = begin; row < end; row++) {
    const double *origin = origins + row / rays * 3, *direction = directions + row * 3;
    i64 cell[3], step[3], flat = 0;
    double next[3], delta[3]; /* distance to the next face across each axis, and between faces */
    const i64 size[3] = {sx, sy, sz};
    int last_step = step_limit;
    for (int a = 0; a < 3; a++) {
      const double d = direction[a];
      cell[a] = (i64)origin[a]; /* towards zero, as defined */
      step[a] = d >= 0 ? 1 : -1;
      next[a] = d != 0 ? (double)(cell[a] + (d >= 0)) - origin[a] : DBL_MAX;
      delta[a] = d != 0 ? (double)step[a] / d : DBL_MAX;
      if (d != 0) next[a] /= d;
      flat += cell[a] * stride[a];
      if (step[a] < 0 ? cell[a] < 0 : cell[a] >= size[a]) last_step = -1; /* it flies away */
    }
    int32_t last = -1;
    float leaves = -1;
    for (int count = 0; count <= last_step; count++) {
      const int inside = (uint64_t)cell[0] < (uint64_t)sx && (uint64_t)cell[1] < (uint64_t)sy &&
                         (uint64_t)cell[2] < (uint64_t)sz;
      if (!inside && last >= 0) break; /* it does not come back */
      const int axis = next[0] < next[1] ? (next[0] < next[2] ? 0 : 2) : next[1] < next[2] ? 1 : 2;
      if (inside) {
        last = (int32_t)flat;
        leaves = (float)next[axis];
        if (labels[flat] != free_label) break;
      }
      cell[axis] += step[axis];
      flat += step[axis] * stride[axis];
      next[axis] += delta[axis];
    }
    voxel[row] = last;
    distance[row] = leaves;
  }
}
