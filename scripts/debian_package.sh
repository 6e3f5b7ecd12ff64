#!/usr/bin/env bash
# Install a Debian package, unless a command that needs it already succeeds: debian_package.sh PACKAGE COMMAND...
set -euo pipefail

package=$1
shift
if "$@" > /dev/null 2>&1; then
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
fi
if ! command -v apt-get > /dev/null || { [ "${#as_root[@]}" -gt 0 ] && ! command -v sudo > /dev/null; }; then
  echo "setup: cannot install the system package $package (no apt-get, or neither root nor sudo);" \
    "install it and rerun the same command" >&2
  exit 1
fi
echo "setup: installing the system package $package"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" > /dev/null
if ! "$@" > /dev/null 2>&1; then
  echo "setup: $package is installed, but this still fails: $*" >&2
  exit 1
fi
