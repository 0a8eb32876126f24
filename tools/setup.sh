#!/bin/bash
# Installs the system packages that are missing (as root, with apt-get), or
# says in one line what to install.
#
#     tools/setup.sh [LIST]    default: tools/packages.txt
set -euo pipefail
cd "$(dirname "$0")/.."
list=${1:-tools/packages.txt}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "ckpt runs on Linux x86_64; this is $(uname -sm)." >&2
  exit 1
fi

missing=()
while read -r package proof; do
  case $package in '' | '#'*) continue ;; esac
  case $proof in
  /*) [ -e "$proof" ] || missing+=("$package") ;;
  *) command -v "$proof" >/dev/null || missing+=("$package") ;;
  esac
done <"$list"
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "Missing; as root: apt-get install ${missing[*]}" \
    "(or what your system calls them)" >&2
  exit 1
fi
echo "Installing what is missing: apt-get install ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# The tests need servers, but none that runs on its own (invoke-rc.d(8)).
export RUNLEVEL=1
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
