#include "backend/counting.h"

namespace gptq {

void* NoMemory::allocate(size_t bytes) {
  void* block = reinterpret_cast<void*>(next_);  // NOLINT: never looked at
  next_ += (bytes + 63) / 64 * 64 + 64;
  return block;
}

void CountingBackend::gather_rows(ConstMatrixView table, std::span<const int32_t> /*ids*/, MatrixView y) {
  count("gather_rows", table.dtype, {y.rows, y.cols});
}
void CountingBackend::gather_columns(ConstMatrixView x, std::span<const int32_t> /*ids*/, MatrixView y) {
  count("gather_columns", x.dtype, {y.rows, y.cols});
}
void CountingBackend::convert(ConstMatrixView x, MatrixView y) { count("convert", x.dtype, {y.rows, y.cols}); }
void CountingBackend::clear(MatrixView y) { count("clear", y.dtype, {y.rows, y.cols}); }
void CountingBackend::add(ConstMatrixView x, float /*factor*/, MatrixView y) {
  count("add", x.dtype, {y.rows, y.cols});
}
void CountingBackend::rms_norm(ConstMatrixView x, ConstMatrixView /*weight*/, float /*eps*/, MatrixView y) {
  count("rms_norm", x.dtype, {y.rows, y.cols});
}
void CountingBackend::layer_norm(ConstMatrixView x, ConstMatrixView /*weight*/, ConstMatrixView /*bias*/, float /*eps*/,
                                 MatrixView y) {
  count("layer_norm", x.dtype, {y.rows, y.cols});
}
void CountingBackend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView /*bias*/, MatrixView /*y*/) {
  count("linear", x.dtype, {x.rows, w.rows, x.cols});
}
void CountingBackend::gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y) {
  if (!fuses_linears_) return Backend::gated_linear(x, weights, y);
  count("gated_linear", x.dtype, {x.rows, y.cols, x.cols});
}
void CountingBackend::add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor,
                                 MatrixView y) {
  if (!fuses_linears_) return Backend::add_linear(x, w, bias, factor, y);
  count("add_linear", x.dtype, {x.rows, y.cols, x.cols});
}
void CountingBackend::rope(ConstMatrixView /*cos*/, ConstMatrixView /*sin*/, SequenceOffsets /*offsets*/,
                           RotaryOrder /*order*/, int64_t /*head_dim*/, MatrixView x) {
  count("rope", x.dtype, {x.rows, x.cols});
}
void CountingBackend::attention(ConstMatrixView q, ConstMatrixView /*k*/, ConstMatrixView /*v*/,
                                SequenceOffsets offsets, const AttentionShape& shape, MatrixView /*y*/) {
  const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
  count("attention", q.dtype, {q.rows, shape.heads, shape.head_dim, sequences > 0 ? q.rows / sequences : 0});
}
void CountingBackend::gate(ConstMatrixView gate, ConstMatrixView /*up*/, Activation /*activation*/, MatrixView y) {
  count("gate", gate.dtype, {y.rows, y.cols});
}
void CountingBackend::cap(Cap /*kind*/, float /*bound*/, MatrixView x) { count("cap", x.dtype, {x.rows, x.cols}); }
void CountingBackend::add_rows(ConstMatrixView x, std::span<const int32_t> /*ids*/, std::span<const float> /*weights*/,
                               MatrixView /*y*/) {
  count("add_rows", x.dtype, {x.rows, x.cols});
}
void CountingBackend::add_gram(ConstMatrixView x, MatrixView /*h*/, MatrixView /*dropped*/) {
  count("add_gram", x.dtype, {x.rows, x.cols});
}
void CountingBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView /*original*/, MatrixView /*c*/) {
  count("add_cross_gram", x.dtype, {x.rows, x.cols});
}
void CountingBackend::mirror(MatrixView h) { count("mirror", h.dtype, {h.rows}); }
void CountingBackend::permute_symmetric(ConstMatrixView h, std::span<const int32_t> /*order*/, float /*damp*/,
                                        MatrixView /*y*/) {
  count("permute_symmetric", h.dtype, {h.rows});
}
void CountingBackend::solve_triangle(ConstMatrixView /*factor*/, bool /*transposed*/, MatrixView x) {
  count("solve_triangle", x.dtype, {x.rows, x.cols});
}
void CountingBackend::solve_systems(ConstMatrixView /*a*/, float /*ridge*/, MatrixView x) {
  count("solve_systems", x.dtype, {x.rows, x.cols});
}
void CountingBackend::group_products(ConstMatrixView x, ConstMatrixView /*y*/, int64_t group_size,
                                     MatrixView /*products*/) {
  count("group_products", x.dtype, {x.rows, x.cols, group_size});
}
void CountingBackend::add_row_norms(ConstMatrixView x, MatrixView /*norms*/) {
  count("add_row_norms", x.dtype, {x.rows, x.cols});
}
void CountingBackend::add_product_norms(ConstMatrixView w, ConstMatrixView /*factor*/, MatrixView /*norms*/) {
  count("add_product_norms", w.dtype, {w.rows, w.cols});
}
bool CountingBackend::factor(MatrixView h) {
  count("factor", h.dtype, {h.rows});
  return true;
}
void CountingBackend::find_grid(ConstMatrixView w, ConstMatrixView /*importance*/, int64_t group_size,
                                const GridSearch& search, MatrixView /*scales*/, MatrixView /*zeros*/) {
  count("find_grid", w.dtype,
        {w.rows, w.cols, group_size,
         search.candidates * (search.signed_scales  ? 2
                              : search.search_zeros ? 3
                                                    : 1)});
}
void CountingBackend::quantize_columns(ConstMatrixView w, ConstMatrixView /*feedback*/, ConstMatrixView /*factor*/,
                                       std::span<const int32_t> /*groups*/, const Grid& /*grid*/, MatrixView /*codes*/,
                                       MatrixView /*errors*/, MatrixView /*loss*/) {
  count("quantize_columns", w.dtype, {w.rows, w.cols});
}
void CountingBackend::round_columns(ConstMatrixView w, std::span<const int32_t> /*groups*/, const Grid& /*grid*/,
                                    MatrixView /*codes*/) {
  count("round_columns", w.dtype, {w.rows, w.cols});
}
void CountingBackend::dequantize(ConstMatrixView /*codes*/, std::span<const int32_t> /*groups*/, const Grid& /*grid*/,
                                 MatrixView w) {
  count("dequantize", w.dtype, {w.rows, w.cols});
}
void CountingBackend::pack(ConstMatrixView codes, int bits, MatrixView /*words*/) {
  count("pack", codes.dtype, {codes.rows, codes.cols, bits});
}
void CountingBackend::token_losses(ConstMatrixView logits, std::span<const int32_t> /*targets*/,
                                   MatrixView /*losses*/) {
  count("token_losses", logits.dtype, {logits.rows, logits.cols});
}
void CountingBackend::compare_logits(ConstMatrixView p, ConstMatrixView /*q*/, MatrixView /*divergence*/,
                                     MatrixView /*same_top*/) {
  count("compare_logits", p.dtype, {p.rows, p.cols});
}

}  // namespace gptq
