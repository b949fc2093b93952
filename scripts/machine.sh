# machine.sh is sourced by the tests that need a machine: Debian with systemd as process 1, in namespaces of its own, beside a real Patroni
# cluster and under pgbench. The caller sets release, work, and debs: a folder with packages, which is
# /run/debs inside. The newer of them have the version $after.
#
# The releases are those of scripts/on-release, which installs them once. What a machine changes is in a layer over that and goes with it;
# it has a loopback interface and no other network. Needs root, on a Debian.
# shellcheck shell=bash
set -Eeuo pipefail
trap 'fail "line $LINENO (called from ${BASH_LINENO[*]}): $BASH_COMMAND"' ERR
PATH=$PATH:/usr/sbin:/sbin

self=${0##*/}
before=0.0~test1 after=0.0~test2
say() { printf '%s\n' "$*"; }
fail() {
	trap - ERR
	printf '%s: %s%s\n' "$self" "${release:+$release: }" "$*" >&2
	if [ -n "${init:-}" ]; then
		printf '\nwhat pgporter said last:\n' >&2
		journal 15 >&2 || true
		printf '\nand HAProxy:\n' >&2
		inside journalctl --unit haproxy --output cat --no-pager --lines 10 >&2 || true
	fi
	exit 1
}
[ "$(id -u)" -eq 0 ] || fail 'a machine of its own takes root: run it with sudo'

# --- before it runs ---

# tree_of RELEASE is where a release is installed.
tree_of() { printf '%s\n' "${ON_RELEASE_DIR:-.cache/release}/$1"; }

# installs RELEASE FILE PACKAGE...: packages of a release, unless it has the file that shows that they are there.
installs() {
	local release=$1 file=$2
	shift 2
	[ -e "$(tree_of "$release")$file" ] ||
		scripts/on-release "$release" sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends "$@"' sh "$@" >&2
}

# of_its_own ARG...: the script once more with these arguments, where $MACHINE is set: whatever is mounted or started from there on ends
# with it. It doesn't come back.
of_its_own() {
	local cgroups status
	# A group of version 2 of control groups is the machine's: systemd wants nothing else. It can be removed once the last process in it
	# is gone, which is a moment after the namespace has ended.
	cgroups=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
	[ -n "$cgroups" ] || fail 'there is no cgroup2: systemd can'\''t run without'
	MACHINE=$(mktemp -d "$cgroups/pgporter-$self.XXXXXX")
	export MACHINE
	trap - ERR
	unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" "$@" && status=0 || status=$?
	for _ in {1..100}; do
		find "$MACHINE" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.1
	done
	exit "$status"
}

# --- the machine ---

# begin: what process 1 of the machine does until it is systemd (https://systemd.io/CONTAINER_INTERFACE).
begin() {
	local root=$1 device
	ip link set lo up
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for device in null zero full random urandom tty; do
		touch "$root/dev/$device"
		mount --bind "/dev/$device" "$root/dev/$device"
	done
	mkdir "$root/dev/pts" "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	mkdir "$root/run/debs"
	mount --bind -o ro "$debs" "$root/run/debs"
	cd "$root"
	pivot_root . .
	umount -l .
	# The clock, the kernel's modules and its log are the real machine's.
	exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-mac_admin,-mac_override \
		env -i container=machine PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
}

# boot: the machine runs, and $init is its process 1.
boot() {
	(
		echo "$BASHPID" >"$MACHINE/cgroup.procs"
		exec unshare --mount --propagation private --pid --uts --ipc --net --cgroup --fork --kill-child bash -c "$(declare -f begin); debs=$debs; begin $work/root" \
			>>"$work/console" 2>&1
	) &
	keeper=$!
	eventually 'systemd of the machine is up' up
}
up() {
	kill -0 "$keeper" || fail "the machine has ended: $(tail -n 5 "$work/console")"
	init=$(cat "/proc/$keeper/task/$keeper/children")
	init=${init%% *}
	[ -n "$init" ] && [[ $(inside systemctl is-system-running) =~ ^(running|degraded)$ ]]
}

# with_machine COMMAND [ARG...]: the command while a machine of the release runs that nobody has used.
with_machine() {
	tree=$(realpath "$(tree_of "$release")")
	rm -rf "$work"
	mkdir -p "$work"/{upper,layer,root}
	tr -d - </proc/sys/kernel/random/uuid | install -D -m 444 /dev/stdin "$work/upper/etc/machine-id"
	# PostgreSQL waits for its sessions when it is asked to end, and a machine that goes down for PostgreSQL.
	install -D -m 644 /dev/stdin "$work/upper/etc/systemd/system.conf.d/test.conf" <<<$'[Manager]\nDefaultTimeoutStopSec=10s'
	mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/layer" overlay "$work/root"
	boot
	ok "systemd $(inside systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p') is process 1 of Debian $(cat "$tree/etc/debian_version")"
	"$@"
	kill -KILL "$keeper"
	{ wait "$keeper" || true; } 2>/dev/null
	umount "$work/root"
	rm -rf "$work"
}

# inside COMMAND [ARG...]
inside() { nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup --root env -i --chdir=/ HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# put FILE: what is said on the standard input is a file inside.
put() { inside tee "$1" >/dev/null; }

# eventually WHAT COMMAND [ARG...]: the command succeeds within two minutes.
eventually() {
	local what=$1 began=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS - began < 120)) || fail "not in two minutes: $what"
		sleep 0.2
	done
}

# --- what is expected ---

ok() { printf '  %-9s %4d s  %s\n' "$release" "$SECONDS" "$*"; }
is() { [ "$2" = "$3" ] || fail "$1: '$2' instead of '$3'"; }
has() { grep -Eq -- "$3" <<<"$2" || fail "$1: no '$3' in: $2"; }
refused() { if "$@" >/dev/null 2>&1; then fail "this should have failed: $*"; fi; }

listens() { inside ss -Hltun | awk '{ print $1, $5 }' | sort; }
pid() { inside systemctl show --property=MainPID --value pgporter; }
state() { inside systemctl show --property=ActiveState --value pgporter; }
journal() { inside journalctl --unit pgporter --output cat --no-pager --lines "${1:-20}"; }

# changed: files that the machine has beside those of the release, and directories that the release hasn't; logs, dpkg's and apt's own and
# what systemd keeps aside.
changed() {
	(cd "$work/upper" && find . -mindepth 1 \( -path ./var/log -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/lib/systemd -o -path ./var/cache -o -path ./tmp -o -path ./var/tmp -o -path ./run \) \
		-prune -o -print) | while read -r path; do
		[ -d "$work/upper/$path" ] && [ -d "$tree/$path" ] || printf '%s\n' "${path#.}"
	done | sort
}

# left SNAPSHOT: what the machine has that it hadn't when `changed` gave the snapshot, apart from a user, the cluster, what haproxy_up makes,
# and where Ansible works.
left() {
	comm -13 <(printf '%s\n' "$1") <(changed) |
		grep -Ev "^(/etc/((passwd|group|shadow|gshadow)-?|\.pwd\.lock|default/haproxy|haproxy/.*|systemd/system/multi-user\.target\.wants/haproxy\.service)|/var/lib/haproxy/dev/log|$lab(/.*)?|/root/\.ansible(/.*)?)$" || true
}

# --- the cluster, and the load: sessions that stay, clients that come and go, and one session with something to lose ---

# The cluster, and the node: its first member's.
lab=/var/lib/lab node=127.0.1.11
as=(--no-vacuum --host="$node" --port=5436 --username=dbuser_dba)
url="postgres://dbuser_dba:DBUser.DBA@$node:5436/test"
services='pg-test-default pg-test-offline pg-test-primary pg-test-replica'

# The password of HAProxy's page, which the cluster's inventory leaves to its default.
page_password=HAProxy.Page

# inventory [CHANGE...]: the cluster's, with what sed changes in it.
inventory() { inside sed "$@" -e "s/^  vars:$/&\n    haproxy_admin_password: $page_password/" $lab/inventory.yml; }

cluster_up() { inside pgporter-lab up --no-pgporter --detach --dir $lab >"$work/lab" 2>&1 || fail "$(tail -n 5 "$work/lab")"; }

serves() { inside psql -XAtc 'select 1' "$url"; }
pgbench() { inside env PGPASSWORD=DBUser.DBA PGSSLMODE=disable pgbench "${as[@]}" "$@" test; }

declare -A loads=()
# begin_load: it goes on until end_load ends it, however long what is done meanwhile takes.
begin_load() {
	local name
	# What the load before said isn't this one's word.
	rm -f "$work/sessions" "$work/connects"
	(trap - ERR && pgbench --client=20 --jobs=2 --builtin=simple-update --protocol=prepared --rate=300 --time=3600 --progress=1) >"$work/sessions" 2>&1 &
	loads[sessions]=$!
	(trap - ERR && pgbench --client=4 --connect --builtin=simple-update --rate=40 --time=3600 --progress=1) >"$work/connects" 2>&1 &
	loads[connects]=$!
	for name in sessions connects; do eventually "pgbench works ($name)" goes_on $name 0; done
}

# goes_on NAME N: more than N seconds have been told of.
goes_on() { [ "$(grep -c ^progress: "$work/$1")" -gt "$2" ]; }

# end_load WHAT: nothing has failed, and nothing does in the next seconds.
end_load() {
	local name said done told counted=
	for name in sessions connects; do
		told=$(grep -c ^progress: "$work/$name")
		eventually "$1: pgbench goes on ($name): $(tail -n 5 "$work/$name")" goes_on $name $((told + 2))
		kill -0 "${loads[$name]}" 2>/dev/null || fail "$1: pgbench has ended ($name): $(tail -n 5 "$work/$name")"
	done
	inside pkill -TERM -x pgbench
	for name in sessions connects; do
		wait "${loads[$name]}" 2>/dev/null || true
		said=$(<"$work/$name")
		if grep -Ei 'error|abort' <<<"$said"; then fail "$1: pgbench ($name) says so"; fi
		# Each line tells of a second.
		is "$1: failed transactions" "$(sed -n 's/^progress: .*, \([0-9]*\) failed.*/\1/p' <<<"$said" | sort -u)" 0
		done=$(sed -n 's/^progress: .* s, \([0-9]*\)[0-9.]* tps.*/\1/p' <<<"$said" | awk '{ all += $1 } END { print all }')
		# How many it is depends on what else the real machine does.
		[ "${done:-0}" -gt 20 ] || fail "$1: only ${done:-no} transactions ($name)"
		counted+=", $done $([ "$name" = sessions ] && echo 'transactions in 20 sessions' || echo 'sessions of one transaction')"
	done
	held "$1"
	ok "$1${counted}, none failed; the session that is kept has its table"
}

# A session with a temporary table: whoever answers with the next number is the same session.
let_go() {
	[ -n "${HELD_PID:-}" ] || return 0
	# Where it was cut psql says so here.
	echo '\q' >&"${HELD[1]}"
	wait "$HELD_PID" || true
}
hold() {
	let_go
	coproc HELD { inside psql -XqAt "$url?sslmode=disable" 2>&1; }
	held_number=0
	echo 'create temporary table held as select 0 as n;' >&"${HELD[1]}"
	held 'a new session'
}
held() {
	local number
	echo 'update held set n = n + 1 returning n;' >&"${HELD[1]}"
	read -rt 20 number <&"${HELD[0]}" || fail "$1: the session that is kept doesn't answer"
	is "$1: the session that is kept" "$number" $((++held_number))
}

# --- HAProxy, as a Pigsty has it ---

# haproxy_up: Debian's HAProxy serves the node, with the files that pgporter renders of the cluster's inventory.
haproxy_up() {
	local rendered=$work/rendered/$node
	mkdir -p "$work/programs"
	dpkg-deb --extract "$debs/pgporter_$after-1_$(dpkg --print-architecture).deb" "$work/programs"
	inventory >"$work/pigsty.yml"
	"$work/programs/usr/bin/pgporter" render --inventory "$work/pigsty.yml" --out "$work/rendered" --host "$node" --base --only haproxy >"$work/render" 2>&1 || fail "$(<"$work/render")"
	inside mkdir -p /etc/haproxy/conf.d /etc/systemd/system/multi-user.target.wants
	put /etc/haproxy/haproxy.cfg <"$rendered/haproxy.cfg"
	for file in $services; do put "/etc/haproxy/conf.d/$file.cfg" <"$rendered/$file.cfg"; done
	# Fewer sessions than its file says: the real machine's limit of files is this one's, too.
	put /etc/default/haproxy <<<'EXTRAOPTS="-S /run/haproxy-master.sock -f /etc/haproxy/conf.d -n 2000"'
	# As enabling does, without what Debian has for other inits.
	inside ln -sf /lib/systemd/system/haproxy.service /etc/systemd/system/multi-user.target.wants/
	inside systemctl daemon-reload
	inside systemctl restart haproxy
	eventually 'a session through HAProxy' serves
	is 'who serves' "$(server)" haproxy
	pgbench --initialize --quiet >"$work/init" 2>&1 || fail "$(<"$work/init")"
	hold
	ok 'HAProxy serves the node'
}

# server: the program that listens at the services' ports.
server() { inside ss -Hltnp 'sport >= 5433 and sport <= 5438' | grep -o '"[^"]*"' | tr -d '"' | sort -u | xargs; }

# taken: the services that the node's pgporter has taken from HAProxy.
taken() { inside pgporter status | sed -n 's/^taken from HAProxy and served here: //p' | tr -d ,; }

# agrees: HAProxy is compared, and does what pgporter would.
agrees() {
	local said
	said=$(inside pgporter status) || return
	grep -q '^shadow of HAProxy (.*), asked [1-9]' <<<"$said" && ! grep -Eq "^(now:|HAProxy hasn't)" <<<"$said"
}

# unsecretive: of all passwords in the inventory the node's pgporter has that of HAProxy's page, where it was put.
unsecretive() {
	local password where found=0
	# One of the lab's is a word like any other.
	while read -r password; do
		found=$((found + 1)) where=
		[ "$password" != "$page_password" ] || where=/etc/pgporter/haproxy.password
		is "files of pgporter's with the password $password" "$(inside grep -rlF -- "$password" /etc/pgporter /var/lib/pgporter || true)" "$where"
		refused inside grep -qF -- "$password" "/proc/$(pid)/cmdline" "/proc/$(pid)/environ"
		if journal all | grep -F -- "$password"; then fail "the log has the password $password"; fi
	done < <(inventory | sed -nE 's/.*password: ([^ ,]+).*/\1/p' | grep -vx test | sort -u)
	[ "$found" -ge 6 ] || fail "only $found passwords were found in the inventory"
	is 'who may read that of the page' "$(inside stat -c %A:%U:%G /etc/pgporter/haproxy.password)" -rw-r-----:root:pgporter
	ok "of the $found passwords in the inventory one is in its files, arguments, environment and log: that of HAProxy's page, in its own file"
}
