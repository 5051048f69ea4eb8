#!/bin/sh
# Prints the directory that `cargo build --profile PROFILE` puts programs in.
# usage: scripts/bin-dir.sh PROFILE
set -eu
cd "$(dirname "$0")/.."
profile=${1:-dev}
[ "$profile" = dev ] && profile=debug
target=$(cargo metadata --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
echo "$target/$profile"
