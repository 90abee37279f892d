// Inputs as codes of 8 bits, each 32 neighbours with a scale of their own: what blocks of weights are multiplied with.
//
// scale = largest / 127, code = round(x * (127 / largest)), to nearest, ties to even. A row's codes depend on it alone.
#pragma once

#include "parallel.h"
#include "scratch.h"

namespace jaxserve {

constexpr size_t kInputs = 32;          // that share a scale
constexpr float kSmallest = 1e-30f;     // magnitudes below count as zero: 127 / x must be finite
constexpr size_t kRowsAtOnce = 16;      // of a unit of work

// T rows of `inputs` numbers; weights have groups of `group` inputs.
struct Activations {
  int8_t* codes;    // [T, inputs]
  float* scales;    // [T, inputs / 32]
  float* sums;      // [T, inputs / group]: of scale * code
  int32_t* totals;  // [T, inputs / group]: of the codes
  size_t inputs, group;

  size_t blocks() const { return inputs / kInputs; }
  size_t groups() const { return inputs / group; }

  static size_t floats(size_t rows, size_t inputs, size_t group) {
    return rows * (inputs / 4 + inputs / kInputs + 2 * (inputs / group)) + 64;
  }
  static Activations in(float* memory, size_t rows, size_t inputs, size_t group) {
    Activations made{reinterpret_cast<int8_t*>(memory), memory + rows * inputs / 4, nullptr, nullptr, inputs, group};
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

inline void quantise_block(const float* x, int8_t* codes, float* scale) {
  Vec most = splat(0.0f);
  for (size_t i = 0; i < kInputs; i += kLanes) most = max(most, magnitude(load(x + i)));
  float peak = largest(most);
  Vec factor = splat(peak > kSmallest ? 127.0f / peak : 0.0f);
  for (size_t i = 0; i < kInputs; i += kLanes) store_codes(codes + i, load(x + i) * factor);
  *scale = peak / 127.0f;
}

inline void quantise_row(const float* x, size_t row, const Activations& to) {
  int8_t* codes = to.codes + row * to.inputs;
  float* scales = to.scales + row * to.blocks();
  for (size_t b = 0; b < to.blocks(); ++b) quantise_block(x + row * to.inputs + b * kInputs, codes + b * kInputs, scales + b);
  for (size_t g = 0; g < to.groups(); ++g) {
    int32_t total = 0;
    for (size_t i = 0; i < to.group; ++i) total += codes[g * to.group + i];
    to.totals[row * to.groups() + g] = total;
    to.sums[row * to.groups() + g] = scales[g * to.group / kInputs] * static_cast<float>(total);
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
