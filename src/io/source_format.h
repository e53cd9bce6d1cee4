// Source formats: forms other than plain tensors in which folders store weights, and how each is read as a plain one.
// A new one is a file in sources/ with its SourceFormat, and a row of the table in source_format.cpp.
#pragma once

#include <string>
#include <string_view>

#include "io/folder_tensors.h"
#include "io/quantization_entry.h"

namespace gptq {

struct SourceFormat {
  std::string_view name;  // as people call it
  // Its weights were rounded after training: they are read as plain ones only if that is asked for.
  bool on_request = false;
  bool (*reads)(const QuantizationEntry& entry) = nullptr;
  // Puts all weights in the place of the tensors that hold them. transposed: linears are plain tensors [in, out], as in
  // GPT-2. Throws InputError, naming the tensor, for shapes that do not fit together, UnsupportedError for a variant
  // that is not read.
  void (*decode)(const QuantizationEntry& entry, FolderTensors& tensors, bool transposed) = nullptr;
};

// The format of a folder with this entry; null if it is not known.
const SourceFormat* source_format_of(const QuantizationEntry& entry);

// For decode(): a part of a weight, which must be there, or an error about the weight says what is missing.
FileTensor part_of(const FolderTensors& tensors, const std::string& weight, const std::string& part);
// Throws InputError about the part unless it has this dtype and shape.
void expect(const FolderTensors& tensors, const FileTensor& part, std::string_view dtype,
            const std::vector<int64_t>& shape);
// Throws InputError about the part unless it has one of these dtypes.
void expect_dtype(const FolderTensors& tensors, const FileTensor& part, const std::vector<std::string>& dtypes);
// "a.b.qweight" -> "a.b" for the ending ".qweight"; empty for a name without it.
std::string module_of(const std::string& name, std::string_view ending);
// The names of all tensors with this ending, without it.
std::vector<std::string> modules_with(const FolderTensors& tensors, std::string_view ending);

}  // namespace gptq
