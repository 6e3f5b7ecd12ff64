#!/usr/bin/env bash
# Download llama.cpp's converter from Hugging Face folders to GGUF: llama_cpp_converter.sh PYTHON FOLDER
# It is part of the sdist of llama-cpp-python (77 MB, of which 2 MB are kept). Nothing is built or installed.
set -euo pipefail

python=$1
folder=$2
version=0.3.36 # the version that hf/gguf*.py and NOTICE cite

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "setup: downloading llama.cpp's converter (the sdist llama-cpp-python $version)"
"$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" "llama-cpp-python==$version"
mkdir "$work/llama.cpp"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work/llama.cpp" --strip-components=3 --wildcards \
  '*/vendor/llama.cpp/convert_hf_to_gguf.py' '*/vendor/llama.cpp/conversion/*' \
  '*/vendor/llama.cpp/gguf-py/gguf/*' '*/vendor/llama.cpp/LICENSE'
rm -rf "$folder"
mv "$work/llama.cpp" "$folder"
