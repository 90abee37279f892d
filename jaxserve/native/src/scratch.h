#pragma once

#include <cstddef>
#include <cstdlib>

namespace jaxserve {

// Memory of a thread, kept from call to call.
inline float* scratch(size_t floats) {
  struct Memory {
    float* data = nullptr;
    size_t size = 0;
    ~Memory() { std::free(data); }
  };
  static thread_local Memory mine;
  if (mine.size < floats) {
    std::free(mine.data);
    mine.size = (floats + 1023) / 1024 * 1024;
    mine.data = static_cast<float*>(std::aligned_alloc(64, mine.size * sizeof(float)));
  }
  return mine.data;
}

}  // namespace jaxserve
