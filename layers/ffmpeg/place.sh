#!/usr/bin/env bash
# place.sh FROM TO: puts the tools of a finished folder (FROM/bin/ffmpeg, FROM/bin/ffprobe, and
# FROM/share/ffmpeg-layer where there is one) into TO.
#
# Each file appears under its name only when it is whole, and a tool that is running can be replaced.
# Hard links where both sides are on one file system: a pair of tools is up to 160 MB.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: place.sh FROM TO" >&2
    exit 2
fi
from=$1 to=$2

for tool in ffmpeg ffprobe; do
    if [ ! -x "$from/bin/$tool" ]; then
        echo "place.sh: no executable $from/bin/$tool" >&2
        exit 1
    fi
done

place() { # place FILE TARGET
    local part
    if [ "$1" -ef "$2" ]; then
        return
    fi
    mkdir -p "$(dirname "$2")"
    part=$(dirname "$2")/.$(basename "$2").part.$$
    ln -fL "$1" "$part" 2>/dev/null || cp -pL "$1" "$part"
    mv -f "$part" "$2"
}

for tool in ffmpeg ffprobe; do
    place "$from/bin/$tool" "$to/bin/$tool"
done
if [ -d "$from/share/ffmpeg-layer" ]; then
    # Only this one folder: FROM may be a whole prefix such as /usr.
    (cd "$from" && find share/ffmpeg-layer -type f) | while IFS= read -r file; do
        place "$from/$file" "$to/$file"
    done
fi
