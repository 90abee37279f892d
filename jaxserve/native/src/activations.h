// Inputs as codes of 16 bits, each 32 neighbours with a scale of their own: what blocks of weights are multiplied with.
//
// scale = largest / 32258, code = round(x * (32258 / largest)), to nearest, ties to even. A code is two whole numbers from
// -127 to 127, 254 high + low, for instructions that multiply bytes. A row's codes depend on it alone.
#pragma once

#include "parallel.h"
#include "scratch.h"

namespace jaxserve {

constexpr size_t kInputs = 32;          // that share a scale
constexpr float kStep = 254.0f;         // what one of the high numbers is worth
constexpr float kLargest = 127.0f * kStep;
constexpr float kSmallest = 1e-30f;     // magnitudes below count as zero: kLargest / x must be finite
constexpr size_t kRowsAtOnce = 16;      // of a unit of work

// T rows of `inputs` numbers; weights have groups of `group` inputs.
struct Activations {
  int8_t* codes;    // [T, 2, inputs]: high numbers, low numbers
  float* scales;    // [T, inputs / 32]
  float* sums;      // [T, inputs / group]: of scale * code
  int32_t* totals;  // [T, inputs / group, 2]: of the high and of the low numbers
  size_t inputs, group;

  size_t blocks() const { return inputs / kInputs; }
  size_t groups() const { return inputs / group; }

  static size_t floats(size_t rows, size_t inputs, size_t group) {
    return rows * (inputs / 2 + inputs / kInputs + 3 * (inputs / group)) + 64;
  }
  static Activations in(float* memory, size_t rows, size_t inputs, size_t group) {
    Activations made{reinterpret_cast<int8_t*>(memory), memory + rows * inputs / 2, nullptr, nullptr, inputs, group};
    made.sums = made.scales + rows * made.blocks();
    made.totals = reinterpret_cast<int32_t*>(made.sums + rows * made.groups());
    return made;
  }
};

#if defined(__AVX512F__)
JAXSERVE_INLINE Vec magnitude(Vec a) { return {_mm512_abs_ps(a.v)}; }
JAXSERVE_INLINE void store_codes(int8_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
#elif defined(__AVX2__)
JAXSERVE_INLINE Vec magnitude(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
JAXSERVE_INLINE void store_codes(int8_t* p, Vec a) {
  __m256i wide = _mm256_cvtps_epi32(a.v);
  __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
}
#else
JAXSERVE_INLINE Vec magnitude(Vec a) { return max(a, splat(0.0f) - a); }
JAXSERVE_INLINE void store_codes(int8_t* p, Vec a) {
  Vec whole = round(a);
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(static_cast<int32_t>(whole.v[i]));
}
#endif

inline void quantise_block(const float* x, int8_t* high, int8_t* low, float* scale) {
  Vec most = splat(0.0f);
  for (size_t i = 0; i < kInputs; i += kLanes) most = max(most, magnitude(load(x + i)));
  float peak = largest(most);
  Vec factor = splat(peak > kSmallest ? kLargest / peak : 0.0f);
  for (size_t i = 0; i < kInputs; i += kLanes) {
    Vec code = round(load(x + i) * factor), upper = round(code * splat(1.0f / kStep));
    store_codes(high + i, upper);
    store_codes(low + i, code - upper * splat(kStep));
  }
  *scale = peak / kLargest;
}

inline int32_t total(const int8_t* codes, size_t count) {
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += codes[i];
  return sum;
}

inline void quantise_row(const float* x, size_t row, const Activations& to) {
  int8_t *high = to.codes + 2 * row * to.inputs, *low = high + to.inputs;
  float* scales = to.scales + row * to.blocks();
  for (size_t i = 0; i < to.inputs; i += kInputs) quantise_block(x + row * to.inputs + i, high + i, low + i, scales + i / kInputs);
  for (size_t g = 0; g < to.groups(); ++g) {
    int32_t* totals = to.totals + 2 * (row * to.groups() + g);
    totals[0] = total(high + g * to.group, to.group), totals[1] = total(low + g * to.group, to.group);
    float sum = kStep * static_cast<float>(totals[0]) + static_cast<float>(totals[1]);  // exact: below 2^24
    to.sums[row * to.groups() + g] = scales[g * to.group / kInputs] * sum;
  }
}

// The inputs [T, inputs] in this thread's scratch memory.
inline Activations quantise(const Call& call, const float* x, size_t rows, size_t inputs, size_t group) {
  Activations made = Activations::in(scratch(Activations::floats(rows, inputs, group)), rows, inputs, group);
  parallel_for(call, (rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](size_t unit) {
    size_t last = (unit + 1) * kRowsAtOnce < rows ? (unit + 1) * kRowsAtOnce : rows;
    for (size_t row = unit * kRowsAtOnce; row < last; ++row) quantise_row(x, row, made);
  });
  return made;
}

}  // namespace jaxserve
