# Namespaces, links and real servers of one lab, named by $lab. Sourced by scripts/lab.
# shellcheck shell=bash disable=SC2154 # scripts/lab sets scripts_dir
# Addresses are those of the conformance scenarios in tests/oracle, so that one picture serves both.

lab_root=/run/lvx-lab
lab_vip4=10.1.0.1 lab_vip6=fd01::1
lab_servers=(1 2 3)
lab_mixed=(nat dr tunnel) # what each is set up for by `lab method NAME mixed`

lab_dir() { echo "$lab_root/$lab"; }
lab_ns() { echo "lvx-$lab-$1"; }
in_ns() { ip netns exec "$(lab_ns "$1")" "${@:2}"; }
ip_in() { ip -n "$(lab_ns "$1")" "${@:2}"; }

# ------------------------------------------------------------ up
lab_up() { # ARMS QUEUES FILE OWNER
  local arms=$1 queues=$2 file=$3 owner=$4 k who
  [[ $arms =~ ^[12]$ ]] || fail "--arms is 1 or 2, not '$arms'"
  [[ $queues =~ ^[1-9][0-9]?$ ]] || fail "--queues is 1 to 99, not '$queues'"
  [[ -z $file || -r $file ]] || fail "--file $file: cannot read it"
  lab_bpf
  mkdir -p "$(lab_dir)"
  echo "$owner" >"$(lab_dir)/owner"
  for who in client director lan "${lab_servers[@]/#/rs}"; do make_namespace "$who"; done
  ip_in lan link add br0 type bridge stp_state 0 forward_delay 0
  ip_in lan link set br0 up

  plug client lan0 1
  for k in "${lab_servers[@]}"; do plug "rs$k" eth0 1; done
  if ((arms == 2)); then
    plug director rs0 "$queues"
    link_pair client c0 director cl0 "$queues"
  else
    plug director cl0 "$queues"
  fi
  client_addresses "$arms"
  director_addresses "$arms"
  for k in "${lab_servers[@]}"; do server_addresses "$k"; start_nginx "$k" "$file"; done
}

# `ip netns exec` hides /sys/fs/bpf, and what a director mounts there itself ends with it.
lab_bpf() {
  mkdir -p /run/lvx/bpf "$lab_root"
  (
    flock 9
    mountpoint -q /run/lvx/bpf || mount -t bpf bpf /run/lvx/bpf
  ) 9>/run/lvx/bpf.lock
}

make_namespace() {
  ip netns add "$(lab_ns "$1")"
  # No waiting for duplicate address detection, nothing that a tests's clock could trip over.
  in_ns "$1" sysctl -qw net.ipv6.conf.{all,default}.accept_dad=0 net.ipv4.conf.{all,default}.rp_filter=0 \
    net.ipv6.conf.{all,default}.router_solicitations=0 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 \
    net.ipv4.conf.{all,default}.send_redirects=0
  ip_in "$1" link set lo up
}

# Offloads stay as veth has them (transmit checksums on): the director must cope with that.
link_pair() { # WHO NAME OTHER NAME QUEUES
  ip_in "$1" link add "$2" numtxqueues "$5" numrxqueues "$5" type veth \
    peer name "$4" netns "$(lab_ns "$3")" numtxqueues "$5" numrxqueues "$5"
  ip_in "$1" link set "$2" up
  ip_in "$3" link set "$4" up
}
plug() { # WHO NAME QUEUES: a link from WHO into the switch
  link_pair "$1" "$2" lan "to-$1" "$3"
  ip_in lan link set "to-$1" master br0
}

client_addresses() { # ARMS
  local near=c0
  (($1 == 1)) && near=lan0
  in_ns client sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip_in client address add 10.9.0.1/32 dev lo
  ip_in client -6 address add fd09::1/128 dev lo nodad
  ip_in client address add 10.2.0.254/24 dev lan0
  ip_in client -6 address add fd02::254/64 dev lan0 nodad
  if (($1 == 2)); then
    ip_in client address add 10.1.0.254/24 dev c0
    ip_in client -6 address add fd01::254/64 dev c0 nodad
  fi
  # From an address of its own, so that servers must route their replies.
  ip_in client route add "$lab_vip4/32" dev "$near" src 10.9.0.1
  ip_in client -6 route add "$lab_vip6/128" dev "$near" src fd09::1
}

director_addresses() { # ARMS
  local servers_on=rs0 gateway4=10.1.0.254 gateway6=fd01::254
  (($1 == 1)) && servers_on=cl0 gateway4=10.2.0.254 gateway6=fd02::254
  in_ns director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip_in director address add 10.2.0.1/24 dev "$servers_on"
  ip_in director -6 address add fd02::1/64 dev "$servers_on" nodad
  if (($1 == 2)); then
    ip_in director address add 10.1.0.253/24 dev cl0
    ip_in director -6 address add fd01::253/64 dev cl0 nodad
  fi
  ip_in director address add "$lab_vip4/32" dev cl0
  ip_in director -6 address add "$lab_vip6/128" dev cl0 nodad
  ip_in director route add 10.9.0.0/16 via "$gateway4"
  ip_in director -6 route add fd09::/64 via "$gateway6"
}

server_addresses() { # K
  ip_in "rs$1" address add "10.2.0.1$1/24" dev eth0
  ip_in "rs$1" -6 address add "fd02::1$1/64" dev eth0 nodad
  ip_in "rs$1" route add default via 10.2.0.254
  ip_in "rs$1" -6 route add default via fd02::254
}

start_nginx() { # K FILE
  local dir
  dir=$(lab_dir)/rs$1
  mkdir -p "$dir/upload" "$dir/temp"
  cat >"$dir/nginx.conf" <<CONF
user root;
worker_processes 1;
worker_rlimit_nofile 8192;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 4096; }
http {
  log_format short '\$status \$request_method \$uri';
  access_log $dir/access.log short;
  sendfile on;
  keepalive_requests 10000000;
  keepalive_timeout 120s;
  client_max_body_size 0;
  client_body_temp_path $dir/temp;
  proxy_temp_path $dir/temp; fastcgi_temp_path $dir/temp; uwsgi_temp_path $dir/temp; scgi_temp_path $dir/temp;
  server {
    listen 80 backlog=4096;
    listen [::]:80 ipv6only=on backlog=4096;
    listen 8080;
    listen [::]:8080 ipv6only=on;
    location / { default_type text/plain; return 200 "rs$1\n"; }
    location = /large { default_type application/octet-stream; alias ${2:-/dev/null}; }
    location /upload/ { alias $dir/upload/; dav_methods PUT; }
  }
}
CONF
  in_ns "rs$1" nginx -q -p "$dir" -e "$dir/error.log" -c "$dir/nginx.conf" </dev/null || fail "nginx did not start on rs$1: $(tail -n 3 "$dir/error.log")"
}

# ------------------------------------------------------------ methods
lab_method() { # nat|dr|tunnel|mixed|none, for both families
  local k vip director method
  for k in "${lab_servers[@]}"; do
    for vip in "$lab_vip4" "$lab_vip6"; do
      director=10.2.0.1
      [[ $vip == *:* ]] && director=fd02::1
      method=$1
      [[ $method != mixed ]] || method=${lab_mixed[k - 1]}
      (
        export LVX_REAL_SERVER_STATE
        LVX_REAL_SERVER_STATE=$(lab_dir)/real-server
        if [[ $method == none ]]; then
          in_ns "rs$k" "$scripts_dir/real-server" dr "$vip" off
        else
          in_ns "rs$k" "$scripts_dir/real-server" "$method" "$vip" eth0 --director "$director" on
        fi
      ) >>"$(lab_dir)/real-server.log" 2>&1 || fail "real-server $method $vip failed on rs$k: $(tail -n 1 "$(lab_dir)/real-server.log")"
    done
  done
}

lab_requests() { # one line each: name, answered, not answered with success
  local k log
  for k in "${lab_servers[@]}"; do
    log=$(lab_dir)/rs$k/access.log
    awk -v name="rs$k" '/^2/ { ok++ } !/^2/ { bad++ } END { print name, ok + 0, bad + 0 }' "$log"
  done
}

# ------------------------------------------------------------ down
lab_pids() {
  local who
  for who in client director lan "${lab_servers[@]/#/rs}"; do
    [[ -e /run/netns/$(lab_ns "$who") ]] && ip netns pids "$(lab_ns "$who")" 2>/dev/null
  done
  return 0
}
lab_down() {
  local who pids tries
  pids=$(lab_pids)
  # shellcheck disable=SC2086 # a list of process ids
  [[ -z $pids ]] || kill $pids 2>/dev/null || true
  for ((tries = 0; tries < 60; tries++)); do
    pids=$(lab_pids)
    [[ -n $pids ]] || break
    sleep 0.05
  done
  # shellcheck disable=SC2086
  [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
  for who in client director lan "${lab_servers[@]/#/rs}"; do
    [[ ! -e /run/netns/$(lab_ns "$who") ]] || ip netns del "$(lab_ns "$who")" 2>/dev/null || true
  done
  # What killed directors left for those that never came.
  rm -rf /run/lvx/bpf/lvx/*-lvx-lab-"$lab"-* /dev/shm/lvx-run-lvx-lab-"$lab"-*
  rm -rf "$(lab_dir)"
  rmdir "$lab_root" 2>/dev/null || true
}
lab_sweep() { # what a killed owner left behind
  local owner_file owner
  for owner_file in "$lab_root"/*/owner; do
    [[ -e $owner_file ]] || continue
    owner=$(cat "$owner_file" 2>/dev/null) || continue
    [[ $owner == 0 || -e /proc/$owner ]] && continue
    (lab=$(basename "$(dirname "$owner_file")"); lab_down)
  done
}
