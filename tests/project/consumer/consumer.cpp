#include <cstdio>

#include <gptq/gptq.h>

int main(int, char** argv) {
  const gptq::Inspection found = gptq::inspect(argv[1]);
  std::printf("%s, %d blocks\n", found.model_type.c_str(), static_cast<int>(found.blocks));
  try {
    gptq::quantize({.model = "no such folder", .output = "out"});
  } catch (const gptq::InputError&) {
    return 0;
  }
  return 1;
}
