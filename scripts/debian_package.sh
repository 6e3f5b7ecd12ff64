#!/usr/bin/env bash
# Installs a Debian package unless a command that needs it runs already: debian_package.sh PACKAGE COMMAND...
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
  echo "set-up: the system package $package is missing and cannot be installed from here (no apt-get, or neither root nor sudo);" \
    "install it and run the same command again" >&2
  exit 1
fi
echo "set-up: installing the system package $package"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" > /dev/null
if ! "$@" > /dev/null 2>&1; then
  echo "set-up: $package is installed, and still this fails: $*" >&2
  exit 1
fi
