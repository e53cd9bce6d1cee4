// Runs a fuzz target without libFuzzer over files and folders of inputs; then, with --mutate SECONDS, over mutations of
// them, always the same ones in the same order.
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "base/stopwatch.h"

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);  // below, for the mutators
// A target's own, where it has them.
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) __attribute__((weak));
size_t LLVMFuzzerCustomCrossOver(const uint8_t* first, size_t first_size, const uint8_t* second, size_t second_size,
                                 uint8_t* to, size_t most, unsigned seed) __attribute__((weak));
// AddressSanitizer's, where it is there.
void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));
}

namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = 16384;
constexpr unsigned kSeconds = 30;  // that an input may take

std::mt19937 random_numbers(1);
size_t below(size_t limit) { return random_numbers() % limit; }

// The input that runs, for what is left when it crashes.
std::string current;
constexpr const char* kCrash = "crash";

void save_current() {
  const int file = open(kCrash, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
  const bool saved = write(file, current.data(), current.size()) == static_cast<ssize_t>(current.size());
  std::fprintf(stderr, "%s in the file %s\n", saved ? "the input is" : "not all of the input is", kCrash);
}

void save_and_end(int signal) {
  save_current();
  _exit(128 + signal);
}

void run(std::string input) {
  current = std::move(input);
  alarm(kSeconds);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(current.data()), current.size());
  alarm(0);
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string mutated(const std::vector<std::string>& inputs) {
  std::string input = inputs[below(inputs.size())];
  if (LLVMFuzzerCustomCrossOver != nullptr && below(4) == 0) {
    const std::string &first = input, &second = inputs[below(inputs.size())];
    std::string both(kMostBytes, '\0');
    both.resize(LLVMFuzzerCustomCrossOver(reinterpret_cast<const uint8_t*>(first.data()), first.size(),
                                          reinterpret_cast<const uint8_t*>(second.data()), second.size(),
                                          reinterpret_cast<uint8_t*>(both.data()), kMostBytes, random_numbers()));
    input = std::move(both);
  }
  for (size_t changes = 1 + below(3); changes > 0; --changes) {
    size_t size = std::min(input.size(), kMostBytes);
    input.resize(kMostBytes);
    auto* data = reinterpret_cast<uint8_t*>(input.data());
    size = LLVMFuzzerCustomMutator != nullptr ? LLVMFuzzerCustomMutator(data, size, kMostBytes, random_numbers())
                                              : LLVMFuzzerMutate(data, size, kMostBytes);
    input.resize(size);
  }
  return input;
}

}  // namespace

// Changes, inserts, repeats or removes a few bytes.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  constexpr uint8_t kOften[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '\\', '{', '[', '0', ' ', '\n'};
  const size_t count = 1 + below(8), at = size > 0 ? below(size) : 0;
  const size_t here = std::min(count, size - at);
  const auto any = [&] { return below(2) == 0 ? kOften[below(std::size(kOften))] : static_cast<uint8_t>(below(256)); };
  switch (below(4)) {
    case 0:
      if (size > 0) data[at] ^= static_cast<uint8_t>(1U << below(8));
      return size;
    case 1:
      for (size_t i = 0; i < here; ++i) data[at + i] = any();
      return size;
    case 2:
      std::memmove(data + at, data + at + here, size - at - here);
      return size - here;
    default:
      if (size + count > max_size) return size;
      std::memmove(data + at + count, data + at, size - at);
      for (size_t i = 0; i < count; ++i) data[at + i] = below(2) == 0 && at >= count ? data[at - count + i] : any();
      return size + count;
  }
}

int main(int count, char** arguments) {
  for (const int signal : {SIGABRT, SIGALRM, SIGILL, SIGFPE}) std::signal(signal, save_and_end);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(save_current);
  double seconds = 0;
  std::vector<std::string> inputs;
  const auto replay = [&](const fs::path& path) {
    std::printf("%s\n", path.c_str());  // the last line names what crashed
    std::fflush(stdout);
    inputs.push_back(read_file(path));
    run(inputs.back());
  };
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--mutate" && i + 1 < count) {
      seconds = std::stod(arguments[++i]);
    } else if (!fs::is_directory(argument)) {
      replay(argument);
    } else {
      std::vector<fs::path> paths(fs::directory_iterator(argument), {});
      std::sort(paths.begin(), paths.end());
      for (const fs::path& path : paths) replay(path);
    }
  }
  if (inputs.empty()) return 1;
  int64_t mutations = 0;
  for (const gptq::Stopwatch watch; watch.seconds() < seconds; ++mutations) run(mutated(inputs));
  std::printf("%zu inputs, %lld mutations\n", inputs.size(), static_cast<long long>(mutations));
  return 0;
}
