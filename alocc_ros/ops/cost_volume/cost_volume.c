/* Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
 *
 * Stereo matching cost.
 */
#include "../kernel.h"

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
