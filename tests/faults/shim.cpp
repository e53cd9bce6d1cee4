// A library for LD_PRELOAD that counts what a program asks of the system, and fails one call: the n-th of an operation.
// Calls count from main() on; those with a path or a descriptor only at or below a folder. In the environment:
//   GPTQ_SHIM_FOLDER     that folder, absolute
//   GPTQ_SHIM_NAME       counts only paths with these characters
//   GPTQ_SHIM_OPERATION  one of kNames
//   GPTQ_SHIM_N          which call fails, from 1; with a "+" all from there on
//   GPTQ_SHIM_MODE       an errno of kErrors, "short" (half of the bytes), "kill" (SIGKILL instead of the call),
//                        or "slow" (0.1 s later)
//   GPTQ_SHIM_LOG        appended to: "fired OPERATION N PATH", and at the end "count OPERATION N" for each
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

enum Operation {
  kRead,
  kPread,
  kWrite,
  kPwrite,
  kSync,
  kRename,
  kExchange,
  kMap,
  kOpen,
  kMkdir,
  kReserve,
  kRemove,
  kClose,
  kMalloc,
  kOperations
};
constexpr const char* kNames[kOperations] = {"read", "pread", "write", "pwrite",  "fsync",  "rename", "renameat2",
                                             "mmap", "open",  "mkdir", "reserve", "remove", "close",  "malloc"};

struct Error {
  const char* name;
  int number;
};
constexpr Error kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EINTR", EINTR},           {"EMFILE", EMFILE},
                             {"EACCES", EACCES}, {"EINVAL", EINVAL}, {"EOPNOTSUPP", EOPNOTSUPP}, {"ENOMEM", ENOMEM}};

std::atomic<long> counts[kOperations];
bool counting = false;  // since main()
const char *folder = nullptr, *name = nullptr, *log_file = nullptr;
Operation chosen = kOperations;
long at = 0;
bool to_the_end = false, is_short = false, kills = false, is_slow = false;
int error_number = 0;

template <typename Function>
Function next(const char* function) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, function));
}

// Without memory, and past the functions below.
void note(const char* format, ...) {
  if (log_file == nullptr) return;
  char line[4200];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  const long file = syscall(SYS_openat, AT_FDCWD, log_file, O_WRONLY | O_CREAT | O_APPEND, 0666);
  syscall(SYS_write, file, line, length);
  syscall(SYS_close, file);
}

void begin() {
  const auto get = [](const char* key) { return getenv(key); };
  folder = get("GPTQ_SHIM_FOLDER");
  name = get("GPTQ_SHIM_NAME");
  log_file = get("GPTQ_SHIM_LOG");
  const char *operation = get("GPTQ_SHIM_OPERATION"), *n = get("GPTQ_SHIM_N"), *mode = get("GPTQ_SHIM_MODE");
  for (int i = 0; operation != nullptr && i < kOperations; ++i) {
    if (strcmp(kNames[i], operation) == 0) chosen = static_cast<Operation>(i);
  }
  if (n != nullptr) {
    at = atol(n);
    to_the_end = strchr(n, '+') != nullptr;
  }
  if (mode != nullptr) {
    is_short = strcmp(mode, "short") == 0;
    kills = strcmp(mode, "kill") == 0;
    is_slow = strcmp(mode, "slow") == 0;
    for (const Error& error : kErrors) {
      if (strcmp(error.name, mode) == 0) error_number = error.number;
    }
  }
  counting = true;
}

void end() {
  if (!counting) return;
  counting = false;
  for (int i = 0; i < kOperations; ++i) note("count %s %ld\n", kNames[i], counts[i].load());
}

// Counts a call, and whether it is the one to fail; does not return from one that kills.
bool fails(Operation operation, const char* path) {
  const long n = ++counts[operation];
  if (operation != chosen || (to_the_end ? n < at : n != at)) return false;
  const int before = errno;
  note("fired %s %ld %s\n", kNames[operation], n, path);
  if (kills) kill(getpid(), SIGKILL);
  if (is_slow) usleep(100'000);
  errno = before;
  return !is_slow;
}

bool is_ours(const char* path) {
  const size_t length = folder == nullptr ? 0 : strlen(folder);
  return path != nullptr && length > 0 && strncmp(path, folder, length) == 0 &&
         (path[length] == '/' || path[length] == '\0') && (name == nullptr || strstr(path, name) != nullptr);
}

bool fails_at(Operation operation, const char* path) { return counting && is_ours(path) && fails(operation, path); }

bool fails_at(Operation operation, int descriptor) {
  if (!counting) return false;
  const int before = errno;
  char link[64], path[4097];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  if (length <= 0) return false;
  path[length] = '\0';
  return is_ours(path) && fails(operation, path);
}

// The result of a failed call.
int failure() {
  errno = error_number;
  return -1;
}

// A read or a write: call(bytes) does it.
template <typename Call>
ssize_t transfer(Operation operation, int descriptor, size_t bytes, const Call& call) {
  if (!fails_at(operation, descriptor)) return call(bytes);
  if (is_short) return call(bytes > 1 ? bytes / 2 : bytes);
  return failure();
}

int (*program)(int, char**, char**) = nullptr;
int run(int argc, char** argv, char** environment) {
  begin();
  return program(argc, argv, environment);
}

}  // namespace

extern "C" {

// The C library's own allocators.
void* __libc_malloc(size_t);            // NOLINT
void* __libc_calloc(size_t, size_t);    // NOLINT
void* __libc_realloc(void*, size_t);    // NOLINT
void* __libc_memalign(size_t, size_t);  // NOLINT

// The C library's start of a program.
int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv,  // NOLINT
                      void (*initialize)(), void (*finalize)(), void (*finalize_loader)(), void* stack) {
  program = main;
  atexit(end);
  return next<decltype(&__libc_start_main)>("__libc_start_main")(run, argc, argv, initialize, finalize, finalize_loader,
                                                                 stack);
}

// An end without atexit().
void _Exit(int code) noexcept {  // NOLINT
  static const auto real = next<void (*)(int)>("_Exit");
  end();
  real(code);
  __builtin_unreachable();
}

ssize_t read(int descriptor, void* to, size_t bytes) {
  static const auto real = next<decltype(&read)>("read");
  return transfer(kRead, descriptor, bytes, [&](size_t part) { return real(descriptor, to, part); });
}

ssize_t pread(int descriptor, void* to, size_t bytes, off_t offset) {
  static const auto real = next<decltype(&pread)>("pread");
  return transfer(kPread, descriptor, bytes, [&](size_t part) { return real(descriptor, to, part, offset); });
}
ssize_t pread64(int descriptor, void* to, size_t bytes, off64_t offset) { return pread(descriptor, to, bytes, offset); }

ssize_t write(int descriptor, const void* from, size_t bytes) {
  static const auto real = next<decltype(&write)>("write");
  return transfer(kWrite, descriptor, bytes, [&](size_t part) { return real(descriptor, from, part); });
}

// Short: the first piece alone.
ssize_t writev(int descriptor, const iovec* pieces, int count) {
  static const auto real = next<decltype(&writev)>("writev");
  if (!fails_at(kWrite, descriptor)) return real(descriptor, pieces, count);
  return is_short ? real(descriptor, pieces, 1) : failure();
}

ssize_t pwrite(int descriptor, const void* from, size_t bytes, off_t offset) {
  static const auto real = next<decltype(&pwrite)>("pwrite");
  return transfer(kPwrite, descriptor, bytes, [&](size_t part) { return real(descriptor, from, part, offset); });
}
ssize_t pwrite64(int descriptor, const void* from, size_t bytes, off64_t offset) {
  return pwrite(descriptor, from, bytes, offset);
}

int fsync(int descriptor) {
  static const auto real = next<decltype(&fsync)>("fsync");
  return fails_at(kSync, descriptor) ? failure() : real(descriptor);
}
int fdatasync(int descriptor) {
  static const auto real = next<decltype(&fdatasync)>("fdatasync");
  return fails_at(kSync, descriptor) ? failure() : real(descriptor);
}

int rename(const char* from, const char* to) noexcept {
  static const auto real = next<decltype(&rename)>("rename");
  return fails_at(kRename, is_ours(from) ? from : to) ? failure() : real(from, to);
}

// Gives an unnamed file its name.
int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  static const auto real = next<decltype(&linkat)>("linkat");
  return fails_at(kRename, to) ? failure() : real(from_folder, from, to_folder, to, flags);
}

// Of the calls by number, renameat2 alone.
long syscall(long number, ...) noexcept {
  static const auto real = next<decltype(&syscall)>("syscall");
  va_list arguments;
  va_start(arguments, number);
  long a[6];
  for (long& argument : a) argument = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_renameat2 && fails_at(kExchange, reinterpret_cast<const char*>(a[1]))) return failure();
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void* mmap(void* place, size_t bytes, int protection, int flags, int descriptor, off_t offset) noexcept {
  static const auto real = next<decltype(&mmap)>("mmap");
  if (counting && (descriptor < 0 ? fails(kMap, "memory") : fails_at(kMap, descriptor))) {
    failure();
    return MAP_FAILED;
  }
  return real(place, bytes, protection, flags, descriptor, offset);
}
void* mmap64(void* place, size_t bytes, int protection, int flags, int descriptor, off64_t offset) noexcept {
  return mmap(place, bytes, protection, flags, descriptor, offset);
}

int open(const char* path, int flags, ...) {
  static const auto real = next<decltype(&open)>("open");
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return fails_at(kOpen, path) ? failure() : real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}
FILE* fopen64(const char* path, const char* mode) {
  static const auto real = next<decltype(&fopen64)>("fopen64");
  if (!fails_at(kOpen, path)) return real(path, mode);
  failure();
  return nullptr;
}
FILE* fopen(const char* path, const char* mode) { return fopen64(path, mode); }

int mkdir(const char* path, mode_t mode) noexcept {
  static const auto real = next<decltype(&mkdir)>("mkdir");
  return fails_at(kMkdir, path) ? failure() : real(path, mode);
}

int ftruncate(int descriptor, off_t size) noexcept {
  static const auto real = next<decltype(&ftruncate)>("ftruncate");
  return fails_at(kReserve, descriptor) ? failure() : real(descriptor, size);
}
int ftruncate64(int descriptor, off64_t size) noexcept { return ftruncate(descriptor, size); }
int fallocate(int descriptor, int mode, off_t offset, off_t size) {
  static const auto real = next<decltype(&fallocate)>("fallocate");
  return fails_at(kReserve, descriptor) ? failure() : real(descriptor, mode, offset, size);
}
int fallocate64(int descriptor, int mode, off64_t offset, off64_t size) {
  return fallocate(descriptor, mode, offset, size);
}
int posix_fallocate(int descriptor, off_t offset, off_t size) {
  static const auto real = next<decltype(&posix_fallocate)>("posix_fallocate");
  return fails_at(kReserve, descriptor) ? error_number : real(descriptor, offset, size);
}
int posix_fallocate64(int descriptor, off64_t offset, off64_t size) {
  return posix_fallocate(descriptor, offset, size);
}

int remove(const char* path) noexcept {
  static const auto real = next<decltype(&remove)>("remove");
  return fails_at(kRemove, path) ? failure() : real(path);
}
int unlink(const char* path) noexcept {
  static const auto real = next<decltype(&unlink)>("unlink");
  return fails_at(kRemove, path) ? failure() : real(path);
}
int unlinkat(int parent, const char* path, int flags) noexcept {
  static const auto real = next<decltype(&unlinkat)>("unlinkat");
  return (parent == AT_FDCWD ? fails_at(kRemove, path) : fails_at(kRemove, parent)) ? failure()
                                                                                    : real(parent, path, flags);
}

// The descriptor is closed even where it fails, as by Linux.
int close(int descriptor) {
  static const auto real = next<decltype(&close)>("close");
  const bool failed = fails_at(kClose, descriptor);
  const int result = real(descriptor);
  return failed ? failure() : result;
}

void* malloc(size_t bytes) noexcept {
  if (!counting || !fails(kMalloc, "memory")) return __libc_malloc(bytes);
  failure();
  return nullptr;
}
void* calloc(size_t count, size_t bytes) noexcept {
  if (!counting || !fails(kMalloc, "memory")) return __libc_calloc(count, bytes);
  failure();
  return nullptr;
}
void* realloc(void* old, size_t bytes) noexcept {
  if (!counting || !fails(kMalloc, "memory")) return __libc_realloc(old, bytes);
  failure();
  return nullptr;
}
void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  if (!counting || !fails(kMalloc, "memory")) return __libc_memalign(alignment, bytes);
  failure();
  return nullptr;
}
int posix_memalign(void** to, size_t alignment, size_t bytes) noexcept {
  if (counting && fails(kMalloc, "memory")) return ENOMEM;
  *to = __libc_memalign(alignment, bytes);
  return *to != nullptr ? 0 : ENOMEM;
}
}
