#!/usr/bin/env bash
# smoke.sh DIR [--strict]       does the pair DIR/bin/ffmpeg, DIR/bin/ffprobe do what the worker needs?
# smoke.sh DIR --files-only     looks at the files and runs nothing: for the other architecture
#
# Any pair must have what components.txt lists and must encode, and decode again, each kind of output.
# --strict is for an own build: it has nothing besides, and asks for no glibc newer than Lambda's.
# Prints a table, and ends with a line for each thing that is wrong; exits 1 then.
#
# Needs bash, awk and python3.
# shellcheck disable=SC2329 # the functions are called by `check`
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

dir='' strict='' files_only=''
for argument in "$@"; do
    case $argument in
        --strict) strict=1 ;;
        --files-only) files_only=1 ;;
        -*) usage ;;
        *) [ -z "$dir" ] || usage; dir=$argument ;;
    esac
done
[ -n "$dir" ] || usage
for tool in ffmpeg ffprobe; do
    if [ ! -x "$dir/bin/$tool" ]; then
        echo "smoke.sh: no executable $dir/bin/$tool" >&2
        exit 1
    fi
done
dir=$(cd "$dir" && pwd)
ffmpeg=$dir/bin/ffmpeg ffprobe=$dir/bin/ffprobe

export LC_ALL=C
unset http_proxy HTTP_PROXY no_proxy NO_PROXY # the pair talks to this machine only
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

faults=()
row() { printf '%-34s %-6s %s\n' "$1" "$2" "${3:-}"; }
# check NAME FUNCTION ARGUMENTS...: a row, and a fault if the function fails. What it prints is the note.
# (It runs inside an `if`, where -e has no say: the functions below return what went wrong themselves.)
check() {
    local name=$1 note
    shift
    if note=$("$@" 2>"$work/stderr"); then
        row "$name" ok "$note"
    else
        note=${note:-$(tail -n 1 "$work/stderr")}
        row "$name" WRONG "$note"
        faults+=("$name: ${note:-failed without a word}")
    fi
}

finish() {
    if [ ${#faults[@]} -gt 0 ]; then
        printf 'smoke: %s\n' "${faults[@]}" >&2
        exit 1
    fi
    echo "smoke: all right"
    exit 0
}

# ---- The files -----------------------------------------------------------------------------------

elf() { # elf TOOL: its architecture and size, and the newest glibc it asks for, which is a fault if too new
    python3 - "$dir/bin/$1" <<'PY'
import re, struct, sys

NEWEST = (2, 34)  # Amazon Linux 2023
data = open(sys.argv[1], "rb").read()
if data[:4] != b"\x7fELF":
    sys.exit("not an ELF file")
machine = {62: "x86_64", 183: "arm64"}.get(struct.unpack_from("<H", data, 18)[0], "unknown")
versions = {tuple(map(int, v.split(b"."))) for v in re.findall(rb"GLIBC_(2\.\d+)\b", data)}
newest = max(versions, default=None)
needs = "glibc " + ".".join(map(str, newest)) if newest else "no glibc"
print(f"{machine}, {len(data) / 1e6:.1f} MB, needs {needs}")
sys.exit(bool(newest and newest > NEWEST))
PY
}

shipped() { # what a layer that is given away must carry
    local file share=$dir/share/ffmpeg-layer
    for file in sources.lock components.txt build.sh build-requirements.txt sbom.cdx.json SHA256SUMS \
        licences/ffmpeg/COPYING.GPLv2 licences/x264/COPYING; do
        [ -s "$share/$file" ] || { echo "no $share/$file"; return 1; }
    done
    (cd "$dir" && sha256sum --quiet --check share/ffmpeg-layer/SHA256SUMS) || { echo "a file is not the one that was built"; return 1; }
}

if [ -n "$strict$files_only" ]; then
    check "file ffmpeg" elf ffmpeg
    check "file ffprobe" elf ffprobe
    check "licences, sources, checksums" shipped
fi
[ -z "$files_only" ] || finish

# ---- What is in it -------------------------------------------------------------------------------

version() { "$1" -hide_banner -version | awk 'NR == 1 { print $3 }'; }
same_version() {
    local of_ffmpeg of_ffprobe
    of_ffmpeg=$(version "$ffmpeg")
    of_ffprobe=$(version "$ffprobe")
    echo "ffmpeg $of_ffmpeg, ffprobe $of_ffprobe"
    [ -n "$of_ffmpeg" ] && [ "$of_ffmpeg" = "$of_ffprobe" ]
}
check "one version" same_version

listed() { # listed KIND: what components.txt says of KIND, one name a line, as the tools spell it
    awk -v wanted="[$1]" -v strict="$strict" '
        /^#/ { next }
        /^\[/ { inside = $0 == wanted; next }
        inside {
            for (i = 1; i <= NF; i++) {
                if ($i ~ /\*$/ && !strict) continue
                sub(/[*+]$/, "", $i)
                sub(/.*=/, "", $i)
                print $i
            }
        }
    ' "$here/components.txt" | sort -u
}

found() { # found KIND: what ffmpeg itself lists of KIND, one name a line
    case $1 in
        protocols) "$ffmpeg" -hide_banner -protocols | awk '/^ +[a-z]/ { print $1 }' ;;
        filters) "$ffmpeg" -hide_banner -filters | awk '$3 ~ /->/ { print $2 }' ;;
        # After a rule: columns of flags (some of them blank), then the name, or names with commas.
        *)
            "$ffmpeg" -hide_banner "-$1" | awk '
                rule { for (i = 1; $i ~ /^[DEd]+$/ || $i ~ /^[VAS][A-Z.]+$/; i++); print $i }
                /^ *--+$/ { rule = 1 }
            ' | tr ',' '\n'
            ;;
    esac | sort -u
}

has_all() { # has_all KIND
    local missing
    missing=$(comm -23 <(listed "$1") <(found "$1") | paste -sd' ')
    if [ -n "$missing" ]; then
        echo "missing: $missing"
        return 1
    fi
    echo "$(listed "$1" | wc -l) required, $(found "$1" | wc -l) there"
}

has_no_other() { # has_no_other KIND; second names of one component (mov,mp4,m4a) are no others
    local others
    others=$(comm -13 <({ listed "$1"; aliases "$1"; } | sort -u) <(found "$1") | paste -sd' ')
    if [ -n "$others" ]; then
        echo "not in components.txt: $(wc -w <<<"$others"), $(cut -c1-120 <<<"$others")"
        return 1
    fi
}
aliases() {
    case $1 in
        demuxers) printf '%s\n' mp4 m4a 3gp 3g2 mj2 webm ;;
        devices) ;;
    esac
}

for kind in protocols demuxers decoders encoders muxers filters; do
    check "$kind" has_all "$kind"
    [ -z "$strict" ] || check "no other $kind" has_no_other "$kind"
done
[ -z "$strict" ] || check "no devices" has_no_other devices

# ---- What it does --------------------------------------------------------------------------------

# Two seconds of moving picture and a tone, made without ffmpeg: the layer has no sources of its own.
python3 - "$work/source.y4m" "$work/source.wav" <<'PY'
import array, math, sys, wave

WIDTH, HEIGHT, FRAMES, RATE = 320, 180, 50, 48000
picture, sound = sys.argv[1:]
with open(picture, "wb") as file:
    file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n".encode())
    ramp = bytes(16 + x * 219 // 512 for x in range(512)) * 2
    for n in range(FRAMES):
        luma = b"".join(ramp[(n * 4 + y) % 512 : (n * 4 + y) % 512 + WIDTH] for y in range(HEIGHT))
        plane = WIDTH // 2 * (HEIGHT // 2)
        file.write(b"FRAME\n" + luma + bytes([96 + n]) * plane + bytes([160 - n]) * plane)
with wave.open(sound, "wb") as file:
    file.setparams((2, 2, RATE, 0, "NONE", ""))
    tone = (int(8000 * math.sin(2 * math.pi * 440 * n / RATE)) for n in range(2 * RATE))
    file.writeframes(array.array("h", (sample for value in tone for sample in (value, value))).tobytes())
PY

run() { "$ffmpeg" -nostdin -hide_banner -v error -y "$@"; }

probe() { # probe FILE: its streams as "codec frames", sorted; MPEG-TS lists them twice, hence the index
    "$ffprobe" -v error -count_frames -show_entries stream=index,codec_name,nb_read_frames -of csv=p=0 "$1" |
        grep . | sort -u | cut -d, -f2- | sort | tr ',\n' '  ' | sed 's/ *$//'
}

round_trip() { # round_trip FILE STREAMS ARGUMENTS...: encodes, decodes strictly, and compares with STREAMS
    local file=$work/$1 want=$2 got
    shift 2
    run "$@" "$file" || return 1
    run -xerror -err_detect explode -i "$file" -map 0 -f null - || return 1
    got=$(probe "$file") || return 1
    # Codecs with a delay may put a frame of silence more or less at the ends: * stands for any number.
    # shellcheck disable=SC2053
    if [[ $got != $want ]]; then
        echo "expected '$want', found '$got'"
        return 1
    fi
    echo "$got, $(wc -c <"$file") bytes"
}

both=(-i "$work/source.y4m" -i "$work/source.wav")
picture=(-i "$work/source.y4m")
sound=(-i "$work/source.wav")

check "MP4: H.264, AAC" round_trip a.mp4 'aac * h264 50' "${both[@]}" -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac -movflags +faststart
check "MP4 fragments: H.264" round_trip f.mp4 'h264 50' "${picture[@]}" -c:v libx264 -preset veryfast -g 25 -movflags +cmaf+frag_keyframe+empty_moov
check "WebM: VP9, Opus" round_trip a.webm 'opus * vp9 50' "${both[@]}" -c:v libvpx-vp9 -b:v 300k -deadline realtime -cpu-used 8 -c:a libopus
[ -z "$strict" ] || check "MP4: AV1" round_trip av1.mp4 'av1 50' "${picture[@]}" -c:v libsvtav1 -preset 12 -svtav1-params lp=1
check "AVI: MPEG-4, MP3" round_trip a.avi 'mp3 * mpeg4 50' "${both[@]}" -c:v mpeg4 -q:v 4 -c:a libmp3lame
check "MPEG-TS: H.264, AAC" round_trip a.ts 'aac * h264 50' "${both[@]}" -c:v libx264 -preset veryfast -c:a aac
check "MP3" round_trip a.mp3 'mp3 *' "${sound[@]}" -c:a libmp3lame -b:a 128k
check "M4A: ALAC" round_trip a.m4a 'alac *' "${sound[@]}" -c:a alac
check "FLAC" round_trip a.flac 'flac *' "${sound[@]}" -c:a flac
check "Opus" round_trip a.opus 'opus *' "${sound[@]}" -c:a libopus
check "WAV, 24 bits" round_trip a.wav 'pcm_s24le *' "${sound[@]}" -c:a pcm_s24le
check "JPEG still" round_trip a.jpg 'mjpeg 1' -ss 1 "${picture[@]}" -vf scale=160:-2 -frames:v 1 -q:v 4
check "PNG still" round_trip a.png 'png 1' "${picture[@]}" -frames:v 1
check "WebP still" round_trip a.webp 'webp 1' "${picture[@]}" -frames:v 1 -c:v libwebp
check "storyboard" round_trip s.jpg 'mjpeg 1' "${picture[@]}" -vf fps=5,scale=64:-2,tile=5x2 -frames:v 1
check "GIF with its own palette" round_trip a.gif 'gif 20' "${picture[@]}" -vf 'fps=10,split[a][b];[a]palettegen[p];[b][p]paletteuse'

subtitles() {
    printf 'WEBVTT\n\n00:00.500 --> 00:01.500\nsome words\n' >"$work/words.vtt"
    run -i "$work/words.vtt" -c:s mov_text "$work/words.mp4" &&
        run -i "$work/words.mp4" -c:s webvtt -f webvtt - | grep -x 'some words'
}
check "subtitles: WebVTT, MP4, WebVTT" subtitles

chunk_of_grid() { # frames 10 to 29 of an absolute grid, as the worker cuts chunks
    run -copyts "${picture[@]}" -filter_complex \
        '[0:v:0]setpts=PTS-(0)/TB,fps=25:start_time=0.4,tpad=stop_mode=clone:stop=-1,trim=start_pts=10:end_pts=30,split=2[a][b];[a]scale=160:90:flags=bicubic,setsar=1[v0];[b]scale=80:44,setsar=1[v1]' \
        -map '[v0]' -f framemd5 "$work/v0.md5" -map '[v1]' -f framemd5 "$work/v1.md5" &&
        [ "$(grep -cv '^#' "$work/v0.md5")" = 20 ] && [ "$(grep -cv '^#' "$work/v1.md5")" = 20 ] && echo "20 frames, two sizes"
}
check "a chunk of the frame grid" chunk_of_grid

loudness() { run "${sound[@]}" -af aresample=44100,loudnorm=print_format=json,pan=mono\|c0=c0 -f null - && echo; }
check "loudness" loudness

progress() { run "${picture[@]}" -progress pipe:1 -f null - | grep -x progress=end; }
check "progress" progress

over_pipe() {
    local frames
    frames=$(run -f matroska -i - -f framecrc - <"$work/pipe.mkv" | grep -cv '^#')
    echo "$frames frames"
    [ "$frames" = 50 ]
}
check "Matroska written" round_trip pipe.mkv 'h264 50' "${picture[@]}" -c:v libx264 -preset veryfast
check "read and written by pipe" over_pipe

# The worker's range server is the only peer that ffmpeg ever has; this one knows ranges too.
python3 - "$work" >"$work/port" 2>/dev/null <<'PY' &
import http.server, os, re, sys

class Ranges(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(os.path.join(sys.argv[1], os.path.basename(self.path)), "rb") as file:
            data = file.read()
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()
        first, last = int(first), int(last or len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
server=$!
for _ in $(seq 50); do [ -s "$work/port" ] || sleep 0.1; done
over_http() {
    local got
    got=$(probe "http://127.0.0.1:$(cat "$work/port")/a.mp4")
    echo "$got"
    [[ $got == 'aac '*' h264 50' ]]
}
check "read by http ranges" over_http

# ---- What it must not do -------------------------------------------------------------------------

refuses() { # refuses FILE: an own build has nothing that would follow what a file points to
    if run -i "$1" -f null - 2>"$work/refusal"; then
        echo "it was read"
        return 1
    fi
    tail -n 1 "$work/refusal" | cut -c1-60
}
if [ -n "$strict" ]; then
    printf '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n' >"$work/playlist.mp4"
    printf "ffconcat version 1.0\nfile a.ts\n" >"$work/list.mp4"
    check "a playlist named .mp4 is refused" refuses "$work/playlist.mp4"
    check "a concat list is refused" refuses "$work/list.mp4"
    check "image patterns are refused" refuses "$work/a%d.png"
    check "concat: is refused" refuses "concat:$work/a.ts"
    check "https: is refused" refuses "https://127.0.0.1:$(cat "$work/port")/a.mp4"
fi

finish
