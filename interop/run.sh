#!/usr/bin/env bash
# Quantizes a model with gptq and has plain PyTorch, transformers and GPTQModel read the result. See README.md.
#
#   interop/run.sh MODEL CALIBRATION TEXT [WORK_FOLDER]
#
# Environment: GPTQ, the program [build/release/gptq]; INTEROP_VENV, the Python environment [/tmp/gptq-interop-venv], made
# where it is missing; QUANTIZE, flags of gptq quantize [--group-size 64]; CHECK, flags of check.py [].
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
model=$1 calibration=$2 text=$3 work=${4:-$(mktemp -d /tmp/gptq-interop-XXXXXX)}
gptq=${GPTQ:-$here/../build/release/gptq}
venv=${INTEROP_VENV:-/tmp/gptq-interop-venv}
read -r -a quantize <<<"${QUANTIZE:---group-size 64}"
read -r -a check <<<"${CHECK:-}"

[ -x "$gptq" ] || { echo "$gptq is no program: build it (cmake --build --preset release), or name it with GPTQ=" >&2; exit 2; }

if ! "$venv/bin/python" -c 'import torch, transformers, optimum, gptqmodel' >"$venv.log" 2>&1; then
  echo "installing torch, transformers, optimum and gptqmodel in $venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet setuptools wheel torch transformers tokenizers safetensors accelerate
  "$venv/bin/pip" install --quiet optimum gptqmodel
fi

export PYTHONDONTWRITEBYTECODE=1
"$gptq" quantize "$model" "$work/quantized" --calibration "$calibration" --overwrite --quiet "${quantize[@]}"
"$venv/bin/python" "$here/check.py" "$work/quantized" --text "$text" --gptq "$gptq" ${check[@]+"${check[@]}"}
