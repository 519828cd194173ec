# One machine, named by $machine (its folder). Sourced by scripts/vm.
# shellcheck shell=bash

vm_root=/run/lvx-vm
machine_named() { # NAME
  [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] || fail "a machine's NAME is of a-z, 0-9 and '-', not '$1'"
  name=$1 machine=$vm_root/$1
}
machine_is_alive() { [[ -e $machine/pid ]] && kill -0 "$(cat "$machine/pid")" 2>/dev/null; }

machine_start() { # VERSION [QEMU ARGUMENT]...
  local folder=$vm_cache/kernels/$1 at
  shift
  ! machine_is_alive || fail "a machine named $name is there already: vm stop $name"
  ((qemu_at_least == 0)) || choose_qemu "$qemu_at_least"
  rm -rf "$machine"
  mkdir -p "$machine/share"
  cp "$scripts_dir/lib/vm-guest" "$machine/share/guest"
  echo "$folder/lib/modules" >"$machine/share/modules"
  mkfifo "$machine"/{monitor,jobs}.{in,out}
  machine_boot "$folder" "$@"
  machine_guard
  for ((at = 0; at < 9000; at++)); do
    [[ ! -e $machine/share/ready ]] || return 0
    machine_is_alive || break
    sleep 0.1
  done
  tail -n 20 "$machine/console" >&2
  machine_stop
  fail "the machine did not boot: the lines above are its console's last"
}
# A busy machine starves its guests: what the kernel would say of that, or do about it, is no
# finding. Defences against other tenants are of no use in a guest that lives for minutes, and slow.
kernel_words="console=ttyS0 quiet panic=-1 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 mitigations=off nokaslr"
machine_boot() { # FOLDER [QEMU ARGUMENT]...
  local folder=$1 where=()
  shift
  [[ -z $netns ]] || where=(ip netns exec "$netns")
  # Descriptors of the caller (pipes, locks) are not the machine's to hold.
  "${where[@]}" "${qemu_command[@]}" -accel tcg,thread=multi -cpu max -machine q35 -smp "$cpus" -m "$memory_mib" \
    -nographic -no-reboot -nic none \
    -kernel "$folder/vmlinux" -initrd "$folder/initramfs" -append "$kernel_words" \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev local,id=share,path="$machine/share",security_model=none \
    -device virtio-9p-pci,fsdev=share,mount_tag=share \
    -chardev pipe,id=monitor,path="$machine/monitor" -mon chardev=monitor \
    -serial stdio -chardev pipe,id=jobs,path="$machine/jobs" -serial chardev:jobs -monitor none "$@" \
    </dev/null >"$machine/console" 2>&1 3>&- 9>&- &
  echo $! >"$machine/pid"
  disown
}
# Ends the machine when its owner is gone, killed included.
machine_guard() {
  ((owner)) || return 0
  (
    while [[ -e /proc/$owner ]] && machine_is_alive; do sleep 1; done
    [[ -e /proc/$owner ]] || machine_stop
  ) </dev/null >/dev/null 2>&1 3>&- 9>&- &
  disown
}
machine_stop() {
  local pid at
  [[ -e $machine/pid ]] || return 0
  pid=$(cat "$machine/pid")
  kill "$pid" 2>/dev/null || true
  for ((at = 0; at < 50; at++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  rm -rf "$machine"
  rmdir "$vm_root" 2>/dev/null || true
}

# ------------------------------------------------------------ commands
machine_exec() { # LINE: output as it comes, and the exit status
  local job share=$machine/share until
  machine_is_alive || fail "no machine named $name"
  job=$(date +%s%N)-$$
  : >"$share/$job.out"
  printf 'cd %q\n%s\n' "$PWD" "$1" >"$share/$job.job"
  echo "$job" >"$machine/jobs.in"
  until=$((SECONDS + timeout_s))
  exec 4<"$share/$job.out"
  until [[ -e $share/$job.done ]]; do
    cat <&4
    machine_is_alive || { cat <&4; tail -n 20 "$machine/console" >&2; fail "the machine ended; the lines above are its console's last"; }
    ((SECONDS < until)) || { cat <&4; note "no end after $timeout_s s: $1"; return 124; }
    sleep 0.1
  done
  cat <&4
  exec 4<&-
  return "$(cat "$share/$job.done")"
}
