"""Say what this machine lacks to install and run avsr, and how to get it, before an import fails less clearly.

    python3 scripts/check_system.py               one line for each thing that is missing; exit code 1 if there is any
    python3 scripts/check_system.py --packages    only the names of the missing packages of this distribution

Needs nothing but Python itself.
"""

from __future__ import annotations

import ctypes
import platform
import sys

PYTHONS = ((3, 10), (3, 12))  # mediapipe 0.10.21 has wheels for these only

# What is needed, and the package that has it by distribution family (ID or ID_LIKE in /etc/os-release).
NEEDS = {
    "venv": {"debian": f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"},
    "libGL.so.1": {"debian": "libgl1", "fedora": "mesa-libGL", "suse": "Mesa-libGL1", "arch": "libglvnd"},
    "libgthread-2.0.so.0": {"debian": "libglib2.0-0", "fedora": "glib2", "suse": "libgthread-2_0-0", "arch": "glib2"},
}
INSTALL = {"debian": "apt-get install", "fedora": "dnf install", "suse": "zypper install", "arch": "pacman -S"}
WHY = {
    "venv": "Python's venv module, which keeps the packages of avsr apart",
    "libGL.so.1": "the library libGL.so.1, which OpenCV and MediaPipe load",
    "libgthread-2.0.so.0": "the library libgthread-2.0.so.0, which OpenCV loads",
}


def main() -> int:
    """Check this machine; returns the exit code."""
    missing = [need for need in NEEDS if not _is_there(need)]
    family = _distribution_family()
    packages = [NEEDS[need][family] for need in missing if family in NEEDS[need]]
    if sys.argv[1:] == ["--packages"]:
        print(" ".join(packages))
        return 0

    problems = []
    oldest, newest = PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        problems.append(f"Python {platform.python_version()} does not fit: avsr needs 3.10, 3.11 or 3.12")
    if sys.platform == "linux" and platform.machine() not in ("x86_64", "AMD64"):
        problems.append(f"MediaPipe 0.10.21 has no wheel for Linux on {platform.machine()}, only on x86_64")
    problems += [f"missing: {WHY[need]}" for need in missing]
    if packages:
        problems.append(f"to install what is missing:  sudo {INSTALL[family]} {' '.join(packages)}")
    elif missing:
        problems.append("look for packages with these names in your system's package manager")
    for problem in problems:
        print(f"avsr: {problem}", file=sys.stderr)
    if not problems:
        print("avsr: this system has what avsr needs", file=sys.stderr)
    return 1 if problems else 0


def _is_there(need: str) -> bool:
    if need == "venv":
        try:
            import ensurepip  # noqa: F401  (Debian leaves this half of venv out of its python3 package)
            import venv  # noqa: F401
        except ImportError:
            return False
        return True
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL(need)
    except OSError:
        return False
    return True


def _distribution_family() -> str:
    """The first of ID and ID_LIKE that we know packages for; "" for none."""
    try:
        release = platform.freedesktop_os_release()
    except (OSError, AttributeError):  # AttributeError: Python before 3.10, which main() is about to refuse
        return ""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    relatives = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}
    families = [relatives.get(name, name) for name in names]
    return next((family for family in families if family in INSTALL), "")


if __name__ == "__main__":
    sys.exit(main())
