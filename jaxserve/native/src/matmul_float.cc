// jaxserve_matmul_float: x [T, in] with weights [out, in] of float32, bfloat16 or float16 -> [T, out] for each.

#include "matmul_float.h"

namespace jaxserve {
namespace {

template <class T>
XLA_FFI_Error* multiply_plain(const Call& call, Array x, Array w, Array y) {
  multiply(call, x.as<float>(), x.dim(0), Rows<T>{w.as<T>(), nullptr, w.dim(0), w.dim(1), w.dim(1), w.dim(0)}, y.as<float>());
  return nullptr;
}

XLA_FFI_Error* multiply_one(const Call& call, Array x, Array w, Array y) {
  switch (w.type) {
    case XLA_FFI_DataType_F32: return multiply_plain<float>(call, x, w, y);
    case XLA_FFI_DataType_BF16: return multiply_plain<bf16>(call, x, w, y);
    case XLA_FFI_DataType_F16: return multiply_plain<f16>(call, x, w, y);
    default: return call.refuse("weights must be float32, bfloat16 or float16");
  }
}

XLA_FFI_Error* matmul_float(const Call& call) {
  for (size_t i = 0; i < call.rets(); ++i)
    if (XLA_FFI_Error* error = multiply_one(call, call.arg(0), call.arg(i + 1), call.ret(i))) return error;
  return nullptr;
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_matmul_float, jaxserve::matmul_float)
