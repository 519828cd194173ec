# Shared by the scripts beside it: messages, missing packages, time. Sourced, not run.
# shellcheck shell=bash disable=SC2034 # the scripts use what is set here

scripts_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(dirname "$scripts_dir")
self=$(basename "$0")

fail() { echo "$self: $*" >&2; exit 1; }
need_root() { [[ $(id -u) == 0 ]] || fail "needs root: run it with sudo (it makes network namespaces and loads XDP programs)"; }

section() { printf '\n== %s  [%d s]\n' "$*" "$SECONDS"; }

# What each job needs from Debian. The build compiles BPF and xsk-rs's libxdp.
build_packages=(gcc libc6-dev make clang llvm libelf-dev zlib1g-dev libpcap-dev libbpf-dev m4 pkg-config)
lab_packages=(iproute2 procps ethtool util-linux nginx curl)
demo_packages=(wrk netbase)
test_packages=(python3 bpftool nftables iputils-ping systemd ldirectord)

# For scripts/bench, and what lvx is compared with there.
bench_packages=(iproute2 procps util-linux ethtool nftables valgrind)
rival_packages=(haproxy nginx libnginx-mod-stream dpdk-dev librte-net-af-xdp23 librte-mempool-ring23)

# PACKAGEs that are not installed.
missing_of() { # PACKAGE...
  local installed package
  # shellcheck disable=SC2016 # dpkg-query's words, not the shell's
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true
  for package; do grep -qxF "installed $package" <<<"$installed" || echo "$package"; done
}

# Installs those PACKAGEs that are missing, and says which.
install_missing() { # PACKAGE...
  local missing
  mapfile -t missing < <(missing_of "$@")
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}; no apt-get here, install them by hand"
  [[ $(id -u) == 0 ]] || fail "packages are missing; as root: apt-get install --no-install-recommends ${missing[*]}"
  echo "installing ${missing[*]}"
  apt_install "${missing[@]}" || fail "apt-get could not install ${missing[*]}"
}

# Services stay stopped: the nginx wanted here runs in namespaces, one on port 80 of this
# machine would be a surprise. A subshell, whose trap takes that rule back also after Ctrl-C.
apt_install() ( # PACKAGE...
  policy=/usr/sbin/policy-rc.d log=$(mktemp)
  made=("$log")
  trap 'rm -f "${made[@]}"' EXIT
  if [[ ! -e $policy ]]; then
    made+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  fi
  # A machine that has just started may be installing updates: wait for it.
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "$@"; } >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; exit 1; }
)

need_cargo() {
  # shellcheck disable=SC1091 # rustup writes it
  command -v cargo >/dev/null || { [[ -e $HOME/.cargo/env ]] && . "$HOME/.cargo/env"; }
  command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
}
