# Shared by the scripts beside it: messages, missing packages, time. Sourced, not run.
# shellcheck shell=bash

scripts_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(dirname "$scripts_dir")
self=$(basename "$0")

fail() { echo "$self: $*" >&2; exit 1; }
need_root() { [[ $(id -u) == 0 ]] || fail "needs root: run it with sudo (it makes network namespaces and loads XDP programs)"; }

section() { printf '\n== %s  [%d s]\n' "$*" "$SECONDS"; }

# What each job needs from Debian. The build compiles BPF and xsk-rs's libxdp.
build_packages=(gcc libc6-dev make clang llvm libelf-dev zlib1g-dev m4 pkg-config)
lab_packages=(iproute2 procps ethtool util-linux nginx curl)
demo_packages=(wrk)
test_packages=(python3 bpftool nftables iputils-ping systemd ldirectord)

# For scripts/bench, and what lvx is compared with there.
bench_packages=(iproute2 procps util-linux ethtool nftables valgrind)
rival_packages=(haproxy nginx libnginx-mod-stream dpdk-dev librte-net-af-xdp23 librte-mempool-ring23)

# Installs those PACKAGEs that are missing, and says which. Services stay stopped: the nginx
# wanted here runs in namespaces, one on port 80 of this machine would be a surprise.
install_missing() {
  local package missing=() policy=/usr/sbin/policy-rc.d own_policy=0 log
  for package; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}; no apt-get here, install them by hand"
  echo "installing ${missing[*]}"
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && own_policy=1
  fi
  log=$(mktemp)
  local ok=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null || ok=1
  ((own_policy)) && rm -f "$policy"
  ((ok == 0)) || { tail -n 20 "$log" >&2; rm -f "$log"; fail "apt-get could not install ${missing[*]}"; }
  rm -f "$log"
}

need_cargo() {
  command -v cargo >/dev/null || { [[ -e $HOME/.cargo/env ]] && . "$HOME/.cargo/env"; }
  command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
}
