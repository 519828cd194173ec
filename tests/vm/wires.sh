# The wires of a test with emulated cards: a lab by scripts/lab, in whose director's place there
# are two bridges with a tap each. QEMU runs in that namespace. Sourced by tests/vm/nic.
# shellcheck shell=bash
# Of its user: $lab, $queues, $file.

wire() { ip -n "lvx-$lab-director" "$@"; }
wires_up() { # KIND of card: as many queues as QEMU opens, or the tap refuses
  local side device several=(multi_queue)
  [[ $1 == virtio ]] || several=()
  "$scripts_dir/lab" up "$lab" --owner $$ --file "$file"
  ip netns exec "lvx-$lab-director" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.all.disable_ipv6=1
  for side in a:cl0 b:rs0; do
    device=${side#*:} side=${side%:*}
    wire address flush dev "$device"
    wire link add "bridge-$side" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    wire link set "$device" master "bridge-$side"
    wire link set "bridge-$side" up
    ip netns exec "lvx-$lab-director" ip tuntap add "tap-$side" mode tap vnet_hdr "${several[@]}"
    wire link set "tap-$side" master "bridge-$side"
    wire link set "tap-$side" up
  done
}

# QEMU's arguments for two cards: a for the clients' side, b for the servers'.
cards() { # virtio|igb [PROPERTY]...
  local kind=$1 side number=1 properties
  shift
  properties=$(printf ',%s' "$@")
  [[ $properties != , ]] || properties=''
  for side in a b; do
    local mac=mac=52:54:00:00:0a:0$number tap="tap,id=$side,ifname=tap-$side,script=no,downscript=no,vhost=off"
    case $kind in
    virtio)
      printf '%s\n' -netdev "$tap,queues=$queues" \
        -device "virtio-net-pci,netdev=$side,romfile=,$mac,disable-legacy=on,mq=on,vectors=$((2 * queues + 2))$properties"
      ;;
    igb)
      printf '%s\n' -device "pcie-root-port,id=port-$side,chassis=$number,slot=$number" \
        -netdev "$tap" -device "igb,bus=port-$side,netdev=$side,romfile=,$mac$properties"
      ;;
    esac
    number=$((number + 1))
  done
}
