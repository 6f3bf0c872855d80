# shellcheck shell=bash
# Parts without load: the files, the balancer, the start, and the commands of a document. Read by
# cluster-config/test.

# What the files promise: those of Compose with each overlay, secrets, and the configuration of Kubernetes.
files() {
  local overlay before
  compose up secrets >/dev/null
  for overlay in "" :compose.five-nodes.yml :compose.mariadb.yml :compose.tls.yml :compose.group.yml; do
    printf '%-24s' "${overlay#:}"
    COMPOSE_FILE=docker-compose.yml$overlay compose config --format json | python3 testing/compose_files.py
  done
  fingerprints() { find secrets -type f -exec sha256sum {} + | sort; }
  before=$(fingerprints)
  compose up secrets >/dev/null
  [[ $(fingerprints) == "$before" ]] || fail "make-secrets wrote over a secret"
  [[ $(stat -c %a secrets) == 700 ]] || fail "others may read the secrets"
  python3 testing/kubernetes_files.py
  python3 testing/kubernetes_files.py node.toml >"$work/kubernetes.toml"
  docker run --rm --network none -v "$work/kubernetes.toml:/etc/firstcome/node.toml:ro" \
    -v "$PWD/secrets/node:/run/secrets/firstcome:ro" -e FIRSTCOME__NODE__ID=firstcome-0 \
    -e FIRSTCOME__CLUSTER__ADVERTISE=firstcome-0.firstcome-links:7400 "$FIRSTCOME_IMAGE" config check >"$work/answer"
  # The secrets stay for the parts that follow.
  compose down -v
}

# Starts a server that answers /readyz with 200. It logs any other request and closes the connection without
# an answer.
fake_node() {
  docker run -d --rm --name "$COMPOSE_PROJECT_NAME-fake-$1" --network "$network" --network-alias "$1" \
    debian:bookworm-slim perl -MIO::Socket::INET -e '
      $| = 1;
      my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die;
      while (my $client = $server->accept) {
        my $head = "";
        while (my $line = <$client>) { $head .= $line; last if $line =~ /^\r?\n$/ }
        if ($head =~ m{^GET /readyz}) { print $client "HTTP/1.0 200 OK\r\n\r\n" } else { print "request\n" }
        close $client;
      }' >/dev/null
}

# Prints how many requests the fake nodes have received.
seen() {
  local node
  for node in node-1 node-2; do docker logs "$COMPOSE_PROJECT_NAME-fake-$node"; done | grep -c request
}

# A request that a node may have executed is sent again only if it is a read.
repeats() {
  compose up -d --no-deps balancer
  fake_node node-1
  fake_node node-2
  within 20 healthy balancer
  local path=$url/v1/coupons/1/issuances changes
  [[ $(curl -s -o "$work/answer" -w '%{http_code}' -X POST -H 'Idempotency-Key: a' "$path") == 502 ]] \
    || fail "no 502 for a request that changes something"
  changes=$(seen)
  ((changes == 1)) || fail "a request that changes something was sent $changes times"
  curl -s -o "$work/answer" "$path"
  (($(seen) > changes + 1)) || fail "a read was not sent again"
  docker stop -t 1 "$COMPOSE_PROJECT_NAME-fake-node-1" "$COMPOSE_PROJECT_NAME-fake-node-2" >/dev/null
  compose down -v
}

# A node waits for its database, alive and not ready, and joins when the database comes.
late() {
  compose up -d --no-deps secrets
  within 60 test -s secrets/node/store_url
  compose up -d --no-deps node-1
  within 30 waits node-1 no_store
  compose up -d --no-deps database
  within 90 answers 200 "http://$(address node-1):8080/readyz"
  none_restarted
}

whole() {
  local begun=$SECONDS
  up
  echo "up and healthy after $((SECONDS - begun)) s"
  ((SECONDS - begun <= 120)) || fail "it took longer than two minutes"
  prometheus_sees_all 6
  none_restarted
  client_address_is_kept
  # Grafana's image is not available everywhere. So only this is checked: its files are where the image expects
# them.
  compose config --format json | python3 testing/grafana_files.py
}

query() { curl -fsS "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/$1"; }

rules_written() { cat ../grafana/prometheus/rules/*.yml | grep -cE '^ *- (record|alert):'; }

# No target is down, all rules are loaded, and alerts have a receiver.
prometheus_sees_all() {
  local wanted=$1
  all_up() { query targets?state=active | python3 -c "
import json, sys
targets = json.load(sys.stdin)['data']['activeTargets']
sys.exit(not (len(targets) == $wanted and all(target['health'] == 'up' for target in targets)))"; }
  within 60 all_up
  query rules | python3 -c "
import json, sys
groups = json.load(sys.stdin)['data']['groups']
rules = [rule for group in groups for rule in group['rules']]
broken = [rule['name'] for rule in rules if rule['health'] == 'err']
print(f'Prometheus: $wanted targets up, {len(rules)} rules')
sys.exit(f'rules that fail: {broken}' if broken else len(rules) != $(rules_written))"
  alerts_are_received() { query alertmanagers | grep -q '"activeAlertmanagers":\[{"url":"http://alertmanager:9093'; }
  within 20 alerts_are_received
}

# Nodes see the client's address as the balancer sees it, and not the address that the client claims.
client_address_is_kept() {
  local gateway
  gateway=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' "$network")
  for _ in 1 2 3 4 5 6; do
    curl -fs -o "$work/answer" -H 'X-Forwarded-For: 203.0.113.7' "$url/v1/coupons"
  done
  logged() { docker logs "$(container node-1)" 2>&1 | grep '"/v1/coupons"' | grep -q "\"client\":\"$gateway\""; }
  within 10 logged
  if docker logs "$(container node-1)" 2>&1 | grep -q 203.0.113.7; then fail "nodes trust a client's X-Forwarded-For"; fi
}

# Runs the blocks of a document that begin with ```<language> <mark>, as .ci/run does with other documents.
documented() {
  awk -v info="$2 $3" '/^```/ { inside = !inside && $0 == "```" info; next } inside' "$repository/$1" \
    >"$work/blocks.sh"
  [[ -s $work/blocks.sh ]] || fail "$1 has no blocks of $2 $3"
  cat "$work/blocks.sh"
  # Where MySQL's image is not available, the image in its place may have no mysqldump of its own: `mysql` is
  # then the program for all clients.
  compose up -d --no-deps secrets database
  compose exec -T database sh -c 'command -v mysqldump >/dev/null || ln -s mysql /usr/local/bin/mysqldump'
  (cd .. && bash -euo pipefail "$work/blocks.sh")
  nothing_is_left
}
