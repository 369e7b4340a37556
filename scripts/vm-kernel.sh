# shellcheck shell=bash
# Sourced by vm-camera and vm-service, after env.sh: $kernel is the folder of Debian's kernel
# (vmlinuz, modules.dep, kernel/), unpacked once into the cache. Wants $work, a scratch folder; and
# $arch, Debian's name of the processor, unless it is amd64.

: "${work:?a scratch folder}"
arch=${arch:-amd64}
VM=$CACHE/vm
[ "$arch" = amd64 ] || VM=$VM/$arch
mkdir -p "$VM"

# Only what is needed of its 400 MB. The cloud kernels have no vivid.
if ! compgen -G "$VM/linux-image-*/kernel/fs/ext4/ext4.ko" >/dev/null; then
    package=$(apt-cache depends "linux-image-$arch:$arch" | sed -n "s/^ *Depends: \(linux-image-[0-9].*-$arch\)\(:$arch\)\?$/\1/p")
    [ -n "$package" ] || die "apt knows no linux-image-$arch:$arch: run apt-get update, or use Debian"
    say "downloading $package, once (70 MB)"
    (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package:$arch" >&2) || die "apt-get could not download $package"
    mkdir "$work/package"
    at='./lib/modules/*/kernel'
    dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb |
        tar -x -C "$work/package" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' "$at/drivers/media" \
            "$at/drivers/virtio" "$at/drivers/block/virtio_blk.ko" "$at/fs/autofs" "$at/fs/ext4" "$at/fs/jbd2" \
            "$at/fs/mbcache.ko" "$at/lib/crc16.ko" "$at/crypto/crc32c_generic.ko"
    depmod -b "$work/package" "${package#linux-image-}"
    mkdir "$work/$package"
    mv "$work"/package/boot/vmlinuz-* "$work/$package/vmlinuz"
    mv "$work"/package/lib/modules/*/* "$work/$package/"
    rm -rf "${VM:?}/$package" "$work/package" "$work"/linux-image-*.deb
    mv "$work/$package" "$VM/"
fi
kernel=$(compgen -G "$VM/linux-image-*/modules.dep" | sort -V | tail -n 1)
kernel=${kernel%/modules.dep}

# The files of these modules, each after what it stands on.
modules_of() { # modules_of NAME...
    local name
    for name in "$@"; do
        awk -F: -v name="/$name.ko" 'substr($1, length($1) - length(name) + 1) == name {
            n = split($2, on, " "); for (i = n; i > 0; i--) print on[i]; print $1 }' "$kernel/modules.dep"
    done | awk '!seen[$0]++'
}
