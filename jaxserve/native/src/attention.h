// Softmax attention over a paged cache, decode rows and prompt chunks alike, after writing the step's keys and values.
//
// A page holds, for each key/value head, its keys [page, H] and then its values. Queries meet the keys in blocks that begin
// at multiples of kKeyBlock, by an online softmax (Milakov & Gimelshein 2018). What a query computes does not depend on
// the queries it shares a unit of work with: so a token's bits are the same in a decode row and in any chunk.
#pragma once

#include "matmul_float.h"
#include "scratch.h"

namespace jaxserve {

constexpr size_t kKeyBlock = 64;
constexpr size_t kQueryVectors = 48;  // of a unit of work, about
constexpr float kMasked = -1e30f;

JAXSERVE_INLINE void narrow(float* to, const float* from, size_t count) { std::memcpy(to, from, count * sizeof(float)); }
JAXSERVE_INLINE void narrow(bf16* to, const float* from, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = round_bf16(from[i]);
}

// A step of one layer. Letters as in docs/architecture.md.
template <class T>
struct Step {
  const float *q, *k, *v;  // [T, N, H], [T, K, H], [T, K, H]
  T* cache;                // [S*P, 2K, page, H]
  const int32_t *starts, *lengths, *table;  // cu_q_lens [R + 1], kv_lens [R], page_table [R, C]
  const float* sinks;  // [N], or null
  const int32_t* lasts;  // [T]: the last position that a token sees, or null: its own
  float* out;          // [T, N, H]
  size_t tokens, rows, heads, kv_heads, dim, page, columns, first_page, window;
  float scale, softcap;

  size_t group() const { return heads / kv_heads; }
  size_t count(size_t row) const { return static_cast<size_t>(starts[row + 1] - starts[row]); }
  size_t begin(size_t row) const { return static_cast<size_t>(lengths[row]) - count(row); }
  // Keys of a head from a position on, up to the end of its page; the values lie a page of keys further.
  T* keys(size_t row, size_t kv_head, size_t position) const {
    size_t number = first_page + static_cast<size_t>(table[row * columns + position / page % columns]);
    return cache + ((number * 2 * kv_heads + 2 * kv_head) * page + position % page) * dim;
  }
};

template <class T>
void write(const Step<T>& step, size_t row) {
  for (size_t i = 0; i < step.count(row); ++i) {
    size_t token = static_cast<size_t>(step.starts[row]) + i;
    for (size_t head = 0; head < step.kv_heads; ++head) {
      T* place = step.keys(row, head, step.begin(row) + i);
      size_t from = (token * step.kv_heads + head) * step.dim;
      narrow(place, step.k + from, step.dim);
      narrow(place + step.page * step.dim, step.v + from, step.dim);
    }
  }
}

// The query vectors of one unit: `queries` tokens of a row, times the heads that share a key/value head.
template <class T>
struct Unit {
  const Step<T>& step;
  size_t row, kv_head, first, queries;  // first: position of the first query
  float *q, *values, *scores, *peak, *total;

  size_t vectors() const { return queries * step.group(); }
  size_t position(size_t vector) const { return first + vector / step.group(); }
  size_t low(size_t vector) const {
    size_t seen = position(vector) + 1;
    return step.window == 0 || seen <= step.window ? 0 : seen - step.window;
  }
  size_t token(size_t vector) const {
    return static_cast<size_t>(step.starts[row]) + position(vector) - step.begin(row);
  }
  // Behind the last position that a vector's query sees.
  size_t high(size_t vector) const {
    return step.lasts ? static_cast<size_t>(step.lasts[token(vector)]) + 1 : position(vector) + 1;
  }
  // Where a vector's query and output lie.
  size_t place(size_t vector) const {
    return (token(vector) * step.heads + kv_head * step.group() + vector % step.group()) * step.dim;
  }
};

// Scores to weights of one block, and the running softmax of each vector.
template <class T>
void weigh(const Unit<T>& unit, size_t block) {
  const Step<T>& step = unit.step;
  Vec scale = splat(step.scale), cap = splat(step.softcap), one = splat(1.0f);
  for (size_t m = 0; m < unit.vectors(); ++m) {
    float* s = unit.scores + m * kKeyBlock;
    size_t low = unit.low(m), high = unit.high(m);
    low = low < block ? 0 : (low - block < kKeyBlock ? low - block : kKeyBlock);
    high = high < block ? 0 : (high - block < kKeyBlock ? high - block : kKeyBlock);
    for (size_t i = 0; i < low; ++i) s[i] = kMasked;
    for (size_t i = high; i < kKeyBlock; ++i) s[i] = kMasked;
    Vec most = splat(kMasked);
    for (size_t i = 0; i < kKeyBlock; i += kLanes) {
      Vec x = load(s + i) * scale;
      if (step.softcap > 0.0f) {  // tanh(x) = 1 - 2 / (e^2x + 1)
        Vec half = min(max(x / cap, splat(-15.0f)), splat(15.0f));
        x = cap * (one - splat(2.0f) / (exp(half + half) + one));
      }
      store(s + i, x);
    }
    for (size_t i = 0; i < low; ++i) s[i] = kMasked;
    for (size_t i = high; i < kKeyBlock; ++i) s[i] = kMasked;
    for (size_t i = 0; i < kKeyBlock; i += kLanes) most = max(most, load(s + i));
    float peak = largest(most);
    if (peak < unit.peak[m]) peak = unit.peak[m];
    Vec sums = splat(0.0f);
    for (size_t i = 0; i < kKeyBlock; i += kLanes) store(s + i, exp(load(s + i) - splat(peak)));
    for (size_t i = 0; i < low; ++i) s[i] = 0.0f;
    for (size_t i = high; i < kKeyBlock; ++i) s[i] = 0.0f;
    for (size_t i = 0; i < kKeyBlock; i += kLanes) sums = sums + load(s + i);
    float decay[kLanes];
    store(decay, exp(splat(unit.peak[m] - peak)));
    unit.total[m] = unit.total[m] * decay[0] + sum(sums);
    unit.peak[m] = peak;
    float* values = unit.values + m * step.dim;
    for (size_t i = 0; i < step.dim; ++i) values[i] *= decay[0];
  }
}

// Adds weights times values of some keys, V vectors of the head dimension at once.
template <int R, int V, class T>
JAXSERVE_INLINE void add_values(const float* weights, const T* v, size_t keys, size_t dim, float* values) {
  Vec sums[R][V];
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < V; ++i) sums[r][i] = load(values + r * dim + i * kLanes);
  for (size_t key = 0; key < keys; ++key) {
    Vec wide[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) wide[i] = load(v + key * dim + i * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      Vec weight = splat(weights[r * kKeyBlock + key]);
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) sums[r][i] = fma(weight, wide[i], sums[r][i]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < V; ++i) store(values + r * dim + i * kLanes, sums[r][i]);
}

template <int R, class T>
void add_rows(const float* weights, const T* v, size_t keys, size_t dim, float* values) {
  size_t at = 0;
  for (; at + 4 * kLanes <= dim; at += 4 * kLanes) add_values<R, 4>(weights, v + at, keys, dim, values + at);
  for (; at + kLanes <= dim; at += kLanes) add_values<R, 1>(weights, v + at, keys, dim, values + at);
  for (; at < dim; ++at)
    for (int r = 0; r < R; ++r) {
      float x = values[r * dim + at];
      for (size_t key = 0; key < keys; ++key) x = std::fma(weights[r * kKeyBlock + key], widen(v[key * dim + at]), x);
      values[r * dim + at] = x;
    }
}

// The keys [from, to) of one page: scores, or once these are weights, values.
template <class T>
void meet(const Unit<T>& unit, size_t block, size_t from, size_t to, bool values) {
  const Step<T>& step = unit.step;
  const T* keys = step.keys(unit.row, unit.kv_head, from);
  float* scores = unit.scores + (from - block);
  size_t m = 0;
  if (!values) {
    Rows<T> rows{keys, nullptr, to - from, step.dim, step.dim, kKeyBlock};
    row_tiles(unit.q, unit.vectors(), rows, 0, to - from, scores);
    return;
  }
  const T* v = keys + step.page * step.dim;
  for (; m + 4 <= unit.vectors(); m += 4)
    add_rows<4>(scores + m * kKeyBlock, v, to - from, step.dim, unit.values + m * step.dim);
  for (; m < unit.vectors(); ++m)
    add_rows<1>(scores + m * kKeyBlock, v, to - from, step.dim, unit.values + m * step.dim);
}

template <class T>
void attend(const Unit<T>& unit) {
  const Step<T>& step = unit.step;
  size_t low = unit.low(0), high = 0;  // what no query sees may be anything, NaN too
  for (size_t m = 0; m < unit.vectors(); m += step.group()) high = high < unit.high(m) ? unit.high(m) : high;
  for (size_t block = low / kKeyBlock * kKeyBlock; block < high; block += kKeyBlock) {
    size_t end = block + kKeyBlock < high ? block + kKeyBlock : high;
    for (int values = 0; values < 2; ++values) {
      for (size_t from = block < low ? low : block; from < end;) {
        size_t to = (from / step.page + 1) * step.page;
        meet(unit, block, from, to < end ? to : end, values);
        from = to;
      }
      if (!values) weigh(unit, block);
    }
  }
}

template <class T>
void run(const Step<T>& step, size_t row, size_t kv_head, size_t first, size_t queries) {
  size_t vectors = queries * step.group(), dim = step.dim;
  float* memory = scratch(vectors * (2 * dim + kKeyBlock + 2));
  Unit<T> unit{step, row, kv_head, first, queries, memory, memory + vectors * dim, memory + 2 * vectors * dim, nullptr, nullptr};
  unit.peak = unit.scores + vectors * kKeyBlock;
  unit.total = unit.peak + vectors;
  for (size_t m = 0; m < vectors; ++m) {
    std::memcpy(unit.q + m * dim, step.q + unit.place(m), dim * sizeof(float));
    unit.peak[m] = step.sinks ? step.sinks[kv_head * step.group() + m % step.group()] : kMasked;
    unit.total[m] = step.sinks ? 1.0f : 0.0f;
  }
  std::memset(unit.values, 0, vectors * dim * sizeof(float));
  attend(unit);
  for (size_t m = 0; m < vectors; ++m)
    for (size_t i = 0; i < dim; ++i) step.out[unit.place(m) + i] = unit.values[m * dim + i] / unit.total[m];
}

}  // namespace jaxserve
