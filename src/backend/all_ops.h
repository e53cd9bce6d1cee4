// The table of a backend's ops, from its files.
#pragma once

#include "backend/op_table.h"

namespace gptq {

// Each backend's namespace has these functions for its own table: add_norm_ops() of norms.cpp.
template <typename Table>
const Table& all_ops() {
  static const Table table = [] {
    Table ops;
    add_attention_ops(ops);
    add_column_ops(ops);
    add_convolution_ops(ops);
    add_copy_ops(ops);
    add_delta_rule_ops(ops);
    add_factor_ops(ops);
    add_gate_ops(ops);
    add_gram_ops(ops);
    add_grid_ops(ops);
    add_linear_ops(ops);
    add_loss_ops(ops);
    add_norm_ops(ops);
    add_pack_ops(ops);
    add_packed_ops(ops);
    add_rope_ops(ops);
    add_row_sum_ops(ops);
    add_state_space_ops(ops);
    add_sum_ops(ops);
    add_symmetric_ops(ops);
    return ops;
  }();
  return table;
}

}  // namespace gptq
