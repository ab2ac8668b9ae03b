#!/usr/bin/env bash
# build.sh [--arch x86_64|arm64] [--out DIR]   builds ffmpeg and ffprobe for Lambda's provided.al2023
# build.sh --print-cached [--arch ...]         prints the folder of a finished build; exits 3 without one
#
# The result (bin/ffmpeg, bin/ffprobe, share/ffmpeg-layer) is kept under the hash of all that goes into
# it, so only the first call builds. Without --out the folder of the result is printed.
#
# Needs bash, curl, python3 with venv, make, perl, tar, xz, patch and flock on Linux, no compiler and
# no root: the compiler is `zig cc` from a pinned wheel, and it builds either architecture on either.
#
# Environment:
#   ARCH            the architecture, where --arch does not say it (default x86_64)
#   JOBS            compilers at a time (default: one a core)
#   REELAY_CACHE    where results are kept (default: reelay in the user's cache folder)
#   DEBIAN_MIRRORS  where sources come from (default: the mirrors this machine's apt uses)
#   KEEP_WORK=1     keeps object files and logs of a build that succeeded
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- What is asked for ---------------------------------------------------------------------------

usage() {
    sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

arch=${ARCH:-x86_64} out='' print_cached=''
while [ $# -gt 0 ]; do
    case $1 in
        --arch) arch=${2:-}; shift 2 || usage ;;
        --out) [ -n "${2:-}" ] || usage; out=$2; shift 2 ;;
        --print-cached) print_cached=1; shift ;;
        *) usage ;;
    esac
done
case $arch in # `arch` as Lambda calls it, `cpu` as compilers do
    x86_64 | amd64) arch=x86_64 cpu=x86_64 ;;
    arm64 | aarch64) arch=arm64 cpu=aarch64 ;;
    *) echo "build.sh: unknown architecture '$arch'" >&2; exit 2 ;;
esac

inputs=(sources.lock build-requirements.txt components.txt build.sh)
inputs_hash() { (cd "$here" && cat "${inputs[@]}" | sha256sum | cut -c1-16); }
key=$(inputs_hash)
cache=${REELAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reelay}/ffmpeg-layer
result=$cache/$key/$arch

if [ -n "$print_cached" ]; then
    [ -d "$result" ] || exit 3
    echo "$result"
    exit
fi

deliver() {
    if [ -n "$out" ]; then
        "$here/place.sh" "$result" "$out"
    else
        echo "$result"
    fi
}

if [ -d "$result" ]; then
    deliver
    exit
fi

# One build at a time: a second one would only take the first one's cores. It may have been for this.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -d "$result" ]; then
    deliver
    exit
fi

# ---- Where things are ----------------------------------------------------------------------------

glibc=2.34 # of Amazon Linux 2023; nothing newer may be asked for at run time
target=$cpu-linux-gnu.$glibc
jobs=${JOBS:-$(nproc)}
downloads=$cache/sources # pinned, so shared by all keys
work=$cache/work/$key-$arch
prefix=$work/prefix   # the libraries, installed
venv=$work/tools      # the build tools
shims=$work/shims     # compilers as the build systems want them
staged=$work/result   # becomes $result at the very end
mkdir -p "$downloads" "$prefix" "$shims"

# Nothing of the machine or the day may get into the binaries.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1758153600 ZERO_AR_DATE=1
unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CC CXX LD AR AS ARCH MAKEFLAGS DESTDIR PKG_CONFIG_PATH

say() { printf 'ffmpeg layer, %s: %s\n' "$arch" "$*" >&2; }
fail() { say "$@"; exit 1; }

# ---- Sources -------------------------------------------------------------------------------------

source_file() { # source_file NAME: the path of its archive
    awk -v name="$1" -v dir="$downloads" '$1 == name { print dir "/" $5 }' "$here/sources.lock"
}

is_pinned() { # is_pinned FILE SHA256
    [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$2" ]
}

fetch_sources() {
    local mirrors name sha256 file folder upstream url urls
    # shellcheck disable=SC2016
    mirrors=${DEBIAN_MIRRORS:-$(apt-get indextargets --format '$(SITE)' 2>/dev/null | sort -u)}
    while read -r name _ _ sha256 file folder upstream; do
        case $name in '' | '#'*) continue ;; esac
        is_pinned "$downloads/$file" "$sha256" && continue
        urls=()
        for url in $mirrors; do urls+=("${url%/}/$folder/$file"); done
        [ "$upstream" = - ] || urls+=("$upstream")
        for url in "${urls[@]}"; do
            curl -fsSL --retry 2 --connect-timeout 20 -o "$downloads/$file.part" "$url" || continue
            if is_pinned "$downloads/$file.part" "$sha256"; then
                mv "$downloads/$file.part" "$downloads/$file"
                break
            fi
            say "$url is not the pinned file, trying elsewhere"
        done
        [ -f "$downloads/$file" ] || fail "cannot get $file: set DEBIAN_MIRRORS to a mirror or a snapshot of Debian's archive that has it"
    done <"$here/sources.lock"
}

# ---- Tools ---------------------------------------------------------------------------------------

install_tools() {
    if [ ! -e "$venv/.complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip --quiet --disable-pip-version-check install \
            --require-hashes --only-binary=:all: --requirement "$here/build-requirements.txt"
        touch "$venv/.complete"
    fi
    zig=$("$venv/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
    export ZIG_GLOBAL_CACHE_DIR=$work/zig ZIG_LOCAL_CACHE_DIR=$work/zig
}

compiler() { # compiler NAME DRIVER TARGET: writes a compiler that takes the options of gcc
    cat >"$shims/$1" <<SHIM
#!/usr/bin/env bash
# zig names instruction sets by its own scheme: -march=armv8.2-a+x is -mcpu=generic+v8_2a+x there.
options=()
for option in "\$@"; do
    if [[ \$option =~ ^-march=armv([0-9.]+)-a(.*)\$ ]]; then
        option=-mcpu=generic+v\${BASH_REMATCH[1]/./_}a\${BASH_REMATCH[2]}
    fi
    options+=("\$option")
done
exec "$zig" $2 -target $3 -fno-sanitize=undefined -Wno-unused-command-line-argument \\
    -ffile-prefix-map="$work"=. "\${options[@]}" \${LAYER_PREFIX:+-I"\$LAYER_PREFIX/include" -L"\$LAYER_PREFIX/lib"}
SHIM
    chmod +x "$shims/$1"
}

write_toolchain() {
    local tool
    compiler cc-target cc "$target"
    compiler c++-target c++ "$target"
    compiler cc-host cc "$(uname -m)-linux-musl"
    for tool in ar ranlib; do
        printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$zig" "$tool" >"$shims/$tool-target"
        chmod +x "$shims/$tool-target"
    done
    # x264 greps two words in what `strings -a FILE` prints; grep finds them in the file itself as well.
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nexec cat "$2"\n' >"$shims/strings-any"
    chmod +x "$shims/strings-any"
    cat >"$work/meson.ini" <<INI
[binaries]
c = 'cc-target'
cpp = 'c++-target'
ar = 'ar-target'
ranlib = 'ranlib-target'
nasm = 'nasm'
pkg-config = 'pkgconf'
[host_machine]
system = 'linux'
cpu_family = '$cpu'
cpu = '$cpu'
endian = 'little'
INI
    cat >"$work/toolchain.cmake" <<CMAKE
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR $cpu)
set(CMAKE_C_COMPILER $shims/cc-target)
set(CMAKE_CXX_COMPILER $shims/c++-target)
set(CMAKE_AR $shims/ar-target)
set(CMAKE_RANLIB $shims/ranlib-target)
set(CMAKE_FIND_ROOT_PATH $prefix)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
CMAKE
    export PATH=$shims:$venv/bin:$PATH PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
}

# ---- The libraries -------------------------------------------------------------------------------
# Each step runs in a shell of its own, in its unpacked source, and only once for a work folder.

flags='-O3 -g0 -fPIC -fstack-protector-strong'

unpack() { # unpack NAME: a clean source tree, and go there
    rm -rf "${work:?}/$1"
    mkdir -p "$work/$1"
    tar -xf "$(source_file "$1")" -C "$work/$1" --strip-components=1
    cd "$work/$1"
}

for_target() { # for build systems that read the environment
    export CC=cc-target CXX=c++-target AR=ar-target RANLIB=ranlib-target CFLAGS=$flags CXXFLAGS=$flags
}

with_meson() {
    meson setup build --cross-file "$work/meson.ini" --prefix="$prefix" --libdir=lib \
        --default-library=static --buildtype=release -Db_staticpic=true "$@"
    ninja -C build -j "$jobs" install
}

with_cmake() {
    cmake -G Ninja -B build -DCMAKE_TOOLCHAIN_FILE="$work/toolchain.cmake" \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "$@"
    ninja -C build -j "$jobs" install
}

keep_licence() { # keep_licence NAME FILE...
    mkdir -p "$prefix/licences/$1"
    cp "${@:2}" "$prefix/licences/$1/"
}

build_nasm() { # runs on this machine: the assembler of all x86 code below
    unpack nasm
    CC=cc-host CFLAGS='-O1 -Wno-error=date-time -Wno-date-time' ./configure
    make -j "$jobs" nasm
    cp nasm "$shims/nasm"
}

build_zlib() {
    unpack zlib
    for_target
    CHOST=$cpu-linux ./configure --static --prefix="$prefix"
    make -j "$jobs" libz.a
    make install
    keep_licence zlib LICENSE
}

build_x264() {
    unpack x264
    for_target
    STRINGS=strings-any ./configure --host="$cpu-linux-gnu" --prefix="$prefix" --enable-static --enable-pic \
        --disable-cli --disable-opencl --disable-avs --disable-swscale --disable-lavf --disable-ffms \
        --disable-gpac --disable-lsmash --extra-cflags="$flags"
    make -j "$jobs"
    make install
    keep_licence x264 COPYING
}

build_libvpx() {
    local patch options=()
    unpack libvpx
    # Debian's patches hold the security fixes since the release.
    mkdir debian-patches
    tar -xf "$(source_file libvpx-patches)" -C debian-patches
    grep -v '^#' debian-patches/debian/patches/series | while read -r patch _; do
        [ -z "$patch" ] || patch -s -p1 <"debian-patches/debian/patches/$patch"
    done
    for_target
    case $cpu in
        x86_64) export AS=nasm; options+=(--target=x86_64-linux-gcc) ;;
        aarch64) export AS=cc-target; options+=(--target=arm64-linux-gcc) ;;
    esac
    # The configure line ends up in the binary, so it must not name a folder of this machine.
    LD=cc-target STRIP=true ./configure "${options[@]}" --prefix=/usr --enable-static --disable-shared \
        --enable-pic --enable-vp9-highbitdepth --enable-runtime-cpu-detect --disable-examples \
        --disable-tools --disable-docs --disable-unit-tests --disable-install-bins
    # Without this test a compiler that is not understood costs speed, and nobody is told.
    case $cpu in
        x86_64) grep -q '^#define HAVE_AVX2 1' vpx_config.h ;;
        aarch64) grep -q '^#define HAVE_NEON_DOTPROD 1' vpx_config.h ;;
    esac
    make -j "$jobs"
    make install DIST_DIR="$work/libvpx/installed"
    cp -R installed/include installed/lib "$prefix/"
    sed -i "s|^prefix=.*|prefix=$prefix|" "$prefix/lib/pkgconfig/vpx.pc"
    keep_licence libvpx LICENSE PATENTS
}

build_opus() {
    unpack opus
    with_meson -Dtests=disabled -Ddocs=disabled -Dextra-programs=disabled
    keep_licence opus COPYING
}

build_lame() {
    unpack lame
    for_target
    # Its config.sub is older than the short names of arm64; the build type only has to be another one.
    ./configure --build="$(uname -m)-pc-linux-gnu" --host="$cpu-unknown-linux-gnu" --prefix="$prefix" \
        --enable-static --disable-shared --disable-frontend --disable-decoder --disable-gtktest --with-pic
    make -j "$jobs"
    make install
    keep_licence lame COPYING LICENSE
}

build_libwebp() {
    unpack libwebp
    for_target
    with_cmake -DWEBP_BUILD_{ANIM_UTILS,CWEBP,DWEBP,GIF2WEBP,IMG2WEBP,VWEBP,WEBPINFO,EXTRAS}=OFF
    keep_licence libwebp COPYING PATENTS
}

build_svt-av1() {
    unpack svt-av1
    for_target
    with_cmake -DBUILD_APPS=OFF -DBUILD_TESTING=OFF -DREPRODUCIBLE_BUILDS=ON -DSVT_AV1_LTO=OFF \
        -DENABLE_NASM=ON -DCMAKE_ASM_NASM_COMPILER="$shims/nasm"
    keep_licence svt-av1 LICENSE.md PATENTS.md
}

build_dav1d() {
    unpack dav1d
    with_meson -Denable_tools=false -Denable_tests=false
    keep_licence dav1d COPYING
}

# ---- ffmpeg --------------------------------------------------------------------------------------

components() { # components SECTION: the switches of configure in a section of components.txt, a line each
    awk -v wanted="[$1]" '
        /^#/ { next }
        /^\[/ { inside = $0 == wanted; next }
        inside { for (i = 1; i <= NF; i++) if ($i !~ /\+$/) { sub(/[=*].*/, "", $i); print $i } }
    ' "$here/components.txt"
}

# What configure is asked for is not always what it does: it drops a component when a library is
# missing, and it adds those that others need. Both would otherwise be found out at run time only,
# and for the architecture of this machine only.
check_components() {
    local kind
    for kind in protocol demuxer decoder encoder muxer filter; do
        if ! diff -u --label "components.txt, ${kind}s" --label "as configured" \
            <(components "${kind}s" | sort -u) \
            <(sed -nE "s/^#define CONFIG_([A-Z0-9_]+)_${kind^^} 1$/\L\1/p" config_components.h | sort -u); then
            echo "The ${kind}s differ from components.txt"
            return 1
        fi
    done
    if grep -E '^#define CONFIG_[A-Z0-9_]+_(INDEV|OUTDEV) 1' config_components.h; then
        echo "There must be no devices"
        return 1
    fi
}

build_ffmpeg() {
    local kind name options=(
        # Building
        --prefix=/opt --enable-cross-compile --target-os=linux --arch="$cpu"
        --cc=cc-target --cxx=c++-target --ar=ar-target --ranlib=ranlib-target --host-cc=cc-host
        --nm=true --strip=true --x86asmexe=nasm --pkg-config=pkgconf --pkg-config-flags=--static
        --extra-cflags='-fPIE -fstack-protector-strong' --extra-ldflags='-Wl,-z,relro,-z,now -s'
        --extra-ldexeflags=-pie --extra-libs='-lm -lpthread'
        --disable-autodetect --disable-debug --disable-doc --disable-ffplay
        # Contents
        --enable-gpl --disable-everything --disable-avdevice --disable-postproc --enable-bsfs
        --enable-zlib --enable-libx264 --enable-libvpx --enable-libsvtav1 --enable-libdav1d
        --enable-libopus --enable-libmp3lame --enable-libwebp
    )
    for kind in protocol demuxer decoder encoder muxer parser filter; do
        for name in $(components "${kind}s"); do
            options+=("--enable-$kind=$name")
        done
    done

    unpack ffmpeg
    export LAYER_PREFIX=$prefix # and not an option: configure's options end up in the binaries
    ./configure "${options[@]}"
    # zig has link stubs for every symbol that glibc ever had, so configure "finds" sysctl(), whose
    # header is gone.
    sed -i 's/^#define HAVE_SYSCTL 1/#define HAVE_SYSCTL 0/' config.h
    check_components
    make -j "$jobs" ffmpeg_g ffprobe_g
    keep_licence ffmpeg LICENSE.md COPYING.GPLv2 COPYING.LGPLv2.1
}

# ---- The result ----------------------------------------------------------------------------------

write_sbom() { # write_sbom FILE: what is linked into the binaries, as CycloneDX
    python3 - "$here/sources.lock" "$arch" >"$1" <<'PY'
import json, sys

lock, arch = sys.argv[1:]
parts = []
for line in open(lock):
    if line.strip() and not line.startswith("#"):
        name, version, licence, sha256, file, _, upstream = line.split()
        part = {
            "type": "library",
            "name": name,
            "version": version,
            "scope": "excluded" if name == "nasm" else "required",
            "hashes": [{"alg": "SHA-256", "content": sha256}],
            "licenses": [{"license": {"id": licence}}],
            "properties": [{"name": "source-file", "value": file}],
        }
        if upstream != "-":
            part["externalReferences"] = [{"type": "source-distribution", "url": upstream}]
        parts.append(part)
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": f"ffmpeg-layer-{arch}", "version": parts[0]["version"]}},
        "components": parts,
    },
    sys.stdout,
    indent=2,
)
print()
PY
}

stage_result() {
    local share=$staged/share/ffmpeg-layer tool
    rm -rf "$staged"
    mkdir -p "$staged/bin" "$share"
    for tool in ffmpeg ffprobe; do
        install -m 555 "$work/ffmpeg/${tool}_g" "$staged/bin/$tool"
        if grep -qF "$cache" "$staged/bin/$tool"; then
            fail "$tool names a folder of this machine"
        fi
    done
    cp -R "$prefix/licences" "$share/"
    # The compiler's own run-time library is linked in as well.
    install -D -m 644 "$(dirname "$zig")/LICENSE" "$share/licences/zig/LICENSE"
    # With these one can make the binaries again: the source offer of the GPL.
    (cd "$here" && cp "${inputs[@]}" "$share/")
    write_sbom "$share/sbom.cdx.json"
    (cd "$staged" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >"$work/SHA256SUMS")
    mv "$work/SHA256SUMS" "$share/"
}

step() { # step NAME
    local started=$SECONDS status
    [ -e "$work/done.$1" ] && return
    set +e # `if ( ... )` would switch -e off inside as well
    (set -e && "build_$1") >"$work/$1.log" 2>&1
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        tail -n 30 "$work/$1.log" >&2
        fail "$1 failed, all of it is in $work/$1.log"
    fi
    touch "$work/done.$1"
    say "$1 built in $((SECONDS - started)) s"
}

fetch_sources
install_tools
write_toolchain
[ "$cpu" != x86_64 ] || step nasm
for name in zlib x264 libvpx opus lame libwebp svt-av1 dav1d ffmpeg; do
    step "$name"
done
stage_result

# Whoever edits these files while a build runs must not find its result under the old files' name.
[ "$(inputs_hash)" = "$key" ] || fail "an input changed during the build, call it again"
mkdir -p "$(dirname "$result")"
mv -T "$staged" "$result"
[ -n "${KEEP_WORK:-}" ] || rm -rf "$work"
say "built in $SECONDS s"
deliver
