// The journal of an unfinished run. Parts of an input: its lines, which get their checksums here; those that start with
// '!' are taken as they are.
#include "run/journal.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz.h"
#include "io/digest.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const auto count = static_cast<size_t>(std::count(all.begin(), all.end(), fuzz::kSeparator));
  std::string text;
  for (const std::string& line : fuzz::parts_of(data, size, count + 1))
    text += line.starts_with('!') ? line.substr(1) : hex_digest(line) + " " + line + "\n";
  fuzz::folder().write("journal", text);
  const Json fingerprint = {{"version", "1"}, {"files", {{"model.safetensors", {{"bytes", 1}}}}}};
  fuzz::may_refuse([&] {
    size_t parts = 0;
    {
      Journal journal(fuzz::folder() / "journal", fingerprint);
      parts = journal.parts().size();
      if (const auto& states = journal.states())
        if (states->block < 0 || states->file.find('/') != std::string::npos) abort();
      journal.begin(parts);
    }
    // What is written anew is read as the same.
    const Journal again(fuzz::folder() / "journal", fingerprint);
    if (again.parts().size() != parts) abort();
  });
  return 0;
}
