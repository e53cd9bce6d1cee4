#include "io/rename.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "io/file.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kNoReplace = 1, kExchange = 2;  // RENAME_NOREPLACE, RENAME_EXCHANGE

// renameat2(2), which old C libraries lack. Returns errno, or 0.
int rename_with(const fs::path& from, const fs::path& to, unsigned flags) {
#ifdef SYS_renameat2
  return syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

// False where the system or the file system has no such flag.
bool rename_if_supported(const fs::path& from, const fs::path& to, unsigned flags, const char* what) {
  const int error = rename_with(from, to, flags);
  if (error == ENOSYS || error == EINVAL || error == ENOTSUP) return false;
  if (error != 0) throw cannot(to, what, error);
  return true;
}

void rename_or_throw(const fs::path& from, const fs::path& to, const char* what) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw cannot(to, what, error.value());
}

}  // namespace

void move_to(const fs::path& from, const fs::path& to, const char* what) {
  if (!rename_if_supported(from, to, kNoReplace, what)) rename_or_throw(from, to, what);
}

void exchange_with(const fs::path& from, const fs::path& to, const fs::path& aside, const char* what) {
  if (rename_if_supported(from, to, kExchange, what)) return;
  rename_or_throw(to, aside, "move the old output aside");
  try {
    rename_or_throw(from, to, what);
  } catch (const InputError& failure) {
    std::error_code ignored;
    fs::rename(aside, to, ignored);
    if (ignored) throw InputError(cat(failure.what(), "; the old output is ", aside.string()), failure.subject());
    throw;
  }
}

}  // namespace gptq
