"""Checks that what was built loads on Lambda, and how large it is.

    binaries.py [--architecture x86_64|arm64] [PATH...]

PATH is a `bootstrap`, or a folder that `sam build` wrote; without one it is .aws-sam/build. Prints a table, then one line
for each finding, and exits 1 if there is one.
"""

import argparse
import pathlib
import re
import struct
import sys
import zipfile

from expand import ROOT, TEMPLATE, load

# Of provided.al2023.
GLIBC = (2, 34)
# e_machine of the ELF header.
MACHINES = {62: "x86_64", 183: "arm64"}
MIB = 1 << 20
# Zipped. A cold start loads all of it, so growth should be a decision.
ZIP_BUDGET_BYTES = 10 * MIB
ZIP_BUDGETS_BYTES: dict[str, int] = {}
# Lambda's own limit for a function with its layers.
UNZIPPED_LIMIT_BYTES = 250 * MIB

SHT_GNU_VERNEED = 0x6FFFFFFE


class Elf:
    """The few facts of a 64-bit little-endian ELF file that decide whether it loads."""

    def __init__(self, path: pathlib.Path):
        self.data = path.read_bytes()
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("is not a 64-bit little-endian ELF file")
        self.machine = struct.unpack_from("<H", self.data, 18)[0]
        offset, = struct.unpack_from("<Q", self.data, 40)
        size, count = struct.unpack_from("<HH", self.data, 58)
        # type, file offset, size, link, info
        self.sections = []
        for index in range(count):
            kind, = struct.unpack_from("<I", self.data, offset + index * size + 4)
            start, length = struct.unpack_from("<QQ", self.data, offset + index * size + 24)
            link, info = struct.unpack_from("<II", self.data, offset + index * size + 40)
            self.sections.append((kind, start, length, link, info))
        if not self.sections:
            raise ValueError("has no section table")

    def text(self, section: int, offset: int) -> str:
        start = self.sections[section][1] + offset
        return self.data[start : self.data.index(b"\0", start)].decode()

    def needed_versions(self) -> set[str]:
        """Versions of symbols that it takes from shared libraries, such as GLIBC_2.34."""
        versions = set()
        for kind, start, _, strings, files in self.sections:
            if kind != SHT_GNU_VERNEED:
                continue
            position = start
            for _ in range(files):
                _, count, _, first, following = struct.unpack_from("<HHIII", self.data, position)
                auxiliary = position + first
                for _ in range(count):
                    _, _, _, name, step = struct.unpack_from("<IHHII", self.data, auxiliary)
                    versions.add(self.text(strings, name))
                    auxiliary += step
                position += following
        return versions


def glibc(versions: set[str]) -> tuple[int, ...]:
    found = [re.fullmatch(r"GLIBC_(\d+(?:\.\d+)*)", version) for version in versions]
    return max((tuple(int(part) for part in match[1].split(".")) for match in found if match), default=())


class Counter:
    """A file that only counts."""

    def __init__(self):
        self.size = 0

    def write(self, data) -> int:
        self.size += len(data)
        return len(data)

    def flush(self):
        pass


def zipped(files: list[pathlib.Path]) -> int:
    counter = Counter()
    with zipfile.ZipFile(counter, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    return counter.size


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def packages(paths: list[pathlib.Path]) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path], list[str]]:
    """The files of every function, the files of the layers, and what is missing."""
    functions: dict[str, list[pathlib.Path]] = {}
    layers: list[pathlib.Path] = []
    missing = []
    for path in paths:
        if path.is_file():
            functions[path.parent.name] = [path]
            continue
        for name, resource in load(TEMPLATE)["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function":
                if (path / name / "bootstrap").is_file():
                    functions[name] = files_of(path / name)
                else:
                    missing.append(f"{path / name} has no bootstrap")
            elif resource["Type"] == "AWS::Serverless::LayerVersion":
                if (path / name / "bin").is_dir():
                    layers += files_of(path / name)
                else:
                    missing.append(f"{path / name} has no bin folder")
    return functions, layers, missing


def check_binary(path: pathlib.Path, architecture: str | None) -> tuple[str, list[str]]:
    """The highest glibc version that a file asks for, and what is wrong with it."""
    try:
        elf = Elf(path)
    except (ValueError, struct.error, IndexError) as error:
        return "-", [str(error) or "is not a whole ELF file"]
    findings = []
    machine = MACHINES.get(elf.machine, f"machine {elf.machine}")
    if architecture and machine != architecture or machine not in MACHINES.values():
        findings.append(f"is for {machine}")
    version = glibc(elf.needed_versions())
    if version > GLIBC:
        findings.append(f"asks for glibc {'.'.join(map(str, version))}, and Lambda has {'.'.join(map(str, GLIBC))}")
    return ".".join(map(str, version)) or "static", findings


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="*", type=pathlib.Path, metavar="PATH")
    parser.add_argument("--architecture", choices=sorted(MACHINES.values()))
    arguments = parser.parse_args()

    functions, layers, findings = packages(arguments.paths or [ROOT / ".aws-sam" / "build"])
    layer_bytes = sum(path.stat().st_size for path in layers)
    print(f"{'function':<18}{'zip MiB':>9}{'MiB':>8}{'glibc':>8}")
    for name, files in functions.items():
        bootstrap = next(path for path in files if path.name == "bootstrap" or len(files) == 1)
        version, wrong = check_binary(bootstrap, arguments.architecture)
        findings += [f"{name}: bootstrap {text}" for text in wrong]
        zip_bytes = zipped(files)
        unzipped_bytes = sum(path.stat().st_size for path in files)
        print(f"{name:<18}{zip_bytes / MIB:>9.2f}{unzipped_bytes / MIB:>8.1f}{version:>8}")
        budget = ZIP_BUDGETS_BYTES.get(name, ZIP_BUDGET_BYTES)
        if zip_bytes > budget:
            findings.append(f"{name}: its zip has {zip_bytes / MIB:.1f} MiB, more than the {budget / MIB:.0f} it may have")
        if unzipped_bytes + layer_bytes >= UNZIPPED_LIMIT_BYTES:
            findings.append(f"{name}: with the layers it has {(unzipped_bytes + layer_bytes) / MIB:.0f} MiB, Lambda takes 250")
    if layers:
        print(f"{'layers':<18}{zipped(layers) / MIB:>9.2f}{layer_bytes / MIB:>8.1f}")
    for path in layers:
        if path.parent.name == "bin":
            _, wrong = check_binary(path, arguments.architecture)
            findings += [f"layer: {path.name} {text}" for text in wrong]
    for finding in findings:
        print(f"binaries: {finding}")
    if not functions and not findings:
        print("binaries: there is nothing to check")
    return 1 if findings or not functions else 0


if __name__ == "__main__":
    sys.exit(main())
