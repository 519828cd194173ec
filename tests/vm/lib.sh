# What the tests in virtual machines share: one line for each check, and the checks that are the
# same wherever the director is. Sourced.
# shellcheck shell=bash
# Of its user: $where (a word before each line), $lab (a lab by scripts/lab), and
#   director WORD...   tests/vm/director, where the director is.

tests_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scripts_dir=$(cd "$tests_dir/../../scripts" && pwd)
checks=0 failures=0
export PYTHONDONTWRITEBYTECODE=1

client() { ip netns exec "lvx-$lab-client" "$@"; }
server() { ip netns exec "lvx-$lab-rs$1" "${@:2}"; }

# Runs COMMAND; one line with its last words: what it found, or why it failed.
check() { # NAME COMMAND...
  local name=$1 out status=0 began=$SECONDS
  shift
  out=$("$@" 2>&1) || status=$?
  checks=$((checks + 1))
  if ((status == 0)); then
    printf 'ok      %s: %s%s  [%d s]\n' "$where" "$name" "${out:+ ($(tail -n 1 <<<"$out" | cut -c1-300))}" $((SECONDS - began))
  else
    failures=$((failures + 1))
    printf 'FAILED  %s: %s  [%d s]\n' "$where" "$name" $((SECONDS - began))
    tail -n 12 <<<"$out" | cut -c1-400 | sed 's/^/          /'
  fi
  return "$status"
}

# ------------------------------------------------------------ each method
urls=(http://10.1.0.1 'http://[fd01::1]')
family_of() { if [[ $1 == *\[* ]]; then echo IPv6; else echo IPv4; fi; }

every_server_answers() { # URL
  local n answer who=()
  for n in 1 2 3 4 5 6; do
    answer=$(client curl -sSfg -m 10 "$1/") || { echo "request $n: no answer; before it: ${who[*]:-none}"; return 1; }
    who+=("$answer")
  done
  [[ $(printf '%s\n' "${who[@]}" | sort | uniq -c | awk '{ printf "%s*%s ", $2, $1 }') == 'rs1*2 rs2*2 rs3*2 ' ]] || {
    echo "six requests over three servers: ${who[*]}"; return 1; }
}
download_is_whole() { # URL FILE [curl's options]
  local url=$1 file=$2 sum
  shift 2
  sum=$(client curl -sSfg -m 40 "$@" "$url/large" | sha256sum)
  [[ $sum == "$(sha256sum <"$file")" ]] || { echo "the download from $url is not what the server has"; return 1; }
}
upload_is_whole() { # URL FILE
  local sums
  client curl -sSfg -m 40 -T "$2" "$1/upload/file" || return 1
  sums=$(cat /run/lvx-lab/"$lab"/rs?/upload/file | sha256sum)
  rm -f /run/lvx-lab/"$lab"/rs?/upload/file
  [[ $sums == "$(sha256sum <"$2")" ]] || { echo "what the server got from $1 is not what was sent"; return 1; }
}
method_works() { # URL FILE
  every_server_answers "$1" && download_is_whole "$1" "$2" && upload_is_whole "$1" "$2"
}
check_methods() { # FILE: leaves the servers and services set up for NAT
  local method url
  for method in tunnel dr nat; do
    "$scripts_dir/lab" method "$lab" "$method"
    check "$method: services are set" director serve "$method"
    for url in "${urls[@]}"; do
      check "$method, $(family_of "$url"): every server answers, a download and an upload are whole" method_works "$url" "$1"
    done
  done
}

# ------------------------------------------------------------ fragments
start_datagram_servers() {
  local k tries
  for k in 1 2 3; do server $k setsid "$tests_dir/datagrams.py" serve 5300 </dev/null >/dev/null 2>&1 & done
  for k in 1 2 3; do
    for ((tries = 0; tries < 200; tries++)); do server $k ss -Hlun | grep -q ':5300 ' && break; sleep 0.1; done
  done
}
check_fragments() { # 4,000 bytes are three fragments, there and back
  local address
  for address in 10.1.0.1 fd01::1; do
    check "fragments: datagrams of 4000 bytes through the service, $address" client "$tests_dir/datagrams.py" ask $address 5300 4000 6
  done
  for address in 10.1.0.253 fd01::253; do
    check "fragments: the host's own answers to ping of 3000 bytes, $address" pings $address 3000
  done
}
pings() { # ADDRESS SIZE
  local out
  out=$(client ping -q -c 5 -i 0.1 -W 3 -s "$2" "$1") || { tail -n 3 <<<"$out"; return 1; }
  grep -q ' 5 received' <<<"$out" || { tail -n 3 <<<"$out"; return 1; }
}

# ------------------------------------------------------------ connections that live
# COUNT connections by both families ask again and again while COMMAND is run.
steadily() { # COUNT COMMAND...
  local count=$1 out pid status=0 tries
  shift
  out=$(mktemp)
  # Not by `client`: the process to end is then a shell, and what it runs lives on.
  ip netns exec "lvx-$lab-client" "$tests_dir/steady.py" "$count" "${urls[@]}" >"$out" 2>&1 &
  pid=$!
  for ((tries = 0; tries < 600; tries++)); do grep -q 'are open' "$out" && break; sleep 0.1; done
  grep -q 'are open' "$out" || { echo 'the connections did not open'; status=1; }
  sleep 1
  "$@" || { echo "while connections were open: $*"; status=1; }
  sleep 1
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || status=1
  tail -n 1 "$out"
  rm -f "$out"
  return $status
}

# ------------------------------------------------------------ the end
show_log() { # of the director, when something failed
  ((failures)) || return 0
  printf '\n%s: the director said:\n' "$where"
  director log 2>&1 | tail -n 40 | cut -c1-400 | sed 's/^/  /'
}
verdict() {
  printf '%s: %d checks, %d failed\n' "$where" "$checks" "$failures"
  ((failures == 0))
}
