#include "convert.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace gptq::python {
namespace {

const char* name_of(OptionInfo::Kind kind) {
  switch (kind) {
    case OptionInfo::Kind::flag:
      return "flag";
    case OptionInfo::Kind::integer:
      return "integer";
    case OptionInfo::Kind::natural:
      return "natural";
    case OptionInfo::Kind::number:
      return "number";
    case OptionInfo::Kind::text:
      break;
  }
  return "text";
}

const char* name_of(OptionInfo::Group group) {
  switch (group) {
    case OptionInfo::Group::calibration:
      return "calibration";
    case OptionInfo::Group::devices:
      return "devices";
    case OptionInfo::Group::output:
      return "output";
    case OptionInfo::Group::evaluation:
      return "evaluation";
    case OptionInfo::Group::generation:
      return "generation";
    case OptionInfo::Group::recipe:
      break;
  }
  return "recipe";
}

OptionValue value_of(const std::string& key, nb::handle value) {
  if (nb::isinstance<nb::bool_>(value)) return nb::cast<bool>(value);
  if (nb::isinstance<nb::int_>(value)) {
    if (int64_t number = 0; nb::try_cast(value, number)) return number;
    if (uint64_t number = 0; nb::try_cast(value, number)) return number;
    throw InputError("`" + key + "`: the number is too large", {.option = key});
  }
  if (nb::isinstance<nb::float_>(value)) return nb::cast<double>(value);
  if (nb::isinstance<nb::str>(value)) return nb::cast<std::string>(value);
  throw nb::type_error((key + ": give a bool, an int, a float or a str").c_str());
}

void set_error(const char* kind, const Error& error) {
  const nb::object type = nb::module_::import_("gptq_cpp.errors").attr(kind);
  const ErrorSubject& subject = error.subject();
  const nb::object value = type(nb::str(with_keywords(error.what()).c_str()), nb::arg("option") = subject.option,
                                nb::arg("file") = subject.file, nb::arg("tensor") = subject.tensor);
  PyErr_SetObject(type.ptr(), value.ptr());
}

}  // namespace

Options options_of(const nb::dict& values) {
  Options options;
  for (const auto& [key, value] : values) {
    const auto name = nb::cast<std::string>(key);
    options.emplace_back(name, value_of(name, value));
  }
  return options;
}

nb::list to_python(const std::vector<OptionInfo>& options) {
  nb::list list;
  for (const OptionInfo& info : options) {
    nb::dict entry;
    entry["key"] = info.key;
    entry["kind"] = name_of(info.kind);
    entry["group"] = name_of(info.group);
    entry["words"] = info.words;
    entry["initial"] = info.initial;
    // A flag that only has a word to turn it off is on by itself.
    entry["is_on"] = info.kind == OptionInfo::Kind::flag && info.on.empty() && !info.off.empty();
    entry["help"] = info.help;
    entry["off_help"] = info.off_help;
    entry["more"] = info.more;
    list.append(entry);
  }
  return list;
}

nb::dict to_python(const Progress& progress) {
  nb::dict result;
  result["text"] = progress.text;
  result["block"] = progress.block;
  result["blocks"] = progress.blocks;
  result["fraction"] = progress.fraction;
  result["loss"] = progress.loss;
  result["tokens_per_second"] = progress.tokens_per_second;
  result["seconds"] = progress.seconds;
  result["remaining_seconds"] = progress.remaining_seconds;
  result["memory_bytes"] = progress.memory_bytes;
  return result;
}

nb::dict to_python(const Perplexity& perplexity) {
  nb::dict result;
  result["perplexity"] = perplexity.perplexity;
  result["mean_nll"] = perplexity.mean_nll;
  result["predicted_tokens"] = perplexity.predicted_tokens;
  result["windows"] = perplexity.windows;
  result["seconds"] = perplexity.seconds;
  return result;
}

nb::dict to_python(const Comparison& comparison) {
  nb::dict result;
  result["text"] = comparison.text;
  result["model"] = to_python(comparison.model);
  result["quantized"] = to_python(comparison.quantized);
  result["loss_change"] = comparison.loss_change;
  result["loss_change_error"] = comparison.loss_change_error;
  result["mean_kl"] = comparison.mean_kl;
  result["kl_99"] = comparison.kl_99;
  result["max_kl"] = comparison.max_kl;
  result["same_top"] = comparison.same_top;
  result["positions"] = list_of(comparison.positions);
  return result;
}

nb::dict to_python(const Inspection& inspection) {
  nb::dict result;
  result["model"] = inspection.model;
  result["model_type"] = inspection.model_type;
  result["checkpoint_format"] = inspection.checkpoint_format;
  result["blocks"] = inspection.blocks;
  result["hidden"] = inspection.hidden;
  result["heads"] = inspection.heads;
  result["kv_heads"] = inspection.kv_heads;
  result["head_dim"] = inspection.head_dim;
  result["intermediate"] = inspection.intermediate;
  result["vocabulary"] = inspection.vocabulary;
  result["parameters"] = inspection.parameters;
  result["bytes"] = inspection.bytes;
  result["tied_embeddings"] = inspection.tied_embeddings;
  result["sym"] = inspection.sym;
  result["desc_act"] = inspection.desc_act;
  result["signed_scales"] = inspection.signed_scales;
  result["bits"] = inspection.bits;
  result["group_size"] = inspection.group_size;
  result["modules"] = list_of(inspection.modules);
  result["loaders"] = list_of(inspection.loaders);
  result["warnings"] = inspection.warnings;
  return result;
}

nb::dict to_python(const DeviceSummary& device) {
  nb::dict result;
  result["name"] = device.name;
  result["description"] = device.description;
  result["total_bytes"] = device.total_bytes;
  result["free_bytes"] = device.free_bytes;
  return result;
}

nb::dict to_python(const LoaderVerdict& verdict) {
  nb::dict result;
  result["loader"] = verdict.loader;
  result["accepts"] = verdict.accepts;
  result["reason"] = with_keywords(verdict.reason);
  return result;
}

nb::dict to_python(const Inspection::Module& module) {
  nb::dict result;
  result["name"] = module.name;
  result["dtype"] = module.dtype;
  result["shape"] = module.shape;
  result["bits"] = module.bits;
  result["group_size"] = module.group_size;
  result["bytes"] = module.bytes;
  return result;
}

nb::dict to_python(const Comparison::Position& position) {
  nb::dict result;
  result["windows"] = position.windows;
  result["model_nll"] = position.model_nll;
  result["quantized_nll"] = position.quantized_nll;
  result["kl"] = position.kl;
  return result;
}

std::string with_keywords(const std::string& text) {
  return spell_options(text, [](std::string_view key, std::string_view value) {
    std::string keyword(key);
    if (value == "true" || value == "false") {
      keyword += value == "true" ? "=True" : "=False";
    } else if (!value.empty()) {
      keyword += "=" + std::string(value);
    }
    return keyword;
  });
}

void set_python_error(const std::exception_ptr& failure, void* /*unused*/) {
  try {
    std::rethrow_exception(failure);
  } catch (const Cancelled& error) {
    set_error("Cancelled", error);
  } catch (const ExistsError& error) {
    set_error("ExistsError", error);
  } catch (const UnsupportedError& error) {
    set_error("UnsupportedError", error);
  } catch (const InputError& error) {
    set_error("InputError", error);
  } catch (const OutOfMemory& error) {
    set_error("OutOfMemory", error);
  } catch (const DeviceError& error) {
    set_error("DeviceError", error);
  } catch (const Error& error) {
    set_error("Error", error);
  }
}

}  // namespace gptq::python
