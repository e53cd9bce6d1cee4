// The tables of rotary position embedding on the devices that compute with them.
#pragma once

#include <map>
#include <utility>

#include "model/batch.h"
#include "model/block.h"

namespace gptq {

// A table from the position of a batch's first token on; empty where nothing is rotated.
struct RopeRows {
  ConstMatrixView cos, sin;  // [positions, rotary_dim / 2] f32
};

// Makes a table when it is first needed, and again for a longer sequence.
class RopeTables {
 public:
  // The config must outlive it.
  explicit RopeTables(const ModelConfig& config) : config_(config) {}

  // Makes all tables of a backend for sequences of up to `longest` tokens in advance.
  void prepare(int64_t longest, Backend& backend);
  // Frees all tables; they are made again when they are needed.
  void drop() { tables_.clear(); }
  // The table of rope `index` of the config, for the batch's sequences; -1: none. Valid until a longer sequence needs
  // another.
  RopeRows table(const Batch& batch, int64_t index, Backend& backend);

 private:
  struct RopeMatrices {
    Matrix cos, sin;
  };
  const RopeMatrices& table(int64_t length, int64_t index, Backend& backend);

  const ModelConfig& config_;
  // By backend and rope; for the longest sequence so far, or for the last length if the table depends on it.
  std::map<std::pair<const Backend*, int64_t>, RopeMatrices> tables_;
};

}  // namespace gptq
