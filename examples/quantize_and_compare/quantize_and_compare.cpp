// Quantizes a model to 4 bits, says beforehand what that takes, and compares both models on a text.
//   quantize_and_compare MODEL OUTPUT CALIBRATION TEXT
#include <cstdio>
#include <exception>
#include <string>

#include <gptq/gptq.h>

namespace {

void run(const char* model, const char* output, const char* calibration, const char* text) {
  const gptq::Inspection found = gptq::inspect(model);
  std::printf("%s, %d blocks\n", found.model_type.c_str(), static_cast<int>(found.blocks));

  gptq::Job job{.model = model, .output = output};
  job.calibration = {.file = calibration, .samples = 32, .sequence_length = 128};
  job.recipe.group_size = 64;
  job.overwrite = true;
  const gptq::Plan plan = gptq::plan(job);
  std::printf("planned: %s of memory, %s on disk\n",
              gptq::format_bytes(static_cast<double>(plan.host.peak_bytes)).c_str(),
              gptq::format_bytes(static_cast<double>(plan.output_bytes)).c_str());

  const auto print = [](gptq::Level /*level*/, const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  const gptq::Report report = gptq::quantize(job, {.on_message = print});
  std::printf("%d linears, %.2f bits per weight\n", static_cast<int>(report.linears.size()), report.bits_per_weight);

  const gptq::Evaluation evaluation{.model = model, .texts = {text}, .context = 128, .windows = 16};
  for (const gptq::Comparison& comparison : gptq::compare(evaluation, output)) {
    std::printf("perplexity %.3f unquantized, %.3f quantized\n", comparison.model.perplexity,
                comparison.quantized.perplexity);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fprintf(stderr, "usage: quantize_and_compare MODEL OUTPUT CALIBRATION TEXT\n");
    return 2;
  }
  try {
    run(words[1], words[2], words[3], words[4]);
  } catch (const gptq::InputError& error) {  // a file or an option is wrong
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {  // the device, the disk, memory
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
