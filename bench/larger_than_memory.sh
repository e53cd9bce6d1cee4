#!/usr/bin/env bash
# Quantizes a checkpoint that is larger than the memory it may use, once under a hard limit of the operating system and
# once without, and compares both outputs byte for byte. Exit code 0: both ran and are equal.
#   bench/larger_than_memory.sh GPTQ MAKE_CHECKPOINT WORKDIR [LAYERS 32] [LIMIT 3GiB]
# Environment: SHAPE (llama-3-8b), SEQUENCES (4) and LENGTH (256) of the calibration; GPTQ_FLAGS for both runs;
# LIMITED_FLAGS for the limited one (--max-memory {"cpu":"LIMIT"}); KEEP=1 keeps the outputs. The checkpoint stays.
set -euo pipefail

if [ $# -lt 3 ] || [ $# -gt 5 ]; then
  echo "usage: larger_than_memory.sh GPTQ MAKE_CHECKPOINT WORKDIR [LAYERS 32] [LIMIT 3GiB]" >&2
  exit 2
fi
gptq=$1 make_checkpoint=$2 work=$3 layers=${4:-32} limit=${5:-3GiB}
shape=${SHAPE:-llama-3-8b} sequences=${SEQUENCES:-4} length=${LENGTH:-256}
limit_bytes=$(numfmt --from=auto -- "${limit%B}") || exit 2
read -r -a common_flags <<<"${GPTQ_FLAGS:-}"
read -r -a limited_flags <<<"${LIMITED_FLAGS---max-memory {\"cpu\":\"$limit\"\}}"

mkdir -p "$work"
model=$work/$shape-$layers ids=$work/$shape-$layers-$sequences-$length.jsonl
limited=$work/limited.$$ unlimited=$work/unlimited.$$
group=""
clean_up() {
  [ -z "$group" ] || rmdir "$group"
  [ "${KEEP:-0}" = 1 ] || rm -rf "$limited" "$unlimited"
  rm -rf "$limited".{report,peak,partial-*} "$unlimited".{report,peak,partial-*}  # a killed run leaves its part
}
trap clean_up EXIT

# A memory group of the kernel's, below the one this script runs in: version 1 where it has a folder of its own, else
# version 2. Sets `group`; fails where neither may be made.
make_group() {
  local parent own try
  for parent in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    own=$(sed -n -E 's/^[0-9]+:(memory)?:(.*)/\2/p' /proc/self/cgroup | head -n 1)
    for try in "$parent${own%/}" "$parent"; do
      mkdir "$try/gptq-bench-$$" 2>/dev/null || continue
      group=$try/gptq-bench-$$
      if { echo "$limit_bytes" >"$group/memory.limit_in_bytes"; } 2>/dev/null; then
        { echo "$limit_bytes" >"$group/memory.memsw.limit_in_bytes"; } 2>/dev/null || true  # no swap in its place
        return
      elif { echo "$limit_bytes" >"$group/memory.max"; } 2>/dev/null; then
        { echo 0 >"$group/memory.swap.max"; } 2>/dev/null || true
        return
      fi
      rmdir "$group"
      group=""
    done
  done
  return 1
}

# All of these hold the kernel to the limit, so that a run which needs more is killed or refused memory. Groups count
# the page cache of files too, which the kernel takes back before it kills: their peak comes close to any limit.
scope=(systemd-run --scope --quiet -p "MemoryMax=$limit_bytes" -p MemorySwapMax=0)
[ "$(id -u)" = 0 ] || scope+=(--user)
if "${scope[@]}" true 2>/dev/null; then
  means="systemd-run --scope -p MemoryMax=$limit_bytes"
  run_limited() { "${scope[@]}" "$@"; }
elif make_group; then
  means="control group $group"
  run_limited() { (echo "$BASHPID" >"$group/cgroup.procs" && exec "$@"); }
else
  # Counts what is reserved and never touched too: OpenBLAS's buffers and the stacks, 0.3 GB and 0.07 GB a thread here.
  # The margin must cover them, since OpenBLAS asks again for ever when it is refused.
  kilobytes=$(((limit_bytes >> 10) + ((256 + 128 * $(nproc)) << 10)))
  means="ulimit -d $kilobytes (private writable memory, reserved address space included)"
  run_limited() { (ulimit -d "$kilobytes" && exec "$@"); }
fi
echo "hard limit of $limit: $means"

if [ ! -e "$model/config.json" ] || [ ! -e "$ids" ]; then
  "$make_checkpoint" "$model" --shape "$shape" --layers "$layers" --overwrite \
    --ids "$ids" --sequences "$sequences" --length "$length"
fi
echo "$model: $(du -sb "$model" | cut -f 1) bytes"

# quantize NAME OUTPUT RUNNER [FLAGS]: one run, and a line about it.
quantize() {
  local name=$1 output=$2 runner=$3 start=$EPOCHREALTIME code=0 measure=()
  shift 3
  [ ! -x /usr/bin/time ] || measure=(/usr/bin/time -q -f %M -o "$output.peak")
  "$runner" "${measure[@]}" "$gptq" quantize "$model" "$output" --calibration "$ids" --samples "$sequences" \
    --sequence-length "$length" --report "$output.report" --quiet "${common_flags[@]}" "$@" || code=$?
  if [ "$code" != 0 ]; then
    echo "$name: failed with exit code $code" >&2
    exit 1
  fi
  awk -v name="$name" -v seconds="$(awk "BEGIN { print $EPOCHREALTIME - $start }")" \
    -v reported="$(sed -n 's/.*"peak_memory_bytes": *\([0-9]*\).*/\1/p' "$output.report" | head -n 1)" \
    -v resident="$(cat "$output.peak" 2>/dev/null || true)" 'BEGIN {
      printf "%-10s %8.1f s wall, peak memory %.0f MB as reported", name ":", seconds, reported / 1e6
      if (resident != "") printf ", %.0f MB resident by /usr/bin/time", resident * 1024 / 1e6
      printf "\n" }'
}
run_unlimited() { "$@"; }

quantize limited "$limited" run_limited "${limited_flags[@]}"
if [ -n "$group" ]; then
  { cat "$group/memory.max_usage_in_bytes" "$group/memory.peak" 2>/dev/null || true; } |
    awk '{ printf "%-10s %.0f MB at most in its group, page cache included\n", "", $1 / 1e6 }'
fi
quantize unlimited "$unlimited" run_unlimited

if diff -r --brief "$limited" "$unlimited"; then
  echo "equal: all $(find "$limited" -type f | wc -l) files, $(du -sb "$limited" | cut -f 1) bytes"
else
  echo "the outputs differ" >&2
  exit 1
fi
