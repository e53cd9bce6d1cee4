// Reads the tensors of linears and parts into host memory, as config.json lays them out.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/block.h"

namespace gptq {

// Reads, or only allocates, for runs that only count: then values are undefined. All reading functions throw InputError
// if a tensor has NaN or infinity.
class TensorReader {
 public:
  // References must outlive it.
  TensorReader(const Checkpoint& checkpoint, Memory& memory, bool reads = true)
      : checkpoint_(checkpoint), memory_(memory), reads_(reads) {}

  // A linear's weight [out_features, in_features] and bias [1, out_features], in the stored dtype.
  Matrix read_weight(const LinearSpec& spec) const;
  Matrix read_bias(const LinearSpec& spec) const;
  // A part in f32, with its constants applied.
  Affine read_part(const PartSpec& spec) const;

 private:
  Matrix read(const StoredTensor& tensor) const;
  Matrix read(const std::string& name, const std::vector<int64_t>& shape) const {
    return read(checkpoint_.tensor(name, shape));
  }
  Matrix read_doubles(const StoredTensor& tensor) const;
  Matrix read_fused(const StoredTensor& tensor, int64_t index) const;

  const Checkpoint& checkpoint_;
  Memory& memory_;
  const bool reads_;
};

}  // namespace gptq
