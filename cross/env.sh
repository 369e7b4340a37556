# shellcheck shell=bash
# Sourced after scripts/env.sh: how aarch64 is built here. Two ways:
# - debian: Debian's cross toolchain (rustc-web and the arm64 libstd beside it). Its standard
#   library only fits its own compiler, so this has a target folder of its own.
# - rustup: the user's own toolchain, where rustup's aarch64 target is installed in it.
CROSS_TARGET=aarch64-unknown-linux-gnu
CROSS_TARGET_DIR=$CACHE/target-aarch64
CROSS_TOOLCHAIN=debian
if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$CROSS_TARGET/lib" ] &&
    [ "$(command -v rustc)" != /usr/bin/rustc ]; then
    CROSS_TOOLCHAIN=rustup
    CROSS_TARGET_DIR=$CACHE/target-aarch64-rustup
fi

# cross_cargo ARGS...: cargo, with what it, cc and bindgen must know.
cross_cargo() {
    local cargo=cargo
    [ "$CROSS_TOOLCHAIN" = rustup ] || cargo=/usr/bin/cargo
    (
        [ "$CROSS_TOOLCHAIN" = rustup ] || export RUSTC=/usr/bin/rustc
        export CARGO_TARGET_DIR=$CROSS_TARGET_DIR
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
        export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
        export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
        # v4l's bindings are made from the kernel headers of the target.
        export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--sysroot=/usr/aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
        "$cargo" "$@"
    )
}
