#!/usr/bin/env bash
# Plans, quantizes, inspects and compares: everything between a model folder and a decision whether to use the result.
#   examples/pipeline.sh MODEL OUTPUT CALIBRATION TEXT [options of `gptq quantize`]
# GPTQ names the program (default: gptq); WINDOWS how many windows of TEXT are evaluated (default: 32); LIMIT by how many
# per cent perplexity may rise (default: 10). Exit code 3: it rose by more.
set -euo pipefail

if [ $# -lt 4 ]; then
  echo "usage: examples/pipeline.sh MODEL OUTPUT CALIBRATION TEXT [options of gptq quantize]" >&2
  exit 2
fi
model=$1 output=$2 calibration=$3 text=$4
shift 4
gptq=${GPTQ:-gptq} windows=${WINDOWS:-32} limit=${LIMIT:-10}

"$gptq" plan "$model" --calibration "$calibration" "$@"
"$gptq" quantize "$model" "$output" --calibration "$calibration" --report "$output.report.json" --overwrite "$@"
"$gptq" inspect "$output"

# The perplexity of a folder, from the one object that --json prints.
perplexity() {
  "$gptq" eval "$1" --text "$text" --context 256 --windows "$windows" --json --quiet |
    sed -n 's/^ *"perplexity": \([0-9.]*\).*/\1/p'
}
before=$(perplexity "$model")
after=$(perplexity "$output")
"$gptq" compare "$model" "$output" --text "$text" --context 256 --windows "$windows"
awk -v before="$before" -v after="$after" -v limit="$limit" 'BEGIN {
  rise = 100 * (after / before - 1)
  printf "perplexity %.3f -> %.3f (%+.1f %%, allowed: %s %%)\n", before, after, rise, limit
  exit rise > limit ? 3 : 0
}'
