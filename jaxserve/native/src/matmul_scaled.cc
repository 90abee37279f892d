// jaxserve_matmul_scaled: x [T, in], then of each weight the codes [out, in] and the float32 scales [out] or [out, blocks]
// -> [T, out] for each. Codes: int8; as bytes FP8 (e4m3) or, with the attribute "pairs", FP4 (e2m1) two in a byte.

#include "matmul_float.h"

namespace jaxserve {
namespace {

template <class T>
void multiply_codes(const Call& call, Array w, Array scales, size_t inputs, Array y) {
  Array x = call.arg(0);
  size_t block = static_cast<size_t>(call.attribute<int64_t>("block", 0));
  Rows<T> rows{w.as<T>(), scales.as<float>(), w.dim(0), inputs, block ? block : inputs, w.dim(0)};
  multiply(call, x.as<float>(), x.dim(0), rows, y.as<float>());
}

XLA_FFI_Error* matmul_scaled(const Call& call) {
  bool pairs = call.attribute<int64_t>("pairs", 0) != 0;
  for (size_t i = 0; i < call.rets(); ++i) {
    Array w = call.arg(1 + 2 * i), scales = call.arg(2 + 2 * i), y = call.ret(i);
    size_t inputs = call.arg(0).dim(1);
    if (w.dim(1) * (pairs ? 2 : 1) != inputs) return call.refuse("codes and inputs differ in number");
    if (w.type == XLA_FFI_DataType_S8) {
      multiply_codes<int8_t>(call, w, scales, inputs, y);
    } else if (pairs) {
      multiply_codes<e2m1>(call, w, scales, inputs, y);
    } else {
      multiply_codes<e4m3>(call, w, scales, inputs, y);
    }
  }
  return nullptr;
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_matmul_scaled, jaxserve::matmul_scaled)
