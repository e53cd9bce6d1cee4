// Output formats. A format owns a whole output: the tensors of a linear, the container and its files, the config, and
// the way back. Each has a file of its own (gptq.cpp, compressed_tensors.cpp) and a row in the registry of format.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "gptq/report.h"
#include "io/checkpoint.h"
#include "io/sink.h"
#include "model/block.h"
#include "recipe/recipe.h"
#include "recipe/rules.h"

namespace gptq {

class Format;

// A quantization_config, as far as it tells how codes are read.
struct QuantizationConfig {
  int bits = 0;
  int64_t group_size = 0;
  bool sym = true, desc_act = false;
  const Format* format = nullptr;
  bool signed_scales = false;  // of outputs of this program; others do not say
  std::vector<ModuleRule> dynamic;
  bool operator==(const QuantizationConfig& other) const {
    return bits == other.bits && group_size == other.group_size && sym == other.sym && desc_act == other.desc_act &&
           format == other.format && signed_scales == other.signed_scales;
  }
};

// A linear and how it is stored; `config` is empty for one that is not quantized.
struct StoredLinear {
  LinearSpec spec;
  std::optional<QuantizationConfig> config;
};

// A solved linear in host memory: its codes as qweight has them, its grid as the solver has it.
struct FetchedLinear {
  int bits = 0;
  Matrix words;          // [in * bits / 32, out] i32: the stream of output r in column r
  Matrix zeros, scales;  // [rows, groups] u8 and f32
  std::vector<int32_t> g_idx;
};
// codes [rows, in] u8, in natural order. The device packs them, which takes it the bytes of the words meanwhile. The
// matrices are of `memory`.
FetchedLinear fetch(Backend& backend, ConstMatrixView codes, const Grid& grid, const std::vector<int32_t>& g_idx,
                    Memory& memory = host_memory());

// One of Format::tensors(): its name after the linear's, and its values.
struct EncodedTensor {
  std::string part;
  // A span is of the FetchedLinear, which must live as long; uint16_t are fp16.
  std::variant<std::span<const uint32_t>, std::vector<uint32_t>, std::vector<uint16_t>, std::vector<int32_t>,
               std::vector<int64_t>>
      values;
};
using EncodedLinear = std::vector<EncodedTensor>;  // in the order of Format::tensors()
// Returns the tensors written.
Digests write_linear(ModelSink& sink, const std::string& name, const EncodedLinear& encoded);

// A stored linear in host memory.
struct HostLinear {
  int64_t rows = 0, groups = 0;
  int bits = 0;
  Matrix words;                // [in * bits / 32, rows] i32: the stream of codes of row r in column r
  std::vector<uint8_t> zeros;  // [rows, groups]
  std::vector<float> scales;   // [rows, groups]
  std::vector<int32_t> g_idx;  // [in]

  // Unpacked on the device, which takes it the bytes of the codes meanwhile.
  Matrix dequantized(Backend& backend, DType dtype) const;
  // Its codes on the device, sorted by group where g_idx is not. Nothing where groups are no whole words of one size.
  std::optional<PackedMatrices> packed(Backend& backend) const;
};

// The tensors of an output, in its order.
struct OutputLayout {
  std::vector<TensorSpec> tensors;
  int64_t quantized_bytes = 0;  // of the quantized linears' tensors
  int64_t output_bytes = 0;     // of all, as stored
};

// The model that an output holds. Tensors of the source that it lacks are replaced by the tensors of linears, or by the
// biases of each of these.
struct OutputModel {
  const Checkpoint& source;
  const std::map<std::string, QuantizedLinear>& quantized;                       // by their names
  const std::map<std::string, std::vector<std::string>>&replaced, split_biases;  // tensor: its linears
};

// The record of how an output was made.
struct OutputRecord {
  Recipe recipe;
  std::vector<QuantizedLinear> quantized = {};
  std::vector<std::string> unquantized = {};  // linears that stay as they are, the output head among them
  bool has_own_head = false;                  // although config.json ties it: the output's config.json does not
};

class Format {
 public:
  virtual ~Format() = default;

  virtual std::string_view name() const = 0;    // as Recipe::checkpoint_format has it
  virtual std::string_view method() const = 0;  // of its configs: quant_method
  // Throws InputError, about the option, for a recipe that the format cannot hold.
  virtual void check(const ResolvedRecipe& recipe) const = 0;
  // Whether all its loaders read every zero point alike.
  virtual bool holds_zeros() const = 0;

  // Writing: the output's tensors, where they go, and everything else there. `model`: the path of the folder or file to
  // write, which becomes the output later; tensors that an earlier run wrote there may be kept.
  virtual OutputLayout layout(const OutputModel& model, int64_t max_shard_bytes) const = 0;
  virtual std::unique_ptr<ModelSink> open(const std::filesystem::path& model, const OutputLayout& layout,
                                          int64_t max_shard_bytes) const = 0;
  virtual void finish(ModelSink& sink, const Checkpoint& source, const OutputRecord& record) const = 0;
  // The tensors of a linear, their values in the same order, and the bytes of host memory that making and writing them
  // takes besides the fetched linear's matrices.
  virtual std::vector<TensorSpec> tensors(const LinearSpec& linear, const ResolvedRecipe& recipe) const = 0;
  virtual EncodedLinear encode(const FetchedLinear& linear, const ResolvedRecipe& recipe) const = 0;
  virtual int64_t encoding_bytes(const LinearSpec& linear, const ResolvedRecipe& recipe) const = 0;

  // Reading. Parts are the names of a linear's tensors after its own.
  struct Parts {
    std::string_view codes, scales;
    std::vector<std::string_view> others;
  };
  virtual const Parts& parts() const = 0;
  virtual bool recognizes(const Json& config) const = 0;  // of its method()
  virtual QuantizationConfig parse(const Json& config, const std::string& where) const = 0;
  // A stored linear's bits and group size, from the shapes of its tensors; 0 where they are no packing of it.
  struct Sizes {
    int bits = 0;
    int64_t group_size = 0;
  };
  virtual Sizes sizes(const StoredTensor& codes, const StoredTensor& scales, const LinearSpec& linear) const = 0;
  // Throws InputError for tensors whose shapes do not fit together.
  virtual HostLinear read(const Checkpoint& checkpoint, const LinearSpec& linear,
                          const QuantizationConfig& config) const = 0;

  // The programs that load it, and their reasons for these linears.
  virtual std::vector<LoaderVerdict> loaders(const std::vector<StoredLinear>& linears) const = 0;
};

// The format that a recipe is written in; "auto": the first one that holds its zeros. Throws InputError for a name that
// is not known.
const Format& format_of(const Recipe& recipe);
std::vector<std::string> format_names();  // "auto" among them

// How a linear with this recipe is stored.
QuantizationConfig stored_as(const Format& format, const ResolvedRecipe& recipe);

// Whether a format reads the codes of folders with this config.
bool reads_codes(const Json& config);

// Throws InputError naming `where` for anything but the config of a known format.
QuantizationConfig parse_quantization_config(const Json& config, const std::string& where);

// Why a folder with a quantization_config is not quantized, and what can be done.
std::string already_quantized(const Checkpoint& checkpoint);

// Throws InputError, naming the linear and the sizes that would work, where no format can hold it.
void check_shape(const LinearSpec& linear, const ResolvedRecipe& recipe);

// Whether a stored linear has negative scales.
bool has_negative_scales(const Checkpoint& checkpoint, const std::string& linear, const Format& format);

// Reads these tensors on all cores. Throws InputError with the first that has NaN or infinity, and their number; and
// for another dtype than F16, BF16 and F32.
void check_scales(const Checkpoint& checkpoint, const std::vector<const StoredTensor*>& scales,
                  const std::stop_token& stop);

// Reads the linears of a quantized checkpoint, for Model: codes and grid in host memory, dequantized where they are
// placed. The checkpoint must outlive the reader. Throws InputError for tensors whose shapes do not fit together.
// For texts weights stay codes, where they can.
WeightReader quantized_reader(const Checkpoint& checkpoint, ModelUse use = ModelUse::batches);

}  // namespace gptq
