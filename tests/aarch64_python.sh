#!/bin/sh
# Make a Python for aarch64 that runs on this machine, for tests/test_aarch64_python.py:
#
#   tests/aarch64_python.sh FOLDER
#   FA4_TEST_AARCH64_PYTHON=FOLDER .venv/bin/python -m pytest tests/test_aarch64_python.py
#
# FOLDER/python runs Debian's Python under qemu-aarch64, with FlashAttention-4 and what the loader requires, but not the
# loader, and no compiler. FOLDER/torch and FOLDER/dsl are to be put on PYTHONPATH by who wants them: torch, and the
# DSL's run-time library. Some 800 MB. No root is needed, and it may be run again: what is there is made anew.
#
#   PYTHON   what runs pip, .venv/bin/python if not set
#   SOURCES  a list of apt's sources, if this machine's own have no packages for arm64 (Ubuntu's are elsewhere)
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
checkout=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$checkout/.venv/bin/python}
for program in qemu-aarch64 apt-get dpkg-deb "$python"; do
    if ! command -v "$program" >/dev/null; then
        echo "\`$program\` is not here; it takes a Debian with qemu-user (\`apt-get install qemu-user\`), and pip" >&2
        exit 3
    fi
done
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# Debian's packages, by an apt that knows of no other machine's: this one's state is neither used nor changed.
rm -rf "$folder/apt" "$folder/root"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/root"
: >"$folder/apt/status"
apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Debug::NoLocking=1 -o APT::Sandbox::User= \
        -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt" \
        ${SOURCES:+-o Dir::Etc::sourcelist="$SOURCES" -o Dir::Etc::sourceparts=-} "$@"
}
apt update
apt install --download-only --no-install-recommends --yes python3 libstdc++6
for package in "$folder"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
done
[ -e "$folder/root/lib" ] || ln -s usr/lib "$folder/root/lib" # Debian 13 has it from a package that is not needed
rm -rf "$folder/apt"

cat >"$folder/python" <<'END'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
exec qemu-aarch64 -L "$root" "$root/usr/bin/python3" "$@"
END
chmod +x "$folder/python"
version=$("$folder/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

wheels() {
    rm -rf "$1"
    to=$1
    shift
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary=:all: --target "$to" \
        --implementation cp --python-version "$version" --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_24_aarch64 --platform manylinux2014_aarch64 "$@"
}
pinned() {
    sed -n "s/^$1==/==/p" "$checkout/constraints.txt"
}
wheels "$folder/packages" click PyYAML filelock tqdm typing_extensions "apache-tvm-ffi$(pinned apache-tvm-ffi)" \
    "flash-attn-4$(pinned flash-attn-4)"
# The last release whose wheel for aarch64 needs no CUDA libraries.
wheels "$folder/torch" torch==2.8.0 sympy mpmath networkx jinja2 markupsafe fsspec
wheels "$folder/dsl" "nvidia-cutlass-dsl-libs-cu12$(pinned nvidia-cutlass-dsl)"
echo "../../../../../packages" >"$folder/root/usr/lib/python3/dist-packages/packages.pth"

"$folder/python" -c 'import platform, tvm_ffi; print("Python", platform.python_version(), "for", platform.machine())'
