#include "run/fingerprint.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "data/batches.h"
#include "io/digest.h"
#include "io/file.h"
#include "recipe/recipe_file.h"

namespace gptq {
namespace {

Json json_of_file(const std::filesystem::path& path) {
  const Descriptor file = open_regular(path);
  uint64_t bytes = 0;
  read_all(*file, path, &bytes, sizeof bytes, 0);
  std::string header(bytes, ' ');  // its length was checked when the checkpoint was opened
  read_all(*file, path, header.data(), header.size(), sizeof bytes);
  return {{"bytes", file_size(file, path)}, {"header", hex_digest(header)}};
}

Json files_of(const Checkpoint& checkpoint) {
  Json files = Json::object();
  files["config.json"] = hex_digest(checkpoint.config().dump());
  for (const std::filesystem::path& path : checkpoint.weight_files())
    files[as_utf8(path.lexically_relative(checkpoint.folder()).string())] = json_of_file(path);
  return files;
}

Json calibration_of(const std::vector<TokenSequence>& sequences) {
  std::string ids;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<uint64_t>(sequence.size());
    ids.append(reinterpret_cast<const char*>(&length), sizeof length);
    ids.append(reinterpret_cast<const char*>(sequence.data()), sequence.size() * sizeof(sequence[0]));
  }
  return {{"sequences", sequences.size()}, {"ids", hex_digest(ids)}};
}

// One text if all units compute alike, else one a unit.
Json arithmetic_of(const Placement& placement, Devices& devices) {
  std::vector<std::string> texts;
  for (const Placement::Unit& unit : placement.units) texts.push_back(devices[unit.computes_on].arithmetic());
  if (std::set<std::string>(texts.begin(), texts.end()).size() == 1) return texts[0];
  return texts;
}

std::string text_of(const Json& value) {
  constexpr size_t kLongest = 60;
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.size() > kLongest ? text.substr(0, kLongest) + "..." : text;
}

}  // namespace

Json fingerprint(const Job& job, const Facts& facts, Devices& devices, const std::vector<TokenSequence>& sequences) {
  Json batches = Json::array();
  for (const auto& batch : make_batches(sequences, job.batch_size, facts.batch_tokens)) batches.push_back(batch.size());
  return {{"version", version()},
          {"model", files_of(*facts.checkpoint)},
          {"recipe", to_json(job.recipe)},
          {"calibration", calibration_of(sequences)},
          {"sequences of each batch", batches},
          {"precision", name_of(facts.precision.computed)},
          {"device", arithmetic_of(facts.placement, devices)},
          {"checkpoint_format", facts.format->name()},
          {"max_shard_size", job.max_shard_bytes}};
}

std::string difference(const Json& before, const Json& now) {
  if (before.is_object() && now.is_object()) {
    for (const auto& [key, value] : now.items()) {
      const Json then = before.contains(key) ? before.at(key) : Json();
      const std::string found = difference(then, value);
      if (!found.empty()) return key + (found[0] == ' ' ? "" : ".") + found;
    }
    for (const auto& [key, value] : before.items()) {
      if (!now.contains(key)) return cat(key, " was ", text_of(value), " and is not given now");
    }
    return {};
  }
  return before == now ? "" : cat(" was ", text_of(before), " and is ", text_of(now));
}

}  // namespace gptq
