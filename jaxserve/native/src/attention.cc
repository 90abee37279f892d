// jaxserve_attention: q, k, v, cache, cu_q_lens, kv_lens, page_table, first_page, sinks, lasts -> out, cache (the same memory).

#include "attention.h"

namespace jaxserve {
namespace {

struct Place {
  size_t row, first, queries;
};

// Cuts the rows into runs of queries: their number, and where `places` is not null, what they are.
template <class T>
size_t cut(const Step<T>& step, Place* places) {
  size_t most = kQueryVectors / step.group() < 1 ? 1 : kQueryVectors / step.group(), made = 0;
  for (size_t row = 0; row < step.rows; ++row)
    for (size_t at = 0, all = step.count(row); at < all; at += most, ++made)
      if (places) places[made] = {row, step.begin(row) + at, at + most < all ? most : all - at};
  return made;
}

template <class T>
XLA_FFI_Error* attend_all(const Call& call) {
  Array q = call.arg(0), k = call.arg(1), cache = call.ret(1), table = call.arg(6), sinks = call.arg(8);
  Step<T> step{q.as<float>(), k.as<float>(), call.arg(2).as<float>(), cache.as<T>(), call.arg(4).as<int32_t>(),
               call.arg(5).as<int32_t>(), table.as<int32_t>(), sinks.dim(0) ? sinks.as<float>() : nullptr,
               call.arg(9).dim(0) ? call.arg(9).as<int32_t>() : nullptr,
               call.ret(0).as<float>(), q.dim(0), table.dim(0), q.dim(1), k.dim(1), q.dim(2), cache.dim(2), table.dim(1),
               static_cast<size_t>(*call.arg(7).as<int32_t>()), static_cast<size_t>(call.attribute<int64_t>("window", 0)),
               call.attribute<float>("scale", 1.0f), call.attribute<float>("softcap", 0.0f)};
  if (cache.data != call.arg(3).data)
    std::memcpy(cache.data, call.arg(3).data, cache.dim(0) * cache.dim(1) * cache.dim(2) * cache.dim(3) * sizeof(T));
  size_t used = static_cast<size_t>(step.starts[step.rows]), width = step.heads * step.dim;
  std::memset(step.out + used * width, 0, (step.tokens - used) * width * sizeof(float));
  for (size_t row = 0; row < step.rows; ++row) write(step, row);
  size_t units = cut<T>(step, nullptr);
  Place* places = static_cast<Place*>(std::malloc((units + 1) * sizeof(Place)));
  cut(step, places);
  parallel_for(call, units * step.kv_heads, [&](size_t unit) {
    const Place& place = places[units - 1 - unit / step.kv_heads];  // the late ones of a prompt take longest
    run(step, place.row, unit % step.kv_heads, place.first, place.queries);
  });
  std::free(places);
  return nullptr;
}

XLA_FFI_Error* attention(const Call& call) {
  switch (call.arg(3).type) {
    case XLA_FFI_DataType_F32: return attend_all<float>(call);
    case XLA_FFI_DataType_BF16: return attend_all<bf16>(call);
    default: return call.refuse("the cache must be float32 or bfloat16");
  }
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_attention, jaxserve::attention)
