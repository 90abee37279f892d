// jaxserve_matmul_blocks: x [T, in] float32, then of each weight the codes [tiles, bytes] and the scales [tiles, numbers]
// of float16 or float32 (`blocks.h`) -> [T, out] for each. Attributes: "group" (16 or 32 inputs), "offsets".

#include "blocks.h"

namespace jaxserve {
namespace {

using Kernel = void (*)(const Activations&, size_t, const BlockRows&, size_t, size_t, float*);

// Null for what no format of GGUF needs.
Kernel kernel_of(Array codes, Array scales, size_t group) {
  bool nibbles = codes.type == XLA_FFI_DataType_U8, half = scales.type == XLA_FFI_DataType_F16;
  if (group == 16) return nibbles || half ? nullptr : block_tiles<Bytes, float, 16>;
  if (nibbles) return half ? block_tiles<Nibbles, f16, 32> : block_tiles<Nibbles, float, 32>;
  return half ? block_tiles<Bytes, f16, 32> : block_tiles<Bytes, float, 32>;
}

// One weight's part of a call: units of `step` tiles.
struct Part {
  BlockRows rows;
  Kernel kernel;
  float* y;
  size_t step, units;

  void run(const Activations& x, size_t count, size_t unit) const {
    size_t tiles = rows.outputs / kTile, first = unit * step, last = first + step < tiles ? first + step : tiles;
    kernel(x, count, rows, first, last, y);
  }
};

Part part(const Call& call, size_t i, size_t count, size_t inputs, size_t group, bool offsets) {
  Array codes = call.arg(1 + 2 * i), scales = call.arg(2 + 2 * i), y = call.ret(i);
  BlockRows rows{codes.as<uint8_t>(), scales.data, y.dim(1), inputs, group, offsets};
  size_t outputs = outputs_per_unit(rows.outputs, codes.dim(1) / kTile);
  if (count * rows.outputs * inputs < kSerial) outputs = rows.outputs;
  size_t step = outputs / kTile;
  return {rows, kernel_of(codes, scales, group), y.as<float>(), step, (rows.outputs / kTile + step - 1) / step};
}

constexpr size_t kMostWeights = 8;  // of a call

XLA_FFI_Error* matmul_blocks(const Call& call) {
  Array x = call.arg(0);
  size_t rows = x.dim(0), inputs = x.dim(1), group = static_cast<size_t>(call.attribute<int64_t>("group", 32));
  bool offsets = call.attribute<int64_t>("offsets", 0) != 0;
  if (call.rets() > kMostWeights || (group != 16 && group != 32) || inputs % kInputs)
    return call.refuse("a call takes 8 weights at most, in groups of 16 or 32 inputs");
  Activations codes = quantise(call, x.as<float>(), rows, inputs, group);
  Part parts[kMostWeights];
  size_t units = 0;
  for (size_t i = 0; i < call.rets(); ++i) {
    parts[i] = part(call, i, rows, inputs, group, offsets);
    if (parts[i].kernel == nullptr) return call.refuse("4-bit codes and float16 scales are of groups of 32");
    units += parts[i].units;
  }
  parallel_for(call, units, [&](size_t unit) {
    const Part* own = parts;
    for (; unit >= own->units; ++own) unit -= own->units;
    own->run(codes, rows, unit);
  });
  return nullptr;
}

}  // namespace
}  // namespace jaxserve

JAXSERVE_EXPORT(jaxserve_matmul_blocks, jaxserve::matmul_blocks)
