# shellcheck shell=bash
# The overlays: MariaDB, TLS, and a group of MySQL servers. Read by cluster-config/test.

# As with MySQL, a node is replaced under load.
mariadb() {
  leave_nothing
  if ! docker image inspect mariadb:11.4 >/dev/null 2>&1 && ! timeout 60 docker pull -q mariadb:11.4 2>/dev/null; then
    echo "the image of MariaDB cannot be had: Debian's stands in for it"
    docker build -q -t firstcome-mariadb:test testing/mariadb
    export MARIADB_IMAGE=firstcome-mariadb:test
  fi
  COMPOSE_FILE=docker-compose.yml:compose.mariadb.yml
  up
  under_load mariadb 20 roll_one node-2
  leave_nothing
  COMPOSE_FILE=docker-compose.yml
}

fingerprint() {
  openssl s_client -connect "127.0.0.1:$FIRSTCOME_TLS_PORT" -servername localhost </dev/null 2>/dev/null \
    | openssl x509 -noout -fingerprint
}

# TLS at the balancer and between nodes; certificates are replaced while clients are served.
tls() {
  leave_nothing
  COMPOSE_FILE=docker-compose.yml:compose.tls.yml
  up
  local https=https://localhost:$FIRSTCOME_TLS_PORT before node
  answers_tls() { curl -fsS -m 5 -o /dev/null --cacert secrets/authority/ca.crt "$https/v1/coupons"; }
  within 5 answers_tls
  if docker logs "$(container node-1)" 2>&1 | grep -q 'links between nodes are not encrypted'; then fail "links have no TLS"; fi
  before=$(fingerprint)
  for node in balancer node-1 node-2 node-3; do rm "secrets/$node"/tls.*; done
  compose up secrets
  compose restart -t 20 balancer
  within 20 answers_tls
  (while answers_tls; do sleep 0.05; done; touch "$work/failed") &
  local clients=$!
  roll
  [[ $(fingerprint) != "$before" ]] || fail "the balancer has the former certificate"
  curl -fsS --cacert secrets/authority/ca.crt -H "Authorization: Bearer $(token)" -o "$work/answer" \
    "$https/v1/cluster"
  [[ $(grep -o '"state":"ready"' "$work/answer" | wc -l) == 3 ]] || fail "not all nodes are linked: $(cut -c-600 "$work/answer")"
  [[ ! -e $work/failed ]] || fail "a request failed while certificates were replaced"
  kill "$clients"
  COMPOSE_FILE=docker-compose.yml
}

ask() { sql "$1" "SELECT $2 FROM performance_schema.replication_group_members WHERE $3"; }

# Prints the primary of the group, as the first server that answers knows it.
primary() {
  local server
  for server in mysql-1 mysql-2 mysql-3; do
    ask "$server" "MEMBER_HOST" "MEMBER_ROLE = 'PRIMARY' AND MEMBER_STATE = 'ONLINE'" && return
  done
}

all_members() { [[ $(ask mysql-2 'COUNT(*)' "MEMBER_STATE = 'ONLINE'") == 3 ]]; }

kill_the_primary() {
  local killed
  killed=$(primary)
  echo "the primary is $killed"
  docker kill "$(container "$killed")" >/dev/null
  sleep 5
  within 60 answers 200 "$url/readyz"
  [[ $(primary) != "$killed" ]] || fail "the killed server is still the primary"
  docker start "$(container "$killed")" >/dev/null
  within 90 all_members
}

group() {
  leave_nothing
  COMPOSE_FILE=docker-compose.yml:compose.group.yml
  local begun=$SECONDS
  compose build -q database
  up
  echo "the group is up after $((SECONDS - begun)) s"
  under_load group 70 kill_the_primary
  COMPOSE_FILE=docker-compose.yml
}
