// gptq_cpp._native: the C++ API for the Python modules of the package, which give it its face. Plans and reports travel
// as the JSON that the command line writes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "convert.h"
#include "gptq/gptq.h"
#include "worker.h"

namespace gptq::python {
namespace {

using Ids = std::vector<std::vector<int32_t>>;

Recipe recipe_of(const std::string& preset, const std::string& file) {
  const Recipe base = recipe_preset(preset.empty() ? "default" : preset);
  return file.empty() ? base : read_recipe(file, base);
}

Job job_of(const std::string& model, const std::string& output, const std::string& preset, const std::string& file,
           const nb::dict& options, Ids ids) {
  Job job{.model = model, .output = output};
  job.recipe = recipe_of(preset, file);
  for (const auto& [key, value] : options_of(options)) set_option(job, key, value);
  job.calibration.ids = std::move(ids);
  return job;
}

Evaluation evaluation_of(const std::string& model, const std::vector<std::string>& texts, const nb::dict& options) {
  Evaluation evaluation{.model = model, .texts = texts};
  for (const auto& [key, value] : options_of(options)) set_option(evaluation, key, value);
  return evaluation;
}

void respell(Plan& plan) {
  for (std::vector<std::string>* texts : {&plan.messages, &plan.warnings}) {
    for (std::string& text : *texts) text = with_keywords(text);
  }
  for (LoaderVerdict& verdict : plan.loaders) verdict.reason = with_keywords(verdict.reason);
}

void check_options(const std::string& preset, const std::string& file, const nb::dict& options) {
  job_of({}, {}, preset, file, options, {});
}

// The report's JSON, and the block and expert of each linear. Only model and output are known of a job that was
// skipped: the JSON is empty.
nb::tuple quantize_model(const std::string& model, const std::string& output, const std::string& preset,
                         const std::string& file, const nb::dict& options, Ids ids, const nb::object& on_message,
                         const nb::object& on_progress) {
  Job job = job_of(model, output, preset, file, options, std::move(ids));
  Report report;
  const auto work = [&](const std::stop_token& stop, const Listener& listener) {
    job.stop = stop;
    report = quantize(job, listener);
  };
  run(work, on_message, on_progress);
  for (std::string& text : report.warnings) text = with_keywords(text);
  respell(report.plan);
  std::vector<std::pair<int64_t, int64_t>> places;
  places.reserve(report.linears.size());
  for (const LinearReport& linear : report.linears) places.emplace_back(linear.block, linear.expert);
  return nb::make_tuple(report.skipped ? std::string() : to_json(report), places);
}

std::string plan_of(const std::string& model, const std::string& output, const std::string& preset,
                    const std::string& file, const nb::dict& options, Ids ids) {
  Job job = job_of(model, output, preset, file, options, std::move(ids));
  Plan result;
  const auto work = [&](const std::stop_token& stop, const Listener& /*listener*/) {
    job.stop = stop;
    result = plan(job);
  };
  run(work, nb::none(), nb::none());
  respell(result);
  return to_json(result);
}

nb::list evaluate_model(const std::string& model, const std::vector<std::string>& texts, const nb::dict& options,
                        const nb::object& on_message, const nb::object& on_progress) {
  Evaluation evaluation = evaluation_of(model, texts, options);
  std::vector<Perplexity> results;
  const auto work = [&](const std::stop_token& stop, const Listener& listener) {
    evaluation.stop = stop;
    results = perplexity(evaluation, listener);
  };
  run(work, on_message, on_progress);
  return list_of(results);
}

// The comparisons, and the sentence about texts that disagree.
nb::tuple compare_models(const std::string& model, const std::string& quantized, const std::vector<std::string>& texts,
                         const nb::dict& options, const nb::object& on_message, const nb::object& on_progress) {
  Evaluation evaluation = evaluation_of(model, texts, options);
  std::vector<Comparison> results;
  const auto work = [&](const std::stop_token& stop, const Listener& listener) {
    evaluation.stop = stop;
    results = compare(evaluation, quantized, listener);
  };
  run(work, on_message, on_progress);
  return nb::make_tuple(list_of(results), disagreement(results));
}

nb::dict inspect_model(const std::string& model) {
  Inspection result;
  run([&](const std::stop_token& stop, const Listener& /*listener*/) { result = inspect(model, stop); }, nb::none(),
      nb::none());
  return to_python(result);
}

std::vector<std::vector<int32_t>> tokenize_file(const std::string& model, const std::string& file,
                                                const std::string& text_key) {
  Ids ids;
  run([&](const std::stop_token& stop, const Listener& /*listener*/) { ids = tokenize(model, file, stop, text_key); },
      nb::none(), nb::none());
  return ids;
}

// The new text.
std::string generate_text(const std::string& model, const std::string& prompt, const std::vector<std::string>& stops,
                          const nb::dict& options, const nb::object& on_message) {
  Generation generation{.model = model, .stops = stops};
  for (const auto& [key, value] : options_of(options)) set_option(generation, key, value);
  std::string text;
  const auto work = [&](const std::stop_token& stop, const Listener& listener) {
    generation.stop = stop;
    text = generate(generation, prompt, {}, listener).text;
  };
  run(work, on_message, nb::none());
  return text;
}

nb::list device_list() {
  std::vector<DeviceSummary> found;
  {
    const nb::gil_scoped_release released;
    found = devices();
  }
  return list_of(found);
}

}  // namespace
}  // namespace gptq::python

NB_MODULE(_native, m) {
  namespace nb = nanobind;
  using namespace gptq::python;
  nb::register_exception_translator(set_python_error);
  m.def("version", &gptq::version);
  m.def("job_options", [] { return to_python(gptq::job_options()); });
  m.def("evaluation_options", [] { return to_python(gptq::evaluation_options()); });
  m.def("check_options", &check_options, nb::arg("preset"), nb::arg("file"), nb::arg("options"));
  m.def("quantize", &quantize_model, nb::arg("model"), nb::arg("output"), nb::arg("preset"), nb::arg("file"),
        nb::arg("options"), nb::arg("ids"), nb::arg("on_message").none(), nb::arg("on_progress").none());
  m.def("plan", &plan_of, nb::arg("model"), nb::arg("output"), nb::arg("preset"), nb::arg("file"), nb::arg("options"),
        nb::arg("ids"));
  m.def("perplexity", &evaluate_model, nb::arg("model"), nb::arg("texts"), nb::arg("options"),
        nb::arg("on_message").none(), nb::arg("on_progress").none());
  m.def("compare", &compare_models, nb::arg("model"), nb::arg("quantized"), nb::arg("texts"), nb::arg("options"),
        nb::arg("on_message").none(), nb::arg("on_progress").none());
  m.def("inspect", &inspect_model, nb::arg("model"));
  m.def("tokenize", &tokenize_file, nb::arg("model"), nb::arg("file"), nb::arg("text_key"));
  m.def("generation_options", [] { return to_python(gptq::generation_options()); });
  m.def("generate", &generate_text, nb::arg("model"), nb::arg("prompt"), nb::arg("stops"), nb::arg("options"),
        nb::arg("on_message").none());
  m.def("devices", &device_list);
}
