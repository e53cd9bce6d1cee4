// A text in gzip's format. The input is the file.
#include "data/gzip.h"

#include "fuzz/fuzz.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  fuzz::may_refuse([&] { gunzip(bytes, "a.gz"); });
  return 0;
}
