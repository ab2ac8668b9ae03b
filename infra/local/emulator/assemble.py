"""Does for one machine what `sam build` does for AWS, from the development build that is there already.

    assemble.py TEMPLATE BIN_DIR LAYER_DIR CACHE_DIR OUT_DIR

`sam build` would compile everything a second time, for release and for another C library. This puts each function's
binary and the layer's folder into a zip of its own and writes OUT_DIR/template.yaml, the same template with `CodeUri`
and `ContentUri` pointing at the zips: what `sam deploy` takes. Prints {"template", "fingerprint"}; the fingerprint
changes when a deployment would.

A zip is made in CACHE_DIR, anew only when its content changed, and the same content always gives the same bytes, so
that the SAM CLI uploads nothing twice. OUT_DIR has links to the zips of this moment: a later build replaces the cached
ones and leaves these as they are.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from samcli.commands._utils.template import get_template_data, move_template

FUNCTION = "AWS::Serverless::Function"
LAYER = "AWS::Serverless::LayerVersion"


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(files: dict[str, pathlib.Path]) -> list:
    """What tells that the content is as it was, without reading it."""
    seen = {name: path.stat() for name, path in files.items()}
    return [[name, str(files[name]), stat.st_size, stat.st_mtime_ns] for name, stat in sorted(seen.items())]


def strip(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a binary without its debugging data, which is most of it. Without `strip` it goes as it is."""
    tool = shutil.which("strip")
    if tool is not None:
        call = [tool, "--strip-debug", "-o", target, source]
        if subprocess.run(call, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
    shutil.copyfile(source, target)


def pack(files: dict[str, pathlib.Path], target: pathlib.Path, stripped: bool) -> str:
    """Writes `target` if need be, and returns the hash of what it holds."""
    record = target.with_suffix(".json")
    state = state_of(files)
    try:
        known = json.loads(record.read_text())
        if known["state"] == state and target.exists():
            return known["sha256"]
    except (FileNotFoundError, ValueError, KeyError):
        pass
    part = target.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(files.items()):
            if stripped:
                slim = target.with_suffix(".slim")
                strip(path, slim)
                path = slim
            # No time stamp, so that equal content gives equal bytes.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)
            if stripped:
                path.unlink()
    part.replace(target)
    digest = sha256(target)
    record.write_text(json.dumps({"state": state, "sha256": digest}))
    return digest


def link(cached: pathlib.Path, out: pathlib.Path) -> str:
    """The path of a zip in `out` that stays as it is now."""
    target = out / cached.name
    target.unlink(missing_ok=True)
    os.link(cached, target)
    return str(target)


def main(template_path: str, bin_dir: str, layer_dir: str, cache_dir: str, out_dir: str) -> None:
    cache, out = pathlib.Path(cache_dir).resolve(), pathlib.Path(out_dir).resolve()
    for folder in (cache, out):
        folder.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(template_path).resolve()
    layer = pathlib.Path(layer_dir)
    template = get_template_data(str(source))

    packages = {}
    for name, resource in template["Resources"].items():
        cached = cache / f"{name}.zip"
        if resource["Type"] == FUNCTION:
            binary = pathlib.Path(bin_dir) / resource["Metadata"]["BuildProperties"]["Binary"]
            if not binary.is_file():
                sys.exit(f"{name} wants the binary {binary.name}, which the workspace does not build")
            packages[name] = ("CodeUri", {"bootstrap": binary}, cached, True)
        elif resource["Type"] == LAYER:
            files = {str(path.relative_to(layer)): path for path in layer.rglob("*") if path.is_file()}
            packages[name] = ("ContentUri", files, cached, False)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(lambda package: pack(*package[1:]), packages.values()))
    for name, (key, _, cached, _) in packages.items():
        template["Resources"][name]["Properties"][key] = link(cached, out)

    # Other relative paths of the template keep their meaning: the SAM CLI rewrites them when a template moves.
    moved = out / "template.yaml"
    move_template(str(source), str(moved), template)
    named = dict(zip(packages, digests, strict=True))
    fingerprint = hashlib.sha256(json.dumps([source.read_text(), named]).encode()).hexdigest()
    print(json.dumps({"template": str(moved), "fingerprint": fingerprint}))


if __name__ == "__main__":
    main(*sys.argv[1:])
