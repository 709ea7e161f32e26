#!/bin/sh
# Assembles the program that holds a Pod's namespaces into raw machine code,
# which the agent wraps into an ELF file and a one-file image (see
# src/docker/pause.rs). Needs llvm-mc and llvm-objcopy. The results are kept
# in the repository because no build should need an assembler for a foreign
# processor.
set -eu
cd "$(dirname "$0")"
for arch in x86_64 aarch64; do
  llvm-mc --triple="$arch-unknown-linux-gnu" --filetype=obj -o "/tmp/pause-$$.o" "$arch.S"
  llvm-objcopy -O binary --only-section=.text "/tmp/pause-$$.o" "../../src/docker/pause/$arch.bin"
  rm -f "/tmp/pause-$$.o"
done
