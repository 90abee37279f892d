// y = x W^T with weights of 4 or 8 bits in groups of 16 or 32 inputs, as GGUF's blocks are, and inputs of 16 bits.
//
// 16 outputs lie side by side in a tile: for each four inputs, four codes of the first output, four of the second ... So a
// vector of sums belongs to as many outputs, and nothing is added across lanes. The products of a group are whole numbers,
// added exactly; then one multiplication with the scales of weight and input, and a sum over the groups in order: a row's
// bits depend neither on other rows nor on the instruction set's width.
#pragma once

#include "activations.h"

namespace jaxserve {

constexpr size_t kTile = 16;     // outputs side by side
constexpr int kBlockRows = kLanes == 16 ? 8 : 4;  // rows that share the loads of a weight

struct Nibbles {};  // two inputs' codes in a byte, 0 to 15: inputs 8i .. 8i + 3 in the low halves, 8i + 4 .. 8i + 7 in the high ones
struct Bytes {};    // whole numbers from -128 to 127

JAXSERVE_INLINE int32_t four_of(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return four;
}

// Codes of kLanes outputs, four inputs of each; and their sums of products with an input's four, in 16 and in 32 bits.
#if defined(__AVX512F__)
using Fours = __m512i;
JAXSERVE_INLINE Fours load_fours(const uint8_t* p) { return _mm512_loadu_si512(p); }
JAXSERVE_INLINE Fours low_halves(Fours a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
JAXSERVE_INLINE Fours high_halves(Fours a) { return low_halves(_mm512_srli_epi16(a, 4)); }
JAXSERVE_INLINE Fours spread_four(const int8_t* p) { return _mm512_set1_epi32(four_of(p)); }
JAXSERVE_INLINE Fours pairs(Fours codes, Fours x) { return _mm512_maddubs_epi16(codes, x); }
JAXSERVE_INLINE Fours add_pairs(Fours a, Fours b) { return _mm512_add_epi16(a, b); }
JAXSERVE_INLINE Fours add_sums(Fours a, Fours b) { return _mm512_add_epi32(a, b); }
JAXSERVE_INLINE Fours widened(Fours pairs) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)); }
JAXSERVE_INLINE Fours magnitudes(Fours a) { return _mm512_abs_epi8(a); }
JAXSERVE_INLINE Fours with_signs(Fours x, Fours of) {
  return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(of), _mm512_setzero_si512(), x);
}
JAXSERVE_INLINE Vec as_floats(Fours a) { return {_mm512_cvtepi32_ps(a)}; }
#elif defined(__AVX2__)
using Fours = __m256i;
JAXSERVE_INLINE Fours load_fours(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
JAXSERVE_INLINE Fours low_halves(Fours a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
JAXSERVE_INLINE Fours high_halves(Fours a) { return low_halves(_mm256_srli_epi16(a, 4)); }
JAXSERVE_INLINE Fours spread_four(const int8_t* p) { return _mm256_set1_epi32(four_of(p)); }
JAXSERVE_INLINE Fours pairs(Fours codes, Fours x) { return _mm256_maddubs_epi16(codes, x); }
JAXSERVE_INLINE Fours add_pairs(Fours a, Fours b) { return _mm256_add_epi16(a, b); }
JAXSERVE_INLINE Fours add_sums(Fours a, Fours b) { return _mm256_add_epi32(a, b); }
JAXSERVE_INLINE Fours widened(Fours pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
JAXSERVE_INLINE Fours magnitudes(Fours a) { return _mm256_abs_epi8(a); }
JAXSERVE_INLINE Fours with_signs(Fours x, Fours of) { return _mm256_sign_epi8(x, of); }
JAXSERVE_INLINE Vec as_floats(Fours a) { return {_mm256_cvtepi32_ps(a)}; }
#else
struct Fours {
  int8_t codes[4 * kLanes];
};
JAXSERVE_INLINE Fours load_fours(const uint8_t* p) {
  Fours a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
JAXSERVE_INLINE Fours low_halves(Fours a) {
  for (int8_t& code : a.codes) code &= 15;
  return a;
}
JAXSERVE_INLINE Fours high_halves(Fours a) {
  for (int8_t& code : a.codes) code = static_cast<int8_t>(static_cast<uint8_t>(code) >> 4);
  return a;
}
#endif

// The sum of a group's products with bytes of one row for kLanes outputs: begin, add four inputs at a time, read.
template <class Code>
struct Bytewise;

#if defined(__AVX512VNNI__)

template <>
struct Bytewise<Nibbles> {
  Fours sum;
  JAXSERVE_INLINE void begin(int32_t) { sum = _mm512_setzero_si512(); }
  JAXSERVE_INLINE void add(Fours codes, const int8_t* x) { sum = _mm512_dpbusd_epi32(sum, codes, spread_four(x)); }
  JAXSERVE_INLINE Vec read() const { return as_floats(sum); }
};
template <>
struct Bytewise<Bytes> : Bytewise<Nibbles> {  // codes are 128 too large, to have no sign
  JAXSERVE_INLINE void begin(int32_t total) { sum = _mm512_set1_epi32(-128 * total); }
};
JAXSERVE_INLINE Fours prepared(Fours codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }

#elif defined(__AVX512F__) || defined(__AVX2__)

template <>
struct Bytewise<Nibbles> {  // in 16 bits: a lane gets 16 products of at most 15 * 127
  Fours sum;
  JAXSERVE_INLINE void begin(int32_t) { sum = Fours{}; }
  JAXSERVE_INLINE void add(Fours codes, const int8_t* x) { sum = add_pairs(sum, pairs(codes, spread_four(x))); }
  JAXSERVE_INLINE Vec read() const { return as_floats(widened(sum)); }
};
template <>
struct Bytewise<Bytes> {  // |code| times the input with the code's sign: two products fit into 16 bits
  Fours sum;
  JAXSERVE_INLINE void begin(int32_t) { sum = Fours{}; }
  JAXSERVE_INLINE void add(Fours codes, const int8_t* x) {
    sum = add_sums(sum, widened(pairs(magnitudes(codes), with_signs(spread_four(x), codes))));
  }
  JAXSERVE_INLINE Vec read() const { return as_floats(sum); }
};
JAXSERVE_INLINE Fours prepared(Fours codes) { return codes; }

#else

template <class Code>
struct Bytewise {
#if defined(__ARM_FEATURE_DOTPROD)
  int32x4_t sum[2];
  JAXSERVE_INLINE void begin(int32_t) { sum[0] = sum[1] = vdupq_n_s32(0); }
  JAXSERVE_INLINE void add(const Fours& codes, const int8_t* x) {
    int8x16_t spread = vreinterpretq_s8_s32(vdupq_n_s32(four_of(x)));
    for (int i = 0; i < 2; ++i) sum[i] = vdotq_s32(sum[i], vld1q_s8(codes.codes + 16 * i), spread);
  }
  JAXSERVE_INLINE Vec read() const {
    float32x4_t wide[2] = {vcvtq_f32_s32(sum[0]), vcvtq_f32_s32(sum[1])};
    Vec a;
    std::memcpy(&a.v, wide, sizeof wide);
    return a;
  }
#else
  int32_t sum[kLanes];
  JAXSERVE_INLINE void begin(int32_t) { std::memset(sum, 0, sizeof sum); }
  JAXSERVE_INLINE void add(const Fours& codes, const int8_t* x) {
    for (int i = 0; i < kLanes; ++i)
      for (int j = 0; j < 4; ++j) sum[i] += codes.codes[4 * i + j] * x[j];
  }
  JAXSERVE_INLINE Vec read() const {
    Vec a;
    for (int i = 0; i < kLanes; ++i) a.v[i] = static_cast<float>(sum[i]);
    return a;
  }
#endif
};
JAXSERVE_INLINE Fours prepared(Fours codes) { return codes; }

#endif

// The same with inputs of 16 bits, of whose low numbers the first lies `gap` bytes behind that of the high ones.
template <class Code>
struct Dot {
  Bytewise<Code> high, low;
  JAXSERVE_INLINE void begin(const int32_t* totals) { high.begin(totals[0]), low.begin(totals[1]); }
  JAXSERVE_INLINE void add(const Fours& codes, const int8_t* x, size_t gap) { high.add(codes, x), low.add(codes, x + gap); }
  JAXSERVE_INLINE Vec read() const { return fma(high.read(), splat(kStep), low.read()); }
};

// A weight: tiles of codes [tiles, inputs, 16], packed as above; for each tile and group 16 scales and, with offsets, 16 offsets.
struct BlockRows {
  const uint8_t* codes;
  const void* scales;
  size_t outputs, inputs, group;
  bool offsets;

  size_t groups() const { return inputs / group; }
  size_t factors() const { return offsets ? 2 * kTile : kTile; }  // of a tile and group
};

// Eight inputs of kLanes outputs: low and high are four each.
struct Eight {
  Fours low, high;
};
JAXSERVE_INLINE Eight load_eight(const uint8_t* tile, size_t input, size_t lane, Nibbles) {
  Fours both = load_fours(tile + input * (kTile / 2) + 4 * lane);
  return {low_halves(both), high_halves(both)};
}
JAXSERVE_INLINE Eight load_eight(const uint8_t* tile, size_t input, size_t lane, Bytes) {
  const uint8_t* from = tile + input * kTile + 4 * lane;
  return {prepared(load_fours(from)), prepared(load_fours(from + 4 * kTile))};
}
constexpr size_t packed_bytes(size_t codes, Nibbles) { return codes / 2; }
constexpr size_t packed_bytes(size_t codes, Bytes) { return codes; }

// R rows against kLanes outputs of a tile, beginning with output `lane` of it.
template <int R, class Code, class Scale, size_t Group>
JAXSERVE_INLINE void block_sums(const Activations& x, size_t row, const BlockRows& w, size_t tile, size_t lane, Vec (&sums)[R]) {
  const uint8_t* codes = w.codes + tile * packed_bytes(kTile * w.inputs, Code());
  const Scale* factors = static_cast<const Scale*>(w.scales) + tile * w.groups() * w.factors() + lane;
  const int8_t* from = x.codes + 2 * row * x.inputs;
  for (size_t g = 0; g < w.groups(); ++g, factors += w.factors()) {
    Dot<Code> dots[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dots[r].begin(x.totals + 2 * ((row + r) * x.groups() + g));
#pragma GCC unroll 4
    for (int step = 0; step < static_cast<int>(Group / 8); ++step) {
      size_t k = g * Group + 8 * step;
      Eight eight = load_eight(codes, k, lane, Code());
      if (R == 1) __builtin_prefetch(codes + packed_bytes(k * kTile, Code()) + 2048);
      if (R == 1 && packed_bytes(2, Code()) == 2) __builtin_prefetch(codes + k * kTile + 2112);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) dots[r].add(eight.low, from + 2 * r * x.inputs + k, x.inputs);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) dots[r].add(eight.high, from + 2 * r * x.inputs + k + 4, x.inputs);
    }
    Vec scale = load(factors);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      Vec both = scale * splat(x.scales[(row + r) * x.blocks() + g * Group / kInputs]);
      sums[r] = fma(dots[r].read(), both, sums[r]);
    }
    if (!w.offsets) continue;
    Vec offset = load(factors + kTile);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r] = fma(offset, splat(x.sums[(row + r) * x.groups() + g]), sums[r]);
  }
}

template <int R, class Code, class Scale, size_t Group>
void block_rows(const Activations& x, size_t row, const BlockRows& w, size_t first, size_t last, float* y) {
  for (size_t tile = first; tile < last; ++tile)
    for (size_t lane = 0; lane < kTile; lane += kLanes) {
      Vec sums[R] = {};
      block_sums<R, Code, Scale, Group>(x, row, w, tile, lane, sums);
      for (int r = 0; r < R; ++r) store(y + (row + r) * w.outputs + tile * kTile + lane, sums[r]);
    }
}

// All rows against the tiles [first, last).
template <class Code, class Scale, size_t Group>
void block_tiles(const Activations& x, size_t rows, const BlockRows& w, size_t first, size_t last, float* y) {
  size_t row = 0;
  auto take = [&](auto count) {
    constexpr int R = decltype(count)::value;
    for (; kBlockRows >= R && row + R <= rows; row += R) block_rows<R, Code, Scale, Group>(x, row, w, first, last, y);
  };
  take(Count<8>{}), take(Count<4>{}), take(Count<2>{}), take(Count<1>{});
}

}  // namespace jaxserve
