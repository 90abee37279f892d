// jaxserve_matmul_scaled: x [T, in], then of each weight the codes [out, in] and the float32 scales [out] or [out, blocks],
// with the attribute "offsets" also offsets like the scales -> [T, out] for each. Codes: int8; as bytes FP8 (e4m3) or, with
// the attribute "pairs", two in a byte: FP4 (e2m1), with offsets numbers from 0 to 15.

#include "matmul_float.h"

namespace jaxserve {
namespace {

template <class T>
void multiply_codes(const Call& call, Array w, Array scales, const float* offsets, size_t inputs, Array y) {
  Array x = call.arg(0);
  size_t block = static_cast<size_t>(call.attribute<int64_t>("block", 0));
  Rows<T> rows{w.as<T>(), scales.as<float>(), w.dim(0), inputs, block ? block : inputs, w.dim(0),
               offsets};
  multiply(call, x.as<float>(), x.dim(0), rows, y.as<float>());
}

XLA_FFI_Error* matmul_scaled(const Call& call) {
  bool pairs = call.attribute<int64_t>("pairs", 0) != 0, offset = call.attribute<int64_t>("offsets", 0) != 0;
  size_t inputs = call.arg(0).dim(1), each = offset ? 3 : 2;
  for (size_t i = 0; i < call.rets(); ++i) {
    Array w = call.arg(1 + each * i), scales = call.arg(2 + each * i), y = call.ret(i);
    const float* offsets = offset ? call.arg(3 + each * i).as<float>() : nullptr;
    if (w.dim(1) * (pairs ? 2 : 1) != inputs) return call.refuse("codes and inputs differ in number");
    if (w.type == XLA_FFI_DataType_S8) {
      multiply_codes<int8_t>(call, w, scales, offsets, inputs, y);
    } else if (pairs && offset) {
      multiply_codes<uint4>(call, w, scales, offsets, inputs, y);
    } else if (pairs) {
      multiply_codes<e2m1>(call, w, scales, offsets, inputs, y);
    } else {
      multiply_codes<e4m3>(call, w, scales, offsets, inputs, y);
    }
  }
  return nullptr;
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_matmul_scaled, jaxserve::matmul_scaled)
