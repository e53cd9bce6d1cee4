// An output that is being written: the folder OUT.partial beside OUT, with the new model inside until it is whole.
//   OUT.partial/lock     locked while its run lives
//   OUT.partial/model    becomes OUT
//   OUT.partial/placing  exists while OUT is replaced: the identity of the new model
//   OUT.partial/old      the replaced output, where a file system cannot exchange two folders
// Other files there let a later run continue: a journal, states.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "io/partial_folder.h"

namespace gptq {

class OutputFolder {
 public:
  struct Options {
    bool overwrite = false;  // replaces OUT, and removes what a run left that ended early
    bool resume = false;     // continues such a run, and leaves OUT.partial with a journal when this one ends early
  };

  // Takes the lock, and creates missing parents. Throws ExistsError if OUT exists without `overwrite`, if a run that
  // ended early left OUT.partial without `overwrite` or `resume`, or if another run is writing OUT. Throws InputError
  // if OUT is, contains or lies inside `source`, or is neither empty nor a model; and for missing permission. Whatever
  // stood in the way of an earlier run's placement of OUT is cleared up first.
  OutputFolder(const std::filesystem::path& output, const std::filesystem::path& source, Options options);
  // Unless it was put in place, or has a journal for a later run: removes everything, created parents too.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::filesystem::path& path() const { return partial_.path(); }
  std::filesystem::path model() const { return file("model"); }
  std::filesystem::path file(const std::string& name) const { return partial_.file(name); }
  // Whether an earlier run left something here.
  bool continues() const { return partial_.continues(); }
  // Throws InputError, with both numbers, if the disk has no room for `bytes` more than model() has.
  void check_room(size_t bytes) const;

  // Makes model(), whole and synced, the output; at every instant OUT is the old one or the new one, where the file
  // system can exchange two folders. Returns a sentence for each thing that could not be cleared up.
  std::vector<std::string> put_in_place();

  // Where OUT is there: removes an OUT.partial with nothing to continue, of a run that ended while it cleared up after
  // it had put OUT in place. Returns whether there was one, and it could be removed.
  static bool clear_placed(const std::filesystem::path& output);

  // For a program that is about to exit, from any thread: removes the OUT.partial of a run of this process, or leaves
  // it if it is kept. False while OUT is put in place: then the run is about to return.
  static bool leave(const std::filesystem::path& output) noexcept;

 private:
  void check_output(const std::filesystem::path& source) const;
  void refuse_existing() const;
  void recover();
  void exchange();
  void remove_parents() noexcept;

  const std::filesystem::path asked_, output_;  // asked_: as the user spells the output
  const Options options_;
  PartialFolder partial_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  bool placing_ = false, placed_ = false, left_ = false;
};

}  // namespace gptq
