#include "run/existing.h"

#include <nlohmann/json.hpp>

#include "format/format.h"
#include "io/file.h"
#include "model/architecture.h"
#include "plan/group_size.h"
#include "recipe/recipe_file.h"
#include "run/fingerprint.h"

namespace gptq {
namespace {

ExistsError other_output(const Job& job, const std::string& what) {
  return ExistsError(cat(job.output, ": exists, but ", what, "; `overwrite` replaces it"),
                     {.option = "skip_existing", .file = job.output, .tensor = {}});
}

// With chosen bits the output has the widths that were chosen.
Json comparable(const Recipe& recipe, bool chosen) {
  Json json = to_json(recipe);
  for (const char* key : {"bits", "dynamic", "signed_scales", "refine", "alpha"}) {
    if (chosen) json.erase(key);
  }
  return json;
}

}  // namespace

std::optional<Recipe> finished_recipe(const Job& job) {
  if (!is_there(job.output)) return std::nullopt;
  try {
    const Checkpoint output(job.output);  // all shards are there, and whole
    const Json& config = output.quantization_config();
    if (config.is_null()) throw other_output(job, "is not quantized");
    Recipe asked = job.recipe;
    asked.checkpoint_format = format_of(asked).name();
    settle_group_size(asked, parse_model_config(output));
    Recipe base = asked;
    base.checkpoint_format = parse_quantization_config(config, job.output).format->name();
    const Recipe found = parse_recipe(config, job.output, base);
    const bool chosen = asked.average_bits != 0;
    if (const std::string differs = difference(comparable(found, chosen), comparable(asked, chosen)); !differs.empty())
      throw other_output(job, "its recipe is another: " + differs);
    Recipe result = job.recipe;
    result.group_size = asked.group_size;
    return result;
  } catch (const ExistsError&) {
    throw;
  } catch (const InputError& error) {
    throw other_output(job, cat("is not a whole output of this program (", error.what(), ")"));
  }
}

}  // namespace gptq
