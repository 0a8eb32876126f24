#!/bin/bash
# Checks what the compiler cannot promise about the native part.
#   check_native.sh agent FILE    linked with --emit-relocs: no address of its
#                                 own in it, no symbol from elsewhere
#   check_native.sh library FILE  no symbol newer than GLIBC_2.27, the newest
#                                 that the Deno binary itself needs
set -euo pipefail
export LC_ALL=C

kind=${1:-} file=${2:-}
newest=2.27

case $kind in
agent)
  # Only relocations relative to the instruction survive a move; any other
  # type in a loaded section holds an address chosen at link time.
  bad=$(readelf --relocs --wide "$file" | awk '
    /^Relocation section/ {
      loaded = $3 !~ /\.rela\.(debug|comment|note|eh_frame)/; section = $3 }
    loaded && $3 ~ /^R_X86_64_/ && $3 !~ /^R_X86_64_(PC32|PLT32|PC64|NONE)$/ {
      print "  " section " offset " $1 ": " $3 " to " $5 }')
  if [ -n "$bad" ]; then
    echo "$file is not position independent; absolute relocations:" >&2
    echo "$bad" >&2
    echo "Do not store addresses in tables or data; compute them." >&2
    exit 1
  fi
  bad=$(readelf --symbols --wide "$file" |
    awk '$7 == "UND" && $8 != "" { print "  " $8 }' | sort -u)
  if [ -n "$bad" ]; then
    echo "$file needs symbols that nothing defines:" >&2
    echo "$bad" >&2
    exit 1
  fi
  bad=$(readelf --sections --wide "$file" |
    awk '{ sub(/^ *\[ *[0-9]+\]/, "") }
      $1 ~ /^\.(dynamic|interp|got\.plt)$/ || ($1 == ".got" && $5 !~ /^0+$/) {
        print "  " $1 }')
  if [ -n "$bad" ]; then
    echo "$file has sections that only a dynamic linker can fill:" >&2
    echo "$bad" >&2
    exit 1
  fi
  ;;
library)
  bad=$(readelf --dyn-syms --wide "$file" | awk -v newest="$newest" '
    $7 == "UND" && match($8, /@+GLIBC_[0-9.]+/) {
      version = substr($8, RSTART, RLENGTH); sub(/@+GLIBC_/, "", version)
      split(version, v, "."); split(newest, n, ".")
      if (v[1] > n[1] || (v[1] == n[1] && v[2] + 0 > n[2] + 0)) print "  " $8
    }')
  if [ -n "$bad" ]; then
    echo "$file needs symbols newer than GLIBC_$newest:" >&2
    echo "$bad" >&2
    echo "Use a raw system call, or pick an older version with .symver." >&2
    exit 1
  fi
  ;;
*)
  echo "usage: check_native.sh agent|library FILE" >&2
  exit 2
  ;;
esac
