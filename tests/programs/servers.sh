# A server and its clients, in one tree, in the middle of their work: servers.sh SERVER WORK_DIRECTORY PORT
#
# Each server has four functions: it starts in the background, says when it serves, has a client that works until it is
# told to go on and a little longer, and checks in the end what the clients were told.
server=$1 work=$2 port=$3
cd "$work" || exit 2
scripts=$(dirname "${BASH_SOURCE[0]}")
clients=3
wrong=

waits() { until "$@"; do sleep 0.02; done; }
# whoever was told of a mistake, said so
complain() { wrong+="$1"$'\n'; }
# the sum of what the clients say they have done
total() { cat done-* | awk '{ sum += $1 } END { print sum + 0 }'; }
# lines of the first argument, at a pace, and more of them in the end; how many there were is written down
lines() {
  local client=$1 line=$2 sent=0 more=40
  while ((more > 0)); do
    if [[ -e go ]]; then ((more--)); else sleep 0.02; fi
    for ((i = 0; i < 50; i++)); do printf '%s\r\n' "$line"; done
    ((sent += 50))
    ((sent < 500)) || : >"works-$client"
  done
  echo "$sent" >"done-$client"
}

start_redis() { exec redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly yes --dir "$work"; }
serves_redis() { [[ $(redis-cli -p "$port" ping 2>&1) == PONG ]]; }
client_redis() { lines "$1" 'INCR sum' | redis-cli -p "$port" --pipe; }
check_redis() {
  local sum
  sum=$(redis-cli -p "$port" get sum)
  [[ $sum == "$(total)" ]] || complain "the sum is $sum, the clients have sent $(total)"
  local said
  said=$(sed -nE 's/^errors: 0, replies: ([0-9]+)$/\1/p' client-* | awk '{ sum += $1 } END { print sum }')
  [[ $said == "$sum" ]] || complain "the clients have heard $said answers without error"
}

start_memcached() { exec memcached -u root -l 127.0.0.1 -p "$port" -t 3; }
serves_memcached() { (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
client_memcached() { exec python3 "$scripts/memcached_client.py" "$1" "$port"; }
check_memcached() { [[ $(cat done-* | sort -u) == right ]] || complain "$(cat done-*)"; }

start_nginx() {
  mkdir pages
  head -c 20000 /dev/zero | tr '\0' x >pages/page
  chmod -R a+rX .
  cat >nginx.conf <<EOF
daemon off;
worker_processes 2;
user root;
pid $work/pid;
error_log $work/error.log;
events { worker_connections 64; }
http {
  access_log $work/access.log;
  client_body_temp_path $work/body;
  proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi;
  scgi_temp_path $work/scgi;
  keepalive_requests 1000000000;
  server { listen 127.0.0.1:$port; root $work/pages; }
}
EOF
  exec nginx -c "$work/nginx.conf" -e "$work/error.log"
}
serves_nginx() { (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
client_nginx() {
  wrk --connections 4 --threads 1 --duration 1h --timeout 10m "http://127.0.0.1:$port/page" &
  local wrk=$! requests
  # What each client has got is known in the end only; of all, from the log.
  waits test -s access.log
  : >"works-$1"
  waits test -e go
  requests=$(wc -l <access.log)
  until (($(wc -l <access.log) > requests + 500)); do sleep 0.02; done
  kill -INT "$wrk"
  wait "$wrk"
}
check_nginx() {
  local requests bytes
  ! grep -E 'Socket errors|Non-2xx' client-* || complain "$(grep -hE 'Socket errors|Non-2xx' client-*)"
  requests=$(sed -nE 's/^ *([0-9]+) requests in .*/\1/p' client-* | awk '{ sum += $1 } END { print sum }')
  bytes=$(grep -c ' 200 20000 ' access.log)
  ((requests > 500 && bytes >= requests)) || complain "the clients have got $requests pages, $bytes were sent whole"
  ((bytes == $(wc -l <access.log))) || complain "$(grep -v ' 200 20000 ' access.log | head -3)"
}

postgres() { setpriv --reuid postgres --regid postgres --clear-groups env LC_ALL=C.UTF-8 "$@"; }
start_postgres() {
  local bin
  bin=$(echo /usr/lib/postgresql/*/bin)
  mkdir data
  chown postgres data .
  postgres "$bin/initdb" --no-sync --auth trust --encoding UTF8 data >initdb.log 2>&1 || cat initdb.log
  exec setpriv --reuid postgres --regid postgres --clear-groups env LC_ALL=C.UTF-8 "$bin/postgres" -D "$work/data" \
    -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$work" -c fsync=off \
    -c shared_buffers=16MB -c max_connections=20 -c autovacuum=off
}
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -U postgres -p "$port" postgres "$@"; }
serves_postgres() {
  sql -h 127.0.0.1 >tables.log 2>&1 <<<'create table sums (client int primary key, n bigint); create table parts (client int, n int);'
}
# By TCP and by a Unix socket, one transaction after the other; each is open for a while.
client_postgres() {
  local client=$1 n=0 more=20 host=$work
  ((client % 2)) && host=127.0.0.1
  coproc psql (sql -h "$host" 2>&1)
  local said
  ask() {
    echo "$1; \\echo ." >&"${psql[1]}"
    said=
    while read -r line <&"${psql[0]}" && [[ $line != . ]]; do said+=$line; done
    [[ $said == "$2" ]] || { echo "client $client: $1: $said, not $2" && exit 1; }
  }
  ask "insert into sums values ($client, 0)" ''
  while ((more > 0)); do
    ask begin ''
    ask "update sums set n = n + 1 where client = $client" ''
    if [[ -e go ]]; then ((more--)); else sleep 0.01; fi
    ask "insert into parts select $client, n from sums where client = $client" ''
    ask "select n from sums where client = $client" "$((n + 1))"
    ask commit ''
    ((++n < 10)) || : >"works-$client"
  done
  echo "$n" >"done-$client"
}
check_postgres() {
  local sums
  sums=$(sql -h "$work" <<<'select sum(n) from sums; select count(*) from parts; select count(distinct (client, n)) from parts')
  [[ $sums == "$(printf '%d\n%d\n%d' "$(total)" "$(total)" "$(total)")" ]] ||
    complain "the database says $sums, the clients $(total)"
}

start_node() { exec node "$scripts/node_server.cjs" "$port"; }
serves_node() { (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
client_node() { exec node "$scripts/node_client.cjs" "$1" "$port"; }
check_node() { [[ $(cat done-* | sort -u) == right ]] || complain "$(cat done-*)"; }

start_java() { exec java -Xmx64m -cp /usr/share/java/bsh.jar bsh.Interpreter "$scripts/server.bsh" "$port"; }
serves_java() { (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
client_java() { exec java -Xmx64m -cp /usr/share/java/bsh.jar bsh.Interpreter "$scripts/client.bsh" "$1" "$port"; }
check_java() { [[ $(cat done-* | sort -u) == right ]] || complain "$(cat done-*)"; }

"start_$server" >server.log 2>&1 </dev/null &
main=$!
# One that does not start is told, not waited for.
until "serves_$server"; do
  sleep 0.05
  kill -0 "$main" 2>/dev/null || { complain "the server: $(cat server.log)" && break; }
done
pids=()
for ((i = 0; i < clients && ${#wrong} == 0; i++)); do
  "client_$server" "$i" >"client-$i" 2>&1 </dev/null &
  pids+=($!)
done
for i in "${!pids[@]}"; do
  until [[ -e works-$i ]]; do
    sleep 0.05
    kill -0 "${pids[i]}" 2>/dev/null || { complain "client $i: $(cat "client-$i")" && break; }
  done
done
: >ready
waits test -e go
for i in "${!pids[@]}"; do
  wait "${pids[i]}" || complain "client $i ended with $?: $(tail -5 "client-$i")"
done
[[ -n $wrong ]] || "check_$server"
kill -TERM "$main"
wait "$main"
printf '%s' "${wrong:-ok
}" >result.new
mv result.new result
[[ -z $wrong ]]
