"""Clips that are made, chunks that are joined, and pictures that are compared."""

import dataclasses
import hashlib
import pathlib
import re
import shutil

from common import Failure, run_child
from recipe import Rung, Source

# Still pictures over which the camera moves; the fourth scene is the test picture. Detail of three kinds: a fractal,
# grain under soft light, and clouds.
TEXTURES = {
    "fractal": (
        "mandelbrot=size=1440x810:start_scale=0.06:start_x=-0.743:start_y=0.131:maxiter=500",
        "scale=W:H:flags=lanczos",
    ),
    "stone": (
        "gradients=size=1440x810:n=6:seed=7",
        "scale=W:H,noise=alls=60:allf=p:all_seed=3,gblur=sigma=1.4,unsharp=7:7:2",
    ),
    "clouds": (
        "color=gray:size=96x54",
        "format=yuv444p,noise=alls=100:allf=p:all_seed=11,scale=480:270:flags=bicubic,noise=alls=30:allf=p:all_seed=5,"
        "scale=W:H:flags=bicubic,noise=alls=12:allf=p:all_seed=9",
    ),
}
# Lengths of the scenes, in seconds: none falls on a group of pictures, nor on a chunk.
SCENES_SECONDS = (7.3, 5.1, 9.7, 4.3, 8.9, 6.1, 11.3, 7.3)
RATE = 30
# Every so many frames are compared; no multiple of the pattern of B-frames, so that all kinds of frames are among them.
COMPARED = 3
# One time and a half the picture: room for the camera.
ROOM = 1.5
GRAIN = "noise=c0s=6:c0f=t+u"


def made(folder: pathlib.Path, name: str, command: list[str]) -> pathlib.Path:
    """A file that a command makes as its last argument, unless an earlier run has made it in the same way."""
    digest = hashlib.sha256(" ".join(command).encode()).hexdigest()[:12]
    path = folder / f"{name}-{digest}{pathlib.Path(command[-1]).suffix}"
    if not path.exists():
        run_child(command, folder)
        (folder / command[-1]).replace(path)
    return path


def make_clip(ffmpeg: pathlib.Path, folder: pathlib.Path, height_px: int, seconds: float) -> pathlib.Path:
    """A clip of pans over textures with grain and cuts, and sound with a beep every five seconds."""
    width_px = height_px * 16 // 9
    wide, high = (int(side * ROOM) // 2 * 2 for side in (width_px, height_px))
    start = [str(ffmpeg), *"-nostdin -v error -y".split()]
    stills = []
    for name, (lavfi, filters) in TEXTURES.items():
        sized = filters.replace("W:H", f"{wide}:{high}")
        command = [*start, "-f", "lavfi", "-i", lavfi, "-vf", sized, "-frames:v", "1", "still.bmp"]
        stills.append(made(folder, f"{name}-{height_px}", command))

    lengths, left = [], seconds
    while left > 0:
        lengths.append(min(SCENES_SECONDS[len(lengths) % len(SCENES_SECONDS)], left))
        left = round(left - lengths[-1], 6)
    inputs, chains = [], []
    for n, length in enumerate(lengths):
        kind = n % (len(stills) + 1)
        if kind == len(stills):
            inputs += ["-f", "lavfi", "-t", str(length), "-i", f"testsrc2=size={width_px}x{height_px}:rate={RATE}"]
            chains.append(f"[{n}]format=yuv420p[c{n}]")
        else:
            inputs += ["-loop", "1", "-framerate", str(RATE), "-t", str(length), "-i", str(stills[kind])]
            # Slow and quick pans, so that motion differs from scene to scene.
            across = f"(iw-ow)*(0.5+0.5*sin(t*{0.3 + 0.1 * (n % 4):.2f}))"
            down = f"(ih-oh)*(0.5+0.5*cos(t*{0.2 + 0.07 * (n % 5):.2f}))"
            chains.append(f"[{n}]crop={width_px}:{height_px}:x='{across}':y='{down}',format=yuv420p[c{n}]")
    joined = "".join(f"[c{n}]" for n in range(len(lengths)))
    chains.append(f"{joined}concat=n={len(lengths)}:v=1:a=0,{GRAIN},fps={RATE}[v]")
    tone = "0.25*sin(2*PI*(220+20*sin(t))*t)+0.6*lt(mod(t,5),0.1)*sin(2*PI*1000*t)".replace(",", r"\,")
    inputs += ["-f", "lavfi", "-t", str(seconds), "-i", f"aevalsrc={tone}:s=48000:c=stereo"]
    command = [*start, *inputs, "-filter_complex", ";".join(chains), "-map", "[v]", "-map", f"{len(lengths)}:a"]
    command += "-c:v libx264 -preset superfast -crf 21 -g 250 -c:a aac -b:a 128k".split()
    return made(folder, f"clip-{height_px}-{seconds:g}s", [*command, "-t", str(seconds), "clip.mp4"])


def make_noise(ffmpeg: pathlib.Path, folder: pathlib.Path, seconds: int) -> pathlib.Path:
    """A clip that no encoder makes small: few frames, each new."""
    picture = f"color=gray:size=1920x1080:rate=5:duration={seconds},noise=alls=100:allf=t"
    command = [str(ffmpeg), *"-nostdin -v error -y -f lavfi -i".split(), picture]
    command += ["-f", "lavfi", "-i", f"sine=sample_rate=48000:duration={seconds}"]
    command += "-c:v libx264 -preset ultrafast -crf 34 -g 20 -pix_fmt yuv420p -c:a aac -b:a 128k noise.mp4".split()
    return made(folder, f"noise-{seconds}s", command)


def first_seconds(ffmpeg: pathlib.Path, folder: pathlib.Path, clip: pathlib.Path, seconds: int) -> pathlib.Path:
    """The beginning of a clip, without encoding it again."""
    command = [str(ffmpeg), *"-nostdin -v error -y -i".split(), str(clip)]
    # One frame less than a whole second would be cut by time stamps alone.
    command += f"-map 0 -c copy -frames:v {seconds * RATE} -t {seconds} part.mp4".split()
    return made(folder, f"{clip.stem}-first-{seconds}s", command)


# ---------------------------------------------------------------------------------------------------------------------
# Joining


def header_bytes(file: pathlib.Path) -> int:
    """Length of what stands before the first fragment of a track file."""
    offset = 0
    with file.open("rb") as data:
        while head := data.read(8):
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"moof":
                return offset
            if size < 8:
                break
            offset += size
            data.seek(offset)
    raise Failure(f"{file} has no fragment")


def join(parts: list[pathlib.Path], file: pathlib.Path) -> None:
    """Puts chunks of a track together: the first one's header, then all fragments."""
    with file.open("wb") as out:
        for n, part in enumerate(parts):
            with part.open("rb") as data:
                data.seek(header_bytes(part) if n else 0)
                shutil.copyfileobj(data, out, 1 << 20)


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


@dataclasses.dataclass(frozen=True)
class Quality:
    """How near a rendition is to its source."""

    ssim: float
    psnr_db: float


def compare(
    ffmpeg: pathlib.Path, folder: pathlib.Path, source: Source, ladder: list[Rung], files: list[pathlib.Path]
) -> list[Quality]:
    """SSIM and PSNR of renditions against the source at their size, over every third frame."""
    command = [str(ffmpeg), *"-nostdin -hide_banner -v info -nostats -y -i".split(), str(source.path)]
    for file in files:
        command += ["-i", str(file)]
    grid = f"settb={source.rate.denominator}/{source.rate.numerator},setpts=N,select=not(mod(n\\,{COMPARED}))"
    pads = "".join(f"[r{n}]" for n in range(len(ladder)))
    chains = [f"[0:v]{grid},split={len(ladder)}{pads}"]
    for n, rung in enumerate(ladder):
        chains.append(f"[r{n}]scale={rung.width_px}:{rung.height_px}:flags=bicubic,format=yuv420p,split[x{n}][y{n}]")
        chains.append(f"[{n + 1}:v]{grid},split[p{n}][q{n}]")
        chains.append(f"[p{n}][x{n}]ssim@ssim{n},nullsink;[q{n}][y{n}]psnr@psnr{n}[o{n}]")
    command += ["-filter_complex", ";".join(chains)]
    for n in range(len(ladder)):
        command += ["-map", f"[o{n}]", "-f", "null", "-"]
    run_child(command, folder)
    said = (folder / "errors").read_text(errors="replace")
    found = []
    for n in range(len(ladder)):
        ssim = re.search(rf"ssim{n} @ [^]]*\] SSIM .*All:([0-9.]+)", said)
        psnr = re.search(rf"psnr{n} @ [^]]*\] PSNR .*average:([0-9.]+)", said)
        if not ssim or not psnr:
            raise Failure(f"ffmpeg told no SSIM or PSNR: {said.strip()[-500:]}")
        found.append(Quality(float(ssim[1]), float(psnr[1])))
    return found
