# shellcheck shell=bash
# Sourced after scripts/env.sh: how aarch64 is built here. Two ways:
# - debian: Debian's cross toolchain (rustc-web and the arm64 libstd beside it). Its standard
#   library only fits its own compiler, so this has a target folder of its own.
# - rustup: the user's own toolchain, where rustup's aarch64 target is installed in it.
CROSS_TARGET=aarch64-unknown-linux-gnu
CROSS_TOOLCHAIN=debian
if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$CROSS_TARGET/lib" ] &&
    [ "$(command -v rustc)" != /usr/bin/rustc ]; then
    CROSS_TOOLCHAIN=rustup
fi

# An exported function would not do: the variables are read by cargo, cc and bindgen.
cross_env() {
    export CARGO_TARGET_DIR=${RETICLE_CROSS_TARGET_DIR:-$CACHE/target-aarch64}
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
    # v4l's bindings are made from the kernel headers of the target.
    export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--sysroot=/usr/aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
    CROSS_CARGO=cargo
    if [ "$CROSS_TOOLCHAIN" = debian ]; then
        export RUSTC=/usr/bin/rustc
        CROSS_CARGO=/usr/bin/cargo
    fi
}
