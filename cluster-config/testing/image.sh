# shellcheck shell=bash
# The image of a node: made, and tried by itself. Read by cluster-config/test.

# Builds the image, with the program in target/release if that runs in the image.
build_image() {
  local program=$repository/target/release/firstcome begun=$SECONDS
  runs() { docker run --rm -v "$program:/firstcome:ro" debian:bookworm-slim /firstcome --version; }
  if [[ -z ${FIRSTCOME_BINARY:-} && -x $program ]] && runs; then
    mkdir "$work/binary"
    strip -o "$work/binary/firstcome" "$program" 2>/dev/null || cp "$program" "$work/binary/firstcome"
    printf 'FROM scratch\nCOPY firstcome /out/firstcome\n' >"$work/binary/Dockerfile"
    docker build -q -t firstcome-binary:test "$work/binary"
    export FIRSTCOME_BINARY=firstcome-binary:test
  fi
  FIRSTCOME_COMMIT=$(git -C "$repository" rev-parse HEAD 2>/dev/null || echo unknown)
  export FIRSTCOME_COMMIT
  compose build -q secrets
  image_is_small
  image_says_what_it_is
  image_runs_alone
  times+=("$(printf '%-10s %4s s' image "$((SECONDS - begun))")")
}

image_is_small() {
  local bytes base
  bytes=$(docker image inspect -f '{{.Size}}' "$FIRSTCOME_IMAGE")
  base=$(docker image inspect -f '{{.Size}}' debian:bookworm-slim)
  echo "the image has $((bytes / 1000000)) MB, $((base / 1000000)) MB of them from debian:bookworm-slim"
  # The bookworm-slim from Docker Hub has 75 MB; one from another source may be larger.
  ((bytes - base <= 75000000)) || fail "the image is larger than 150 MB"
}

image_says_what_it_is() {
  local version
  [[ $(docker image inspect -f '{{.Config.User}}' "$FIRSTCOME_IMAGE") == 10001:10001 ]] || fail "the image runs as root"
  version=$(labelled version)
  [[ $(docker run --rm "$FIRSTCOME_IMAGE" --version) == "firstcome $version"* ]] \
    || fail "the image is labelled $version, and has $(docker run --rm "$FIRSTCOME_IMAGE" --version)"
  [[ $(labelled revision) == "$FIRSTCOME_COMMIT" ]] || fail "the image is labelled $(labelled revision)"
}

labelled() { docker image inspect -f "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$FIRSTCOME_IMAGE"; }

# One node, with the database in the image's own volume: without rights, without any file of this repository.
# Without a network that is trusted it refuses to start.
image_runs_alone() {
  local name=$COMPOSE_PROJECT_NAME-alone
  docker run -d --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges \
    -e FIRSTCOME__AUTH__TRUSTED_PROXIES=172.16.0.0/12 "$FIRSTCOME_IMAGE" >/dev/null
  runs_alone() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$name") == healthy ]]; }
  within 30 runs_alone
  docker stop -t 30 "$name" >/dev/null
  [[ $(docker inspect -f '{{.State.ExitCode}}' "$name") == 0 ]] || fail "the node did not stop as it should"
  docker rm -v "$name" >/dev/null
}

# Builds an image with a program of the next version, whose sources next_version.py makes.
build_next() {
  if [[ -z ${FIRSTCOME_NEXT_BINARY:-} ]]; then
    cp -r "$work/copy" "$work/next"
    python3 testing/next_version.py "$work/next"
    # Reuse what is compiled already.
    mkdir "$work/next/target"
    cp -a "$repository/target/release" "$work/next/target/release"
    (cd "$work/next" && FIRSTCOME_COMMIT=next nice cargo build -q --release --bin firstcome)
    mkdir "$work/next-binary"
    cp "$work/next/target/release/firstcome" "$work/next-binary/firstcome"
    printf 'FROM scratch\nCOPY firstcome /out/firstcome\n' >"$work/next-binary/Dockerfile"
    docker build -q -t firstcome-next-binary:test "$work/next-binary"
  fi
  FIRSTCOME_BINARY=${FIRSTCOME_NEXT_BINARY:-firstcome-next-binary:test} FIRSTCOME_IMAGE=firstcome:next \
    compose build -q secrets
}
