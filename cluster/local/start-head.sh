#!/bin/sh
# Start a Ray head on this machine's loopback, closed to everyone who lacks its token. It stays in the foreground;
# Ctrl-C (or SIGTERM) ends it and all it started. Further arguments go to `ray start`, e.g. --num-cpus=4.
# PHASEB_HEAD_STATE=FOLDER keeps what the head knows on disk: a head that died and is started again finds its nodes.
set -eu

token_file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
port=${PHASEB_RAY_PORT:-6379}
dashboard_port=${PHASEB_DASHBOARD_PORT:-8265}

umask 077 # the token and the session's files are only ours to read
mkdir -p "$(dirname "$token_file")"
[ -s "$token_file" ] || python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token_file"

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token_file" RAY_USAGE_STATS_ENABLED=0
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="${RAY_TRAIN_HEALTH_CHECK_INTERVAL_S:-0.1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ -n "${PHASEB_HEAD_STATE:-}" ]; then
	mkdir -p "$PHASEB_HEAD_STATE"
	export RAY_gcs_storage=rocksdb RAY_gcs_storage_path="$PHASEB_HEAD_STATE"
fi
unset RAY_ADDRESS # an address of another cluster must not leak into this one's jobs

echo "job server: http://127.0.0.1:$dashboard_port    token: $token_file" >&2
exec ray start --head --block --disable-usage-stats \
	--node-ip-address=127.0.0.1 --port="$port" --dashboard-agent-listen-port="${PHASEB_AGENT_PORT:-0}" \
	--ray-client-server-port="${PHASEB_CLIENT_PORT:-10001}" \
	--dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" "$@"
