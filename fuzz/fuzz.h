// What the fuzz targets share: inputs of several parts, a folder of files in memory, and what a reader may throw.
// A target defines LLVMFuzzerTestOneInput(), which libFuzzer calls, and replay_main.cpp with the seeds of corpus/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "gptq/error.h"

namespace gptq::fuzz {

// Between the parts of an input: a control character, which JSON and templates do not contain.
constexpr char kSeparator = '\x1e';

// The parts of an input, `count` of them; those that it lacks are empty, the last one has the rest.
inline std::vector<std::string> parts_of(const uint8_t* data, size_t size, size_t count) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> parts(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t end = i + 1 == count ? rest.npos : rest.find(kSeparator);
    parts[i] = rest.substr(0, end);
    if (end == rest.npos) break;
    rest.remove_prefix(end + 1);
  }
  return parts;
}

// A folder in memory, which goes with the process.
class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::exists("/dev/shm") ? "/dev/shm/gptq-fuzz-XXXXXX" : "/tmp/gptq-fuzz-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) abort();
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }
  // Without text there is no such file.
  void write(const char* name, std::string_view text) const {
    if (text.empty()) {
      std::filesystem::remove(path_ / name);
      return;
    }
    std::ofstream file(path_ / name, std::ios::binary | std::ios::trunc);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    if (!file) abort();
  }

 private:
  std::filesystem::path path_;
};

inline const Folder& folder() {
  static const Folder folder;
  return folder;
}

// Calls a reader. It may refuse its input; whatever else it throws ends the program.
template <typename Read>
void may_refuse(const Read& read) {
  try {
    read();
  } catch (const InputError&) {
  }
}

// A safetensors file: its header, padded so that the data are aligned, and `data`, repeated or cut to the bytes that
// the header's offsets ask for.
inline std::string safetensors_of(std::string header, std::string_view data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  constexpr size_t kMost = size_t{1} << 20;
  size_t bytes = 0;
  for (size_t at = 0; (at = header.find("data_offsets", at)) != header.npos; ++at) {
    const size_t end = header.find(',', at);
    if (end != header.npos)
      bytes = std::max(bytes, size_t{strtoull(std::string(header.substr(end + 1, 20)).c_str(), nullptr, 10)});
  }
  const uint64_t length = header.size();
  std::string file(sizeof length, ' ');
  std::memcpy(file.data(), &length, sizeof length);
  file += header;
  if (bytes > kMost || data.empty()) return file.append(data);
  for (size_t done = 0; done < bytes; done += data.size()) file += data.substr(0, bytes - done);
  return file;
}

}  // namespace gptq::fuzz
