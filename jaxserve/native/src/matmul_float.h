// y = x W^T with weights that are decoded to float32 number by number: float32, bfloat16, float16, int8, FP8 and FP4.
//
// A sum runs over the inputs in vectors of kLanes, one accumulator for each pair of a row and an output, and ends with the
// tree of `sum`; with scales for blocks of inputs, a block's vector is scaled and added to the row's. Tiles of several rows
// and outputs share loads, and change no order of additions.
#pragma once

#include "parallel.h"

namespace jaxserve {

constexpr size_t kTileOutputs = 4;

// A weight [outputs, inputs], row after row, and what it is multiplied by.
template <class T>
struct Rows {
  const T* values;
  const float* scales;  // [outputs, blocks], or null
  size_t outputs, inputs, block;
  size_t stride;  // of the rows of y
  const float* offsets = nullptr;  // as scales: what is added to a block's weights; or null

  bool per_row() const { return block >= inputs && !offsets; }
  size_t blocks() const { return (inputs + block - 1) / block; }
};

// Adds x[k0, k1) w[k0, k1) of R rows and N outputs to their accumulators.
template <int R, int N, class T>
JAXSERVE_INLINE void accumulate(Vec (&sums)[R][N], const float* x, const T* w, size_t inputs, size_t k, size_t end) {
  for (; k + kLanes <= end; k += kLanes) {
    Vec wide[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const T* from = at(w, n * inputs + k);
      wide[n] = load(from);
      if (R == 1) __builtin_prefetch(reinterpret_cast<const char*>(from) + 1024);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      Vec row = load(x + r * inputs + k);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[r][n] = fma(row, wide[n], sums[r][n]);
    }
  }
  if (k == end) return;
  for (int n = 0; n < N; ++n) {
    Vec wide = load_first(at(w, n * inputs + k), end - k);
    for (int r = 0; r < R; ++r) sums[r][n] = fma(load_first(x + r * inputs + k, end - k), wide, sums[r][n]);
  }
}

// Adds the inputs of a block times its offsets, lane by lane as everything else.
template <int R, int N>
JAXSERVE_INLINE void add_offsets(Vec (&sums)[R][N], const float* x, const float* offsets, size_t blocks, size_t inputs,
                                 size_t first, size_t end) {
  for (int r = 0; r < R; ++r) {
    Vec total = splat(0.0f);
    size_t k = first;
    for (; k + kLanes <= end; k += kLanes) total = total + load(x + r * inputs + k);
    if (k < end) total = total + load_first(x + r * inputs + k, end - k);
    for (int n = 0; n < N; ++n) sums[r][n] = fma(total, splat(offsets[n * blocks]), sums[r][n]);
  }
}

template <int R, int N, class T>
JAXSERVE_INLINE void sum_blocks(Vec (&sums)[R][N], const float* x, const Rows<T>& w, size_t output) {
  const T* values = at(w.values, output * w.inputs);
  if (w.per_row()) {
    accumulate<R, N>(sums, x, values, w.inputs, 0, w.inputs);
    return;
  }
  const float* scales = w.scales + output * w.blocks();
  for (size_t b = 0; b < w.blocks(); ++b) {
    Vec part[R][N] = {};
    size_t first = b * w.block, end = first + w.block < w.inputs ? first + w.block : w.inputs;
    accumulate<R, N>(part, x, values, w.inputs, first, end);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) sums[r][n] = fma(part[r][n], splat(scales[n * w.blocks() + b]), sums[r][n]);
    if (w.offsets) add_offsets<R, N>(sums, x, w.offsets + output * w.blocks() + b, w.blocks(), w.inputs, first, end);
  }
}

template <int R, int N, class T>
void tile(const float* x, const Rows<T>& w, size_t output, float* y) {
  Vec sums[R][N] = {};
  sum_blocks<R, N>(sums, x, w, output);
  bool scaled = w.scales != nullptr && w.per_row();
  for (int r = 0; r < R; ++r) {
    float* out = y + r * w.stride + output;
    if constexpr (N == 4) {
      store_sums4(out, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    } else {
      for (int n = 0; n < N; ++n) out[n] = sum(sums[r][n]);
    }
    if (scaled)
      for (int n = 0; n < N; ++n) out[n] *= w.scales[output + n];
  }
}

// R rows against outputs [first, last): the rows stay in the nearest cache.
template <int R, class T>
void row_tile(const float* x, const Rows<T>& w, size_t first, size_t last, float* y) {
  for (; first + kTileOutputs <= last; first += kTileOutputs) tile<R, kTileOutputs>(x, w, first, y);
  for (; first < last; ++first)
    for (int r = 0; r < R; ++r) tile<1, 1>(x + r * w.inputs, w, first, y + r * w.stride);
}

// Rows in tiles of 6, 4, 2 and 1, as the registers allow.
template <class T>
void row_tiles(const float* x, size_t rows, const Rows<T>& w, size_t first, size_t last, float* y) {
  size_t row = 0;
  auto take = [&](auto tile_rows) {
    constexpr int R = decltype(tile_rows)::value;
    for (; kTileRows >= R && row + R <= rows; row += R)
      row_tile<R>(x + row * w.inputs, w, first, last, y + row * w.stride);
  };
  take(Count<6>{}), take(Count<4>{}), take(Count<2>{}), take(Count<1>{});
}

template <class T>
void multiply(const Call& call, const float* x, size_t rows, const Rows<T>& w, float* y) {
  size_t step = outputs_per_unit(w.outputs, w.inputs * sizeof(T));
  if (rows * w.outputs * w.inputs < kSerial) step = w.outputs;
  parallel_for(call, (w.outputs + step - 1) / step, [&](size_t unit) {
    size_t first = unit * step, last = first + step < w.outputs ? first + step : w.outputs;
    row_tiles(x, rows, w, first, last, y);
  });
}

}  // namespace jaxserve
