// One vector of floats, in the widest form that the instruction set of this build has; and dot products of bytes.
//
// Every build of the library is for one instruction set, chosen by compiler flags. Whatever the set, a sum over the lanes
// of a vector is a fixed tree: lanes half a vector apart first, then (0 + 1) + (2 + 3). Nothing here may depend on how many
// rows a kernel works on: that is what keeps a row's bits the same in every batch. Build with -ffp-contract=off.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define JAXSERVE_INLINE inline __attribute__((always_inline))

namespace jaxserve {

// Numbers as they are stored.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
struct e4m3 {
  uint8_t bits;
};
struct e2m1 {  // two in a byte, the even one in the low half
  uint8_t bits;
};
struct uint4 {  // the same of 0 to 15
  uint8_t bits;
};

JAXSERVE_INLINE float widen(float x) { return x; }
JAXSERVE_INLINE float widen(int8_t x) { return static_cast<float>(x); }
JAXSERVE_INLINE float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
JAXSERVE_INLINE uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
JAXSERVE_INLINE float widen(bf16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }
JAXSERVE_INLINE float widen(f16 x) {  // exact; subnormal numbers are multiples of 2^-24
  uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31, mantissa = x.bits & 0x3ff;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  float small = static_cast<float>(mantissa) * 5.9604644775390625e-08f;
  return sign ? -small : small;
}
JAXSERVE_INLINE float widen(e4m3 x) {  // as float16 the exponent is too small by 8; the codes of NaN are never stored
  f16 half{static_cast<uint16_t>(((x.bits & 0x80u) << 8) | ((x.bits & 0x7fu) << 7))};
  return widen(half) * 256.0f;
}
constexpr int8_t kDoubledE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Number i of an array, and where it lies.
template <class T>
JAXSERVE_INLINE const T* at(const T* p, size_t i) {
  return p + i;
}
JAXSERVE_INLINE const e2m1* at(const e2m1* p, size_t i) { return p + i / 2; }
template <class T>
JAXSERVE_INLINE float number(const T* p, size_t i) {
  return widen(p[i]);
}
JAXSERVE_INLINE const uint4* at(const uint4* p, size_t i) { return p + i / 2; }
JAXSERVE_INLINE float number(const uint4* p, size_t i) {
  return static_cast<float>(i % 2 ? p[i / 2].bits >> 4 : p[i / 2].bits & 15);
}
JAXSERVE_INLINE float number(const e2m1* p, size_t i) {
  return 0.5f * static_cast<float>(kDoubledE2m1[i % 2 ? p[i / 2].bits >> 4 : p[i / 2].bits & 15]);
}
JAXSERVE_INLINE bf16 round_bf16(float x) {  // to nearest, ties to even
  uint32_t bits = to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

#if defined(__AVX512F__)

constexpr int kLanes = 16;
constexpr int kTileRows = 6;
struct Vec {
  __m512 v;
};
JAXSERVE_INLINE Vec splat(float x) { return {_mm512_set1_ps(x)}; }
JAXSERVE_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
JAXSERVE_INLINE Vec load(const bf16* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
JAXSERVE_INLINE Vec load(const f16* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
JAXSERVE_INLINE Vec load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
JAXSERVE_INLINE Vec load(const e4m3* p) {
  __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
  return {_mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(sign, rest)), _mm512_set1_ps(256.0f))};
}
JAXSERVE_INLINE __m128i nibbles(const void* p) {
  __m128i pairs = _mm_loadl_epi64(static_cast<const __m128i*>(p)), low = _mm_set1_epi8(15);
  return _mm_unpacklo_epi8(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low));
}
JAXSERVE_INLINE Vec load(const uint4* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(nibbles(p)))}; }
JAXSERVE_INLINE Vec load(const e2m1* p) {
  __m128i doubled = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDoubledE2m1)), nibbles(p));
  return {_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(doubled)), _mm512_set1_ps(0.5f))};
}
JAXSERVE_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
JAXSERVE_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
JAXSERVE_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, 8)}; }
JAXSERVE_INLINE Vec times_power_of_two(Vec a, Vec exponent) { return {_mm512_scalef_ps(a.v, exponent.v)}; }
JAXSERVE_INLINE __m128 quarter(Vec a) {
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
constexpr int kTileRows = 3;
struct Vec {
  __m256 v;
};
JAXSERVE_INLINE Vec splat(float x) { return {_mm256_set1_ps(x)}; }
JAXSERVE_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
JAXSERVE_INLINE Vec load(const bf16* p) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
JAXSERVE_INLINE Vec load(const f16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
JAXSERVE_INLINE Vec load(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
JAXSERVE_INLINE Vec load(const e4m3* p) {
  __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
  __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7);
  return {_mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), _mm256_set1_ps(256.0f))};
}
JAXSERVE_INLINE __m128i nibbles(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  __m128i pairs = _mm_cvtsi32_si128(four), low = _mm_set1_epi8(15);
  return _mm_unpacklo_epi8(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low));
}
JAXSERVE_INLINE Vec load(const uint4* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(nibbles(p)))}; }
JAXSERVE_INLINE Vec load(const e2m1* p) {
  __m128i doubled = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDoubledE2m1)), nibbles(p));
  return {_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(doubled)), _mm256_set1_ps(0.5f))};
}
JAXSERVE_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
JAXSERVE_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
JAXSERVE_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
JAXSERVE_INLINE Vec round(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
JAXSERVE_INLINE Vec times_power_of_two(Vec a, Vec exponent) {  // of exponents from -126 to 127
  __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(exponent.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(bits))};
}
JAXSERVE_INLINE __m128 quarter(Vec a) {
  return _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
}

#else  // NEON and everything else: the compiler's own vectors

#define JAXSERVE_PORTABLE 1
constexpr int kLanes = 8;
constexpr int kTileRows = 2;
typedef float Lanes __attribute__((vector_size(32), aligned(4)));
struct Vec {
  Lanes v;
};
JAXSERVE_INLINE Vec splat(float x) { return {Lanes{x, x, x, x, x, x, x, x}}; }
JAXSERVE_INLINE Vec load(const float* p) {
  Vec a;
  std::memcpy(&a.v, p, sizeof a.v);
  return a;
}
template <class T>
JAXSERVE_INLINE Vec load(const T* p) {
  Vec a;
  for (int i = 0; i < kLanes; ++i) a.v[i] = number(p, i);
  return a;
}
JAXSERVE_INLINE void store(float* p, Vec a) { std::memcpy(p, &a.v, sizeof a.v); }
#if defined(__aarch64__)
JAXSERVE_INLINE Vec fma(Vec a, Vec b, Vec c) {
  float32x4_t a4[2], b4[2], c4[2];
  std::memcpy(a4, &a.v, 32), std::memcpy(b4, &b.v, 32), std::memcpy(c4, &c.v, 32);
  for (int i = 0; i < 2; ++i) c4[i] = vfmaq_f32(c4[i], a4[i], b4[i]);
  std::memcpy(&c.v, c4, 32);
  return c;
}
#else
JAXSERVE_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
#endif
JAXSERVE_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
JAXSERVE_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
JAXSERVE_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
JAXSERVE_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
JAXSERVE_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
JAXSERVE_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
JAXSERVE_INLINE Vec round(Vec a) {  // to nearest, ties to even, of magnitudes below 2^22
  const float shift = 12582912.0f;
  Lanes shifted = a.v + shift;
  return {shifted - shift};
}
JAXSERVE_INLINE Vec times_power_of_two(Vec a, Vec exponent) {
  for (int i = 0; i < kLanes; ++i) a.v[i] *= from_bits(static_cast<uint32_t>(static_cast<int>(exponent.v[i]) + 127) << 23);
  return a;
}

#endif

#if defined(JAXSERVE_PORTABLE)
JAXSERVE_INLINE float sum(Vec a) {
  float q[4];
  for (int i = 0; i < 4; ++i) q[i] = a.v[i] + a.v[i + 4];
  return (q[0] + q[1]) + (q[2] + q[3]);
}
JAXSERVE_INLINE void store_sums4(float* p, Vec a, Vec b, Vec c, Vec d) {
  p[0] = sum(a), p[1] = sum(b), p[2] = sum(c), p[3] = sum(d);
}
#else
// Sums of four vectors at once, each by the same tree as `sum`.
JAXSERVE_INLINE void store_sums4(float* p, Vec a, Vec b, Vec c, Vec d) {
  __m128 ab = _mm_hadd_ps(quarter(a), quarter(b)), cd = _mm_hadd_ps(quarter(c), quarter(d));
  _mm_storeu_ps(p, _mm_hadd_ps(ab, cd));
}
JAXSERVE_INLINE float sum(Vec a) {
  __m128 pairs = _mm_hadd_ps(quarter(a), quarter(a));
  return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
}
#endif

// The first n < kLanes numbers, zeros behind them.
template <class T>
JAXSERVE_INLINE Vec load_first(const T* p, size_t n) {
  float numbers[kLanes] = {};
  for (size_t i = 0; i < n; ++i) numbers[i] = number(p, i);
  return load(numbers);
}

JAXSERVE_INLINE void store_first(float* p, Vec a, size_t n) {
  float numbers[kLanes];
  store(numbers, a);
  std::memcpy(p, numbers, n * sizeof(float));
}

JAXSERVE_INLINE float largest(Vec a) {
  float numbers[kLanes];
  store(numbers, a);
  float most = numbers[0];
  for (int i = 1; i < kLanes; ++i) most = numbers[i] > most ? numbers[i] : most;
  return most;
}

// e^x within 1 ulp or so for x <= 88; arguments below -87 count as -87. Range reduction and polynomial: Cephes' expf.
JAXSERVE_INLINE Vec exp(Vec x) {
  x = max(x, splat(-87.0f));
  Vec n = round(x * splat(1.44269504f));
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  constexpr float kTerms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  Vec p = splat(1.9875691500e-4f);
  for (float term : kTerms) p = fma(p, r, splat(term));
  p = fma(r * r, p, r + splat(1.0f));
  return times_power_of_two(p, n);
}

JAXSERVE_INLINE void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace jaxserve
