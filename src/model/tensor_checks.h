// Whether a checkpoint has the tensors that its config.json implies, and their values are finite.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/specs.h"

namespace gptq {

// Throws InputError if a tensor of the model is missing or has another shape, UnsupportedError if its dtype is none of
// F32, F16 and BF16, nor F64 of a norm, a router or a like part. has_reader: something else provides the weights of
// linears. Other tensors are ignored.
void check_tensors(const Checkpoint& checkpoint, const ModelConfig& config, bool has_reader);

// Throws InputError for a model without an output head, which only quantizing its blocks does without.
void refuse_headless(const Checkpoint& checkpoint, const ModelConfig& config);

// Throws InputError if values of a tensor are NaN or infinite, with the tensor and their number.
void check_finite(const Checkpoint& checkpoint, const StoredTensor& tensor, ConstMatrixView values);

// The expected shape of one of a part's tensors; vectors may be stored as matrices of one row.
std::vector<int64_t> stored_shape(const Checkpoint& checkpoint, const PartSpec& spec, size_t tensor);

}  // namespace gptq
