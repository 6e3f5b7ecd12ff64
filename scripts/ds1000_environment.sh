#!/usr/bin/env bash
# Build the environment of DS-1000's reference solutions, for `evaluate --benchmark ds1000 --python FOLDER/bin/python`.
#
#     scripts/ds1000_environment.sh FOLDER [torch] [tensorflow]
#
# Requires Python 3.10; set PYTHON if it is not `python3.10`. torch and tensorflow (needed by 68 and 45 of the 1000 problems)
# take about 3 GB and are only installed on request. FOLDER must not be under /tmp, because programs see a private /tmp.
# Pins: xlang-ai/DS-1000, environment.yml.
set -euo pipefail

usage="usage: $0 FOLDER [torch] [tensorflow]"
folder=${1:?$usage}
shift
python=${PYTHON:-python3.10}

packages=(
    numpy==1.26.4 pandas==1.5.3 scipy==1.12.0 scikit-learn==1.4.0 matplotlib==3.8.4
    seaborn==0.13.2 statsmodels==0.14.1 gensim==4.3.2 xgboost==2.0.3
)
for extra in "$@"; do
    case $extra in
        torch) packages+=(torch==2.2.0) ;;
        tensorflow) packages+=(tensorflow==2.16.1) ;;
        *)
            echo "error: unknown extra $extra; $usage" >&2
            exit 2
            ;;
    esac
done

if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || [ "$version" != 3.10 ]; then
    echo "error: $python is not Python 3.10 (found ${version:-nothing}); set PYTHON=/path/to/python3.10" >&2
    exit 2
fi
case $(realpath -m "$folder") in
    /tmp/*)
        echo "error: programs in the sandbox do not see the host's /tmp; choose another folder" >&2
        exit 2
        ;;
esac

"$python" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check "${packages[@]}"
"$folder/bin/python" -c 'import matplotlib, numpy, pandas, scipy, seaborn, sklearn, statsmodels'
echo "ready: --python $folder/bin/python"
