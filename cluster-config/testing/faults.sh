# shellcheck shell=bash
# What happens to the cluster under load. Read by cluster-config/test.

roll_one() { compose up -d --no-deps --wait --force-recreate "$1"; }

roll() {
  local node
  for node in node-1 node-2 node-3; do roll_one "$node"; done
}

in_the_middle_of_k6() {
  local pid=
  if command -v k6 >/dev/null; then
    HOST=$url ADMIN_TOKEN=$(token) SHAPE=sale SCALE=0.7 \
      k6 run --quiet --no-usage-report ../bench/k6/issue.js >"$work/k6.log" 2>&1 &
    pid=$!
  else
    echo "no k6: firstcome-bench sends all requests"
    [[ -z ${FIRSTCOME_REQUIRE_DOCKER:-} ]] || fail "k6 is missing"
  fi
  "$@"
  if [[ -n $pid ]] && ! wait "$pid"; then
    cat "$work/k6.log"
    fail "k6"
  fi
}

kill_one() {
  docker kill "$(container node-2)" >/dev/null
  sleep 8
  docker start "$(container node-2)" >/dev/null
  within 30 healthy node-2
}

cut_off() {
  local id
  id=$(container node-3)
  docker network disconnect "$network" "$id"
  sleep 10
  docker network connect --alias node-3 "$network" "$id"
  within 30 healthy node-3
}

pause_one() {
  docker pause "$(container node-1)" >/dev/null
  sleep 10
  docker unpause "$(container node-1)" >/dev/null
  within 30 healthy node-1
}

# Meanwhile all nodes are alive, and none is ready.
restart_mysql() {
  local node
  compose stop database
  for node in node-1 node-2 node-3; do within 10 waits "$node" 'no_store|no_lease'; done
  compose start database
  within 30 answers 200 "$url/readyz"
}

balancer_down_and_up() {
  compose stop -t 20 balancer
  compose start balancer
  within 30 answers 200 "$url/readyz"
}

grow_and_shrink() {
  COMPOSE_FILE=docker-compose.yml:compose.five-nodes.yml
  up
  prometheus_sees_all 8
  compose stop node-4 node-5
  COMPOSE_FILE=docker-compose.yml
}

schema() { sql database 'SELECT MAX(version) FROM firstcome.firstcome_migrations'; }

# The next version is rolled out, and then the present one again, which works with a schema that is one
# version newer.
upgrade_and_back() {
  local before
  before=$(schema)
  FIRSTCOME_IMAGE=firstcome:next roll
  [[ $(docker exec "$(container node-1)" firstcome --version) == *'(next)' ]] || fail "node-1 does not run the next version"
  roll
  echo "schema $before, then $(schema)"
  (($(schema) == before + 1)) || fail "the next version did not migrate"
}

# Copies the files of a stopped database: copy_data <from> <to>, both volumes of the project.
copy_data() {
  compose stop database
  docker run --rm -v "${COMPOSE_PROJECT_NAME}_$1:/from:ro" -v "${COMPOSE_PROJECT_NAME}_$2:/to" \
    debian:bookworm-slim sh -c 'find /to -mindepth 1 -delete && cp -a /from/. /to'
  compose start database
  within 60 answers 200 "$url/readyz"
}

take() { curl -fsS -X POST -H "X-User-Id: $1" "$url/v1/coupons/$2/issuances"; }

# How many nodes have noticed that the database went back in time.
noticed() {
  local node
  for node in node-1 node-2 node-3; do curl -fsS "http://$(address "$node"):8080/metrics"; done \
    | grep -cE '^coupon_database_went_backwards_total [1-9]' || true
}

beats_of_all() { sql database "SELECT SUM(beat) FROM firstcome.nodes WHERE state = 'ready'"; }

# The database is restored under nodes that run: all of them notice, forget what they knew, and go on from
# what is stored.
restored() {
  up
  local coupon beats
  coupon=$(curl -fsS -H "Authorization: Bearer $(token)" -H 'Content-Type: application/json' \
    -d '{"title": "Restored", "total_quantity": 2}' "$url/v1/coupons" | sed 's/.*"id":\([0-9]*\).*/\1/')
  take alice "$coupon" >/dev/null
  # With the label of the project, so that it is noticed if it is left behind.
  docker volume create --label "${label#label=}" "${COMPOSE_PROJECT_NAME}_kept" >/dev/null
  copy_data database kept
  (($(noticed) == 0)) || fail "a restart is taken for a restore"
  take bob "$coupon" | grep -q '"sequence":2,' || fail "bob is not the second"
  # Without a beat in between, nothing would be lost that could be noticed.
  beaten() { (($(beats_of_all) > beats + 30)); }
  beats=$(beats_of_all)
  within 20 beaten
  copy_data kept database
  all_noticed() { (($(noticed) == 3)); }
  within 20 all_noticed
  take carol "$coupon" | grep -q '"sequence":2,' || fail "carol does not follow what is stored"
  if curl -fsS -H "Authorization: Bearer $(token)" "$url/v1/coupons/$coupon/issuances" | grep -q '"bob"'; then
    fail "what the database lost is still shown"
  fi
  docker volume rm "${COMPOSE_PROJECT_NAME}_kept" >/dev/null
  echo "all nodes noticed that the database was restored"
}
