// Codes packed into streams of bits.
#include "ops/pack.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void pack(Xpu& xpu, const ops::Pack& op) {
  xpu.launch({"pack", "pack"}, elements(op.words.rows, op.codes.rows), op.codes, op.bits, op.words, op.codes.rows,
             op.codes.cols, op.words.rows);
}

void unpack(Xpu& xpu, const ops::Unpack& op) {
  xpu.launch({"pack", "unpack"}, elements(op.codes.cols, op.codes.rows), op.words, op.bits, op.codes, op.codes.rows,
             op.codes.cols);
}

}  // namespace

void add_pack_ops(XpuOps& table) {
  table.add<pack>();
  table.add<unpack>();
}

}  // namespace gptq::opencl
