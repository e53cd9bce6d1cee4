// gptq inspect, devices and tokenize: what they print.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "options.h"
#include "printing.h"

namespace gptq {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Inspection& inspection) {
  Json json = {{"model", inspection.model},
               {"model_type", inspection.model_type},
               {"parameters", inspection.parameters},
               {"bytes", inspection.bytes},
               {"blocks", inspection.blocks},
               {"hidden", inspection.hidden},
               {"intermediate", inspection.intermediate},
               {"heads", inspection.heads},
               {"kv_heads", inspection.kv_heads},
               {"head_dim", inspection.head_dim},
               {"vocabulary", inspection.vocabulary},
               {"tied_embeddings", inspection.tied_embeddings}};
  json["quantization"] = nullptr;
  if (!inspection.checkpoint_format.empty()) {
    json["quantization"] = {{"checkpoint_format", inspection.checkpoint_format},
                            {"bits", inspection.bits},
                            {"group_size", inspection.group_size},
                            {"sym", inspection.sym},
                            {"desc_act", inspection.desc_act},
                            {"signed_scales", inspection.signed_scales}};
  }
  json["modules"] = Json::array();
  for (const auto& module : inspection.modules) {
    Json entry = {{"name", module.name}, {"dtype", module.dtype}, {"shape", module.shape}, {"bytes", module.bytes}};
    if (module.bits != 0) {
      entry["bits"] = module.bits;
      entry["group_size"] = module.group_size;
    }
    json["modules"].push_back(std::move(entry));
  }
  json["loaders"] = Json::array();
  for (const LoaderVerdict& verdict : inspection.loaders) {
    json["loaders"].push_back({{"loader", verdict.loader}, {"accepts", verdict.accepts}, {"reason", verdict.reason}});
  }
  json["warnings"] = inspection.warnings;
  return json;
}

}  // namespace

void run_inspect(const InspectionOptions& options, std::stop_token stop) {
  Inspection found = inspect(options.model, std::move(stop));
  for (LoaderVerdict& verdict : found.loaders) verdict.reason = with_flags(verdict.reason);
  if (options.json) {
    print_json(text_of(to_json(found)));
    return;
  }
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  print("%s: %s, %.1f million parameters, %s\n", options.model, found.model_type,
        static_cast<double>(found.parameters) / 1e6, format_bytes(static_cast<double>(found.bytes)));
  print(
      "%lld blocks, hidden %lld, intermediate %lld, %lld heads (%lld for keys) of %lld, vocabulary %lld, %s "
      "embeddings\n",
      number(found.blocks), number(found.hidden), number(found.intermediate), number(found.heads),
      number(found.kv_heads), number(found.head_dim), number(found.vocabulary),
      found.tied_embeddings ? "tied" : "untied");
  if (found.checkpoint_format.empty()) {
    print("not quantized\n");
  } else {
    print("%s: %d bits, group %lld, %s, desc_act %s\n", found.checkpoint_format, found.bits, number(found.group_size),
          found.signed_scales ? "symmetric, signed scales"
          : found.sym         ? "symmetric"
                              : "asymmetric",
          found.desc_act ? "true" : "false");
  }
  for (const LoaderVerdict& verdict : found.loaders) {
    print("  %-34s %s%s%s\n", verdict.loader, verdict.accepts ? "yes" : "no", verdict.reason.empty() ? "" : ": ",
          verdict.reason);
  }
  for (const std::string& warning : found.warnings) print("warning: %s\n", warning);
  if (!options.verbose) return;
  int dtype_width = 5;
  for (const auto& module : found.modules) dtype_width = std::max(dtype_width, static_cast<int>(module.dtype.size()));
  for (const auto& module : found.modules) {
    std::string shape;
    for (const int64_t size : module.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(size);
    print("  %-52s %-*s %-16s", module.name, dtype_width, module.dtype, shape);
    if (module.bits != 0) print(" %d bits, group %lld", module.bits, number(module.group_size));
    print("\n");
  }
}

void run_devices(bool as_json) {
  Json json = Json::array();
  for (const DeviceSummary& device : devices()) {
    json.push_back({{"name", device.name},
                    {"description", device.description},
                    {"total_bytes", device.total_bytes},
                    {"free_bytes", device.free_bytes}});
    if (as_json) continue;
    print("%-8s %s, %s free of %s\n", device.name, device.description,
          format_bytes(static_cast<double>(device.free_bytes)), format_bytes(static_cast<double>(device.total_bytes)));
  }
  if (as_json) {
    print_json(text_of(json));
    return;
  }
  print("sim:N    simulated accelerators, as many as a --device-map names: a rehearsal on the CPU\n");
}

void run_tokenize(const InspectionOptions& options, std::stop_token stop) {
  for (const auto& document : tokenize(options.model, options.text, std::move(stop), options.text_key))
    print_json(text_of(document, -1));
}

}  // namespace gptq
