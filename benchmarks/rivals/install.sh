#!/bin/sh
# Makes the rivals' environments, pinned, in the folder given:  benchmarks/rivals/install.sh ENVS [NAME ...]
# NAME is torch (fast-plaid, xtr-warp-rs and the exact kernels), tachiom, colsearch, lancedb or qdrant; all if left out.
# The default build of torch takes some 5 GB; PIP_INDEX may name an index with a CPU build of it.
set -eu
envs=${1:?usage: install.sh ENVS [NAME ...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$envs"
envs=$(cd "$envs" && pwd)

# TACHIOM's wheel wants glibc 2.39. Where the system's is older, its python runs on the C library of Debian 13, which
# apt fetches and checks, and which nothing else uses.
newer_libc() {
  root="$envs/tachiom/debian-13"
  mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial" "$root/etc"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$root/etc/sources.list"
  options="-qq -o Dir::Etc::SourceList=$root/etc/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State=$root/state
    -o Dir::State::status=/dev/null -o Dir::Cache=$root/cache -o APT::Sandbox::User=root"
  # shellcheck disable=SC2086
  apt-get $options update
  # shellcheck disable=SC2086
  (cd "$root" && apt-get $options download libc6 libstdc++6 libgcc-s1)
  for package in "$root"/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm -rf "$root"/*.deb "$root/state" "$root/cache"
  libraries="$root/usr/lib/$(uname -m)-linux-gnu"
  rm "$envs/tachiom/bin/python"
  printf '#!/bin/sh\nexec "%s"/ld-linux-*.so.2 --library-path "%s" "%s" "$@"\n' \
    "$libraries" "$libraries" "$envs/tachiom/bin/python3" > "$envs/tachiom/bin/python"
  chmod +x "$envs/tachiom/bin/python"
}

for name in ${*:-torch tachiom colsearch lancedb qdrant}; do
  "${PYTHON:-python3}" -m venv "$envs/$name"
  python="$envs/$name/bin/python"
  if [ "$name" = tachiom ] && ! getconf GNU_LIBC_VERSION | awk '{ split($2, v, "."); exit v[1] * 100 + v[2] < 239 }'; then
    ln -sf "$(readlink -f "$python")" "$envs/$name/bin/python3"
    newer_libc
  fi
  case $name in torch | colsearch)
    "$python" -m pip install --quiet --disable-pip-version-check ${PIP_INDEX:+--index-url "$PIP_INDEX"} \
      "$(grep '^torch==' "$here/requirements/$name.txt")"
  esac
  "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements/$name.txt"
  "$python" -m pip list --disable-pip-version-check --format freeze |
    grep -i -E '^(fast.plaid|xtr-warp-rs|maxsim-cpu|numkong|torch|tachiom|colsearch|latence-shard-engine|lancedb|qdrant-client)='
done
