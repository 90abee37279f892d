// jaxserve_zeros: -> an array of zeros of which no page is resident before it is touched (Linux; filled elsewhere).

#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "parallel.h"

namespace jaxserve {
namespace {

size_t num_bytes(const Array& array) {
  size_t bits = 8;
  switch (array.type) {
    case XLA_FFI_DataType_F32: bits = 32; break;
    case XLA_FFI_DataType_BF16:
    case XLA_FFI_DataType_F16: bits = 16; break;
    default: break;
  }
  size_t count = bits / 8;
  for (int64_t axis = 0; axis < array.rank; ++axis) count *= array.dim(axis);
  return count;
}

// Whole pages are given back, which reads as zeros ever after (madvise(2)); what else lies on the first and last stays.
void clear(char* first, size_t count) {
#if defined(__linux__)
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  size_t head = (page - reinterpret_cast<uintptr_t>(first) % page) % page;
  if (count >= head + page) {
    size_t whole = (count - head) / page * page;
    if (madvise(first + head, whole, MADV_DONTNEED) == 0) {
      std::memset(first, 0, head);
      std::memset(first + head + whole, 0, count - head - whole);
      return;
    }
  }
#endif
  std::memset(first, 0, count);
}

XLA_FFI_Error* zeros(const Call& call) {
  for (size_t i = 0; i < call.rets(); ++i) clear(call.ret(i).as<char>(), num_bytes(call.ret(i)));
  return nullptr;
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_zeros, jaxserve::zeros)
