/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * What the CPU kernels share. All tensors are channels last, so the innermost loop always runs over
 * contiguous channels and vectorises. Every function works on rows [begin, end) and may run on
 * several threads at once; none writes where another range writes. What a kernel computes is
 * defined by the reference.py beside it.
 */
#ifndef ALOCC_KERNEL_H
#define ALOCC_KERNEL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

/* Eight floats, at any float's address. */
typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

/* Rectified; NaN stays NaN (fmaxf would hide it, and does not vectorise). */
static inline float rectify(float x) { return x < 0 ? 0 : x; }

static inline i64 clamp(i64 x, i64 lo, i64 hi) { return x < lo ? lo : x > hi ? hi : x; }

#endif
