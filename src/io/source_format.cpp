#include "io/source_format.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace gptq {

// Each is defined in the file of its name in sources/.
const SourceFormat& fp8_source();
const SourceFormat& mxfp4_source();
const SourceFormat& gptq_source();
const SourceFormat& awq_source();
const SourceFormat& compressed_floats_source();
const SourceFormat& compressed_tensors_source();
const SourceFormat& modelopt_source();
const SourceFormat& bitsandbytes_source();

namespace {

constexpr const SourceFormat& (*kFormats[])() = {
    fp8_source,      mxfp4_source,       gptq_source, awq_source, compressed_floats_source, compressed_tensors_source,
    modelopt_source, bitsandbytes_source};

}  // namespace

const SourceFormat* source_format_of(const QuantizationEntry& entry) {
  const auto found =
      std::find_if(std::begin(kFormats), std::end(kFormats), [&](const auto format) { return format().reads(entry); });
  return found == std::end(kFormats) ? nullptr : &(*found)();
}

FileTensor part_of(const FolderTensors& tensors, const std::string& weight, const std::string& part) {
  if (const FolderTensors::Place* place = tensors.find(part)) return place->stored;
  throw tensor_error(tensors.folder(), weight, "the weight '", weight, "' has no '", part,
                     "': the download is not complete");
}

void expect(const FolderTensors& tensors, const FileTensor& part, std::string_view dtype,
            const std::vector<int64_t>& shape) {
  if (part.tensor->dtype == dtype && part.shape() == shape) return;
  throw tensor_error(tensors.folder(), part.tensor->name, "tensor '", part.tensor->name, "' is ", part.tensor->dtype,
                     " ", shape_string(part.shape()), ", where its weight needs ", dtype, " ", shape_string(shape));
}

void expect_dtype(const FolderTensors& tensors, const FileTensor& part, const std::vector<std::string>& dtypes) {
  if (std::find(dtypes.begin(), dtypes.end(), part.tensor->dtype) != dtypes.end()) return;
  throw tensor_error(tensors.folder(), part.tensor->name, "tensor '", part.tensor->name, "' is ", part.tensor->dtype,
                     ", where ", listed(dtypes), dtypes.size() == 1 ? " is read" : " are read");
}

std::string module_of(const std::string& name, std::string_view ending) {
  return name.size() > ending.size() && name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : "";
}

std::vector<std::string> modules_with(const FolderTensors& tensors, std::string_view ending) {
  std::vector<std::string> modules;
  for (const StoredTensor* tensor : tensors.all()) {
    if (std::string module = module_of(tensor->name, ending); !module.empty()) modules.push_back(std::move(module));
  }
  return modules;
}

}  // namespace gptq
