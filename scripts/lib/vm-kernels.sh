# Debian's kernels, and a QEMU newer than this machine's, by an apt of its own. Sourced by scripts/vm.
# shellcheck shell=bash

vm_cache=${XDG_CACHE_HOME:-$HOME/.cache}/lvx/vm
# For scripts/vm. busybox, cpio, kmod, xz and zstd make the initramfs.
vm_packages=(qemu-system-x86 busybox-static cpio kmod xz-utils zstd util-linux debian-archive-keyring)

prepare_machines() {
  [[ $(uname -m) == x86_64 ]] || fail "only for amd64: the kernels fetched are Debian's for it, this machine is $(uname -m)"
  install_missing "${vm_packages[@]}"
  mkdir -p "$vm_cache/kernels"
}

# ------------------------------------------------------------ an apt of our own
# Suites in the order they are asked. Backports first: their lists are small.
suites_of() { # KERNEL
  case $1 in
  5.*) echo bullseye ;;
  6.1 | 6.1.*) echo bookworm ;;
  6.12 | 6.12.*) echo bookworm-backports trixie ;;
  newest) echo trixie-backports ;;
  *) echo trixie-backports bookworm-backports trixie testing sid ;;
  esac
}
all_suites=(bullseye bookworm bookworm-backports trixie trixie-backports testing sid)

# The mirror that this machine's apt uses, where that is Debian's.
debian_mirror() {
  local uri
  uri=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }') || true
  echo "${uri:-http://deb.debian.org/debian/}"
}

apt_of() { # SUITE COMMAND...: apt-get, apt-cache with that suite's lists alone
  local dir=$vm_cache/apt/$1
  APT_CONFIG=$dir/apt.conf "${@:2}"
}
apt_lists() { # SUITE: at most once a day
  local dir=$vm_cache/apt/$1
  [[ -z $(find "$dir/updated" -mtime -1 2>/dev/null) ]] || return 0
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  : >"$dir/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $1 main" >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Update::Post-Invoke { };
Acquire::Languages "none";
Acquire::Retries "3";
CONF
  # Hooks of this machine's own configuration are not for these lists.
  echo '#clear APT::Update::Post-Invoke; #clear APT::Update::Post-Invoke-Success; #clear DPkg::Post-Invoke;' >>"$dir/apt.conf"
  apt_of "$1" apt-get update -qq >"$dir/log" 2>&1 || return 1
  touch "$dir/updated"
}

# Names like linux-image-6.1.0-49-amd64, the newest last.
images_in() { # SUITE
  apt_of "$1" apt-cache search --names-only '^linux-image-[0-9][^-]*(-[0-9.]+)?-amd64$' | awk '{ print $1 }' | sort -V
}
kernels_of_debian() {
  local suite
  for suite in "${all_suites[@]}"; do
    mkdir -p "$vm_cache"
    if apt_lists "$suite"; then
      images_in "$suite" | sed -E "s/^linux-image-(.*)-amd64$/\1\t$suite/"
    else
      note "$suite: $(tail -n 1 "$vm_cache/apt/$suite/log")"
    fi
  done
}
note() { echo "$self: $*" >&2; }

download() { # SUITE FOLDER PACKAGE...: unpacks them there
  local suite=$1 folder=$2 fetched
  shift 2
  fetched=$(mktemp -d "$vm_cache/fetch.XXXXXX")
  note "fetching $* from Debian $suite"
  # Unpacked before the next, and removed: a kernel's packages take 100 MB and more.
  (cd "$fetched" && apt_of "$suite" apt-get download -qq "$@") >"$vm_cache/apt/$suite/log" 2>&1 || {
    rm -rf "$fetched"; fail "could not fetch $*: $(tail -n 1 "$vm_cache/apt/$suite/log")"; }
  local package
  for package in "$fetched"/*.deb; do dpkg-deb --extract "$package" "$folder"; done
  rm -rf "$fetched"
}

# ------------------------------------------------------------ kernels
cached_kernel() { # KERNEL: the newest that is prepared
  local pattern="$1"
  [[ $1 != newest ]] || return 1
  (cd "$vm_cache/kernels" && ls -d "$pattern"-* "$pattern".* "$pattern"+* "$pattern" 2>/dev/null) |
    while read -r version; do [[ ! -e $vm_cache/kernels/$version/ready ]] || echo "$version"; done |
    sort -V | tail -n 1 | grep .
}
kernel_for() { # KERNEL: prints the version that its modules' folder has
  mkdir -p "$vm_cache/kernels"
  (
    flock 9
    version=$(cached_kernel "$1") || version=$(fetch_kernel "$1") || exit 1
    # Made again when its first process is another than it was.
    folder=$vm_cache/kernels/$version
    cmp -s "$folder/init" "$scripts_dir/lib/vm-init" || make_initramfs "$folder" "$version"
    echo "$version"
  ) 9>"$vm_cache/lock" || fail "no kernel $1"
}

fetch_kernel() { # KERNEL
  local suite image
  [[ $1 =~ ^[0-9][0-9.]*$|^newest$ ]] || fail "a kernel is a version's beginning, such as 6.1, or 'newest', not '$1'"
  for suite in $(suites_of "$1"); do
    apt_lists "$suite" || { note "Debian $suite: $(tail -n 1 "$vm_cache/apt/$suite/log")"; continue; }
    image=$(images_in "$suite" | grep -E "^linux-image-$(version_pattern "$1")[-.+]" | tail -n 1) || continue
    unpack_kernel "$suite" "$image"
    return
  done
  fail "Debian's archive has no kernel $1 (looked in $(suites_of "$1")); see: vm list"
}
version_pattern() { if [[ $1 == newest ]]; then echo '[0-9.]+'; else echo "${1//./\\.}"; fi; }

unpack_kernel() { # SUITE IMAGE: later kernels come in several packages
  local suite=$1 image=$2 version=${2#linux-image-} folder parts
  folder=$vm_cache/kernels/$version
  [[ ! -e $folder/ready ]] || { echo "$version"; return; }
  mapfile -t parts < <(apt_of "$suite" apt-cache depends "$image" | awk -v version="$version" '
    /Depends: linux-(base|binary|modules)-/ && index($2, version) { print $2 }')
  rm -rf "$folder"
  mkdir -p "$folder/root"
  download "$suite" "$folder/root" "$image" "${parts[@]}"
  keep_kernel "$folder" "$version"
  touch "$folder/ready"
  echo "$version"
}
keep_kernel() { # FOLDER VERSION: leaves vmlinux and lib/modules
  local folder=$1 root=$1/root image modules
  image=$(ls "$root"/boot/vmlinuz-* "$root/usr/lib/modules/$2/vmlinuz" 2>/dev/null | head -n 1)
  [[ -n $image ]] || fail "the packages of $2 have no vmlinuz where expected: $root"
  unpack_image "$image" "$folder/vmlinux"
  mkdir -p "$folder/lib/modules/$2"
  for modules in "$root/lib/modules/$2" "$root/usr/lib/modules/$2"; do
    [[ ! -d $modules ]] || cp -a --link "$modules/." "$folder/lib/modules/$2/"
  done
  rm -rf "$root"
  depmod -b "$folder" "$2"
}

# The kernel itself, out of the image that would unpack itself: under emulation that takes most of
# the time of a boot. QEMU starts an ELF file by its PVH note. What follows the packed part is
# not its end to xz and zstd: hence the look at what came out.
unpack_image() { # FROM TO
  local how at
  for how in 'xz -dc:\xFD7zXZ\x00' 'zstd -dqc:\x28\xB5\x2F\xFD'; do
    for at in $(LC_ALL=C grep -obUaP -m 1 "${how#*:}" "$1" | cut -d: -f1 | head -n 1); do
      tail -c "+$((at + 1))" "$1" | ${how%%:*} >"$2" 2>/dev/null || true
      [[ $(head -c 4 "$2" | tail -c 3) != ELF ]] || return 0
    done
  done
  cp "$1" "$2"
}

# What must be there before the guest can read this machine's files.
make_initramfs() { # FOLDER VERSION
  local folder=$1 version=$2 tree=$1/initramfs.d module place=100
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,modules,proc,sys,dev,new,lower,upper}
  cp /bin/busybox "$tree/bin/"
  install -m 755 "$scripts_dir/lib/vm-init" "$tree/init"
  while read -r module; do
    unpack_module "$module" "$tree/modules/$((place++))-$(basename "$module")"
  done < <(for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -S "$version" -d "$folder" --show-depends "$module" | awk '/^insmod/ { print $2 }'
  done | awk '!seen[$0]++')
  (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/initramfs"
  rm -rf "$tree"
  cp "$scripts_dir/lib/vm-init" "$folder/init"
}
unpack_module() { # FROM TO: busybox's insmod wants them plain
  case $1 in
  *.xz) xz -dc "$1" >"${2%.xz}" ;;
  *.zst) zstd -dqc "$1" >"${2%.zst}" ;;
  *) cp "$1" "$2" ;;
  esac
}

# ------------------------------------------------------------ QEMU
qemu_command=(qemu-system-x86_64)
# Backports are built for this very release, so they run unpacked, with its libraries.
choose_qemu() { # AT LEAST
  local own codename folder
  own=$(qemu-system-x86_64 --version | grep -oE 'version [0-9]+' | grep -oE '[0-9]+')
  ((own < $1)) || return 0
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  folder=$vm_cache/qemu-$codename-backports
  (
    flock 9
    [[ -e $folder/ready ]] || unpack_qemu "$codename-backports" "$folder"
  ) 9>"$vm_cache/lock" || fail "this machine's QEMU is $own, $1 is needed"
  # Its modules are its own too: this machine's QEMU has others.
  export QEMU_MODULE_DIR=$folder/usr/lib/x86_64-linux-gnu/qemu
  qemu_command=("$folder/usr/bin/qemu-system-x86_64" -L "$folder/usr/share/qemu" -L "$folder/usr/share/seabios" -L "$folder/usr/lib/ipxe/qemu")
  own=$("${qemu_command[@]}" --version | grep -oE 'version [0-9]+' | grep -oE '[0-9]+') || fail "the QEMU in $folder does not start"
  ((own >= $1)) || fail "Debian $codename-backports has QEMU $own, $1 is needed"
}
unpack_qemu() { # SUITE FOLDER
  apt_lists "$1" || fail "Debian $1: $(tail -n 1 "$vm_cache/apt/$1/log")"
  rm -rf "$2"
  download "$1" "$2" qemu-system-x86 qemu-system-common qemu-system-data seabios
  touch "$2/ready"
}
