package diag

import "slices"

// Code is the name of a kind of problem, in lower case with dashes. Names are a promise to those who filter by them: one that was
// released keeps its meaning, and isn't given to anything else when the kind is gone.
type Code string

// The kinds of problems, each with its paragraph in Kinds.
const (
	FileUnreadable      Code = "file-unreadable"
	FilePassedOver      Code = "file-passed-over"
	InventoryFormat     Code = "inventory-format"
	InventoryEmpty      Code = "inventory-empty"
	InventoryStructure  Code = "inventory-structure"
	SyntaxError         Code = "syntax-error"
	YAMLAlias           Code = "yaml-alias"
	KeyTwice            Code = "key-twice"
	NameNotText         Code = "name-not-text"
	HostRange           Code = "host-range"
	HostNoAddress       Code = "host-no-address"
	HostName            Code = "host-name"
	HostPort            Code = "host-port"
	GroupInItself       Code = "group-in-itself"
	GroupKeyIgnored     Code = "group-key-ignored"
	VariablesUnused     Code = "variables-unused"
	VariableMisspelt    Code = "variable-misspelt"
	VariableOverwritten Code = "variable-overwritten"
	OlderName           Code = "older-name"
	TooLarge            Code = "too-large"
	VaultEncrypted      Code = "vault-encrypted"
	TagUnknown          Code = "tag-unknown"
	VariableUndefined   Code = "variable-undefined"
	TemplateFails       Code = "template-fails"
	SecretNotHandedOn   Code = "secret-not-handed-on"
	WrongType           Code = "wrong-type"
	NotBoolean          Code = "not-a-boolean"
	NumberOutOfRange    Code = "number-out-of-range"
	PortOutOfRange      Code = "port-out-of-range"
	TimeInvalid         Code = "time-invalid"
	WordUnknown         Code = "word-unknown"
	TextInvalid         Code = "text-invalid"
	NoCluster           Code = "no-cluster"
	ClusterUnknown      Code = "cluster-unknown"
	NodeUnknown         Code = "node-unknown"
	NodeWithoutServices Code = "node-without-services"
	ClusterNameInvalid  Code = "cluster-name-invalid"
	IdentityMissing     Code = "identity-missing"
	HostInTwoClusters   Code = "host-in-two-clusters"
	HostTwice           Code = "host-twice"
	HostLoopback        Code = "host-loopback"
	SequenceInvalid     Code = "seq-invalid"
	SequenceTwice       Code = "seq-used-twice"
	RoleInvalid         Code = "role-invalid"
	PrimaryMissing      Code = "primary-missing"
	PrimaryTwice        Code = "primary-twice"
	StandbyCluster      Code = "standby-cluster"
	UpstreamWrong       Code = "upstream-wrong"
	ScopeTwice          Code = "scope-twice"
	NameInvalid         Code = "name-invalid"
	NameTwice           Code = "name-used-twice"
	KeyUnknown          Code = "key-unknown"
	KeyMissing          Code = "key-missing"
	ServiceReplaced     Code = "service-replaced"
	PortTaken           Code = "port-taken"
	AddressInvalid      Code = "address-invalid"
	NetworkInvalid      Code = "network-invalid"
	SelectorInvalid     Code = "selector-invalid"
	NoServer            Code = "service-without-server"
	BackupNeverServes   Code = "backup-never-serves"
	CheckInvalid        Code = "check-invalid"
	CheckNeverPasses    Code = "check-never-passes"
	CheckWordIgnored    Code = "check-word-ignored"
	LagWithoutLimit     Code = "lag-without-limit"
	LagUnlikely         Code = "lag-unlikely"
	CheckTLSUnused      Code = "check-tls-unused"
	DestInvalid         Code = "dest-invalid"
	PgBouncerOff        Code = "pgbouncer-off"
	DoorInvalid         Code = "door-invalid"
	DoorTwice           Code = "door-used-twice"
	DoorBeforeHAProxy   Code = "door-before-haproxy"
	PoolsTooLarge       Code = "pools-too-large"
	PatroniOff          Code = "patroni-off"
	BalanceInvalid      Code = "balance-invalid"
	BalanceNeedsHTTP    Code = "balance-needs-http"
	ServerOption        Code = "server-option-invalid"
	ListenLine          Code = "listen-line-invalid"
	NativeUnsupported   Code = "native-unsupported"
	NativeIgnores       Code = "native-ignores"
	HoldInvalid         Code = "hold-invalid"
	HAProxyHold         Code = "haproxy-has-no-hold"
	HAProxyDisabled     Code = "haproxy-disabled"
	PlanInvalid         Code = "plan-invalid"
	PlanByHand          Code = "plan-changed-by-hand"
	ProviderUnknown     Code = "provider-unknown"
	CarriedByNobody     Code = "carried-by-nobody"
	RTORowUnknown       Code = "rto-row-unknown"
	RTORowInvalid       Code = "rto-row-invalid"
	RTOInSeconds        Code = "rto-in-seconds"
	VIPWithoutAddress   Code = "vip-without-address"
	VIPAddressInvalid   Code = "vip-address-invalid"
	VIPUsedTwice        Code = "vip-used-twice"
	VIPIsHost           Code = "vip-is-a-host"
	VIPDiffers          Code = "vip-differs"
	VIPOutsideNetwork   Code = "vip-outside-network"
	VIPTTLTooShort      Code = "vip-ttl-too-short"
	VIPInterfaceAuto    Code = "vip-interface-auto"
	VIPWithoutEtcd      Code = "vip-without-etcd"
	DNSNameInvalid      Code = "dns-name-invalid"
	DNSNameTwice        Code = "dns-name-used-twice"
	DNSTargetInvalid    Code = "dns-target-invalid"
	DNSTargetWithoutVIP Code = "dns-target-without-vip"
	PasswordDefault     Code = "password-default"
	PasswordUnreadable  Code = "password-unreadable"
	NotRenderable       Code = "not-renderable"
	MoreWarnings        Code = "more-warnings"
)

// Kind is what there is to say of a code.
type Kind struct {
	Code Code
	// Title says in a few words what is wrong.
	Title string
	// Text is a paragraph: what it means, why it matters, what to do. Its lines are as wide as a terminal may be.
	Text string
}

// Kinds gives all kinds of problems, in the order in which an inventory is read: files, values, members, services, ways of access.
func Kinds() []Kind { return slices.Clone(kinds) }

// KindOf gives a code's kind.
func KindOf(code Code) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Code == code })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// NearestCode gives the code that a misspelt one probably means; empty if there is none.
func NearestCode(misspelt string) Code {
	known := make([]string, len(kinds))
	for i, k := range kinds {
		known[i] = string(k.Code)
	}
	return Code(Nearest(misspelt, known))
}

var kinds = []Kind{
	{FileUnreadable, "A file or directory can't be read", `
The system refuses to open it, it isn't a regular file, or it isn't there. Nothing can be said of
what it holds, so nothing is made of the rest either. See to the path and to the permissions of the
user that runs pgporter.`},
	{FilePassedOver, "A file is passed over", `
Ansible passes over files of some names: of two with the same name and different endings one is
taken, and in directories only certain endings count. What stands in the file has no effect, which
its writer can't have meant. Rename it, or take it out.`},
	{InventoryFormat, "The inventory has a format that isn't read", `
YAML is read, and the JSON that ansible-inventory --list prints. An INI file isn't, and a program
isn't run: it could do anything. Have Ansible read those: pgporter check --inventory - takes what
ansible-inventory -i FILE --list --export prints.`},
	{InventoryEmpty, "There is no inventory in it", `
The file has nothing but blanks and comments, or no file of the directory is an inventory. Is it the
right path? An inventory is a mapping of groups, as in all: { children: … }.`},
	{InventoryStructure, "The groups and hosts aren't laid out as Ansible wants them", `
A group is a mapping with hosts, children and vars, and each of those is a mapping too: every host
and every child has a colon after its name, not a dash before it. Ansible fails, or loses what
stands there. The message says what was found instead.`},
	{SyntaxError, "The file is no YAML or JSON", `
The text can't be read from here on: an indentation, a quote or a bracket is wrong as a rule, often
in the line before. A tab can't indent, only UTF-8 is read, control characters are refused, and a
file holds one document. The whole file is unusable until that is mended.`},
	{YAMLAlias, "An alias or a merge key can't be followed", `
An alias (*name) stands for what has the anchor (&name), which has to come before it, and not around
it; << merges mappings alone. A text that begins with an asterisk needs quotes. Aliases that would
make a file of millions of values of a small one are refused: write out what is meant.`},
	{KeyTwice, "A key stands in a mapping twice", `
YAML's readers take the last one and forget the first without a word, so one of two values that
somebody wrote has no effect: a whole group of hosts, perhaps. Take one of the two out, or put what
stands below them together.`},
	{NameNotText, "A name isn't a text", `
The names of groups, hosts and keys are texts. A number, a date or a word such as yes or null is
read as something else unless it is quoted, and Ansible then has another name than the one that is
written, or none. Put quotes around it.`},
	{HostRange, "A range of hosts can't be written out", `
A name with brackets stands for several hosts: 10.10.10.[11:13], [01:10:2] with a step, pg-[a:c] of
letters. The end comes after the beginning, and both have as many digits where the first begins with
a zero. Ansible fails, or has one host of that odd name.`},
	{HostNoAddress, "What stands for a host is neither an address nor a name", `
Pigsty and pgporter take a host's name in the inventory for its address: it is on HAProxy's server
lines, where programs listen, and what pgporter connects to. This one is no address and can't be a
name either, as a rule a slip or a template that nobody has filled in; its server would be down for
ever. So would one of haproxy_services whose ip is such. Write the address, as in 10.10.10.11.
Source: Pigsty's haproxy and pgsql templates (inventory_hostname).`},
	{HostName, "A host is called by a name, not by its address", `
The host is called by a name. Every node has to look it up, certificates and pg_hba of Pigsty go by
addresses, and dnsmasq and pgporter's own name server have no address to answer with. ansible_host
doesn't help: Ansible alone looks at it. Call the host by its address. Source: Ansible's
documentation of ansible_host; Pigsty's templates (inventory_hostname).`},
	{HostPort, "A host is listed with a port of PostgreSQL's", `
Ansible takes what stands behind a host's name and a colon for the port of its SSH, and the address
before it for the host. For PostgreSQL's port there is pg_port. Source: Ansible's inventory plugins.`},
	{GroupInItself, "A group is inside itself", `
A group is among its own children, or among those of a child. Which variables are stronger can't be
told then, and Ansible refuses it. Take it out at one of the two places.`},
	{GroupKeyIgnored, "Something at a group has no effect", `
A group has hosts, children and vars; Ansible ignores any other key, and ansible_group_priority in
files of group_vars. Often it is a misspelt word, or a variable that should stand below vars: what
was meant isn't done.`},
	{VariablesUnused, "A file of variables belongs to nobody", `
Files of group_vars and host_vars are called like a group or a host of the inventory, with .yml,
.yaml, .json or nothing after it. This name is nobody's: as a rule it is misspelt, and all variables
in it have no effect. Rename the file, or take it away.`},
	{VariableMisspelt, "Nobody reads a variable of this name", `
Nobody reads a variable of this name, or such a key of a user or a database, and it is nearly one
that pgporter and Pigsty read, so that one is unset and its default holds. Mend the name. Variables
of your own are left alone if a template or a selector names them. Source: Ansible passes over
variables that no task uses.`},
	{VariableOverwritten, "A host's variable is set by two of its entries", `
A host that is listed in several groups has one set of own variables, and of those that two entries
set the last one that is written counts, whichever group wins otherwise. So a pg_seq or pg_weight
that stands there isn't in effect. Keep one of them. Source: Ansible's YAML inventory plugin.`},
	{OlderName, "The name is that of an older Pigsty version", `
The name is of an earlier Pigsty version (0.8 to 1.5), and no template of today's reads it. What it
says has no effect until it goes by today's name, which the message gives. Source: the notes of
Pigsty's releases 0.8 and 2.0.`},
	{TooLarge, "The inventory is too large", `
There are bounds to what is read and compared, because the writer of an inventory may be a stranger,
and one of a thousand clusters needs a sixth of them. The usual cause is a list or a text that a
program wrote without end. Take it out, or give a part of the clusters an inventory of its own.`},
	{VaultEncrypted, "A value is encrypted with Ansible Vault", `
pgporter has no vault password and asks for none. Passwords that it doesn't need may stay encrypted;
this value decides how services are carried, so it has to be written out.`},
	{TagUnknown, "A value has a YAML tag that Ansible doesn't know", `
Ansible knows !vault and !unsafe besides YAML's own tags, and fails at any other. An exclamation
mark at the beginning of a text is taken for a tag too: put quotes around the text.`},
	{VariableUndefined, "A template uses a variable that isn't defined", `
What stands in {{ }} refers to a variable that this host doesn't have. Facts and the defaults of
Ansible's roles aren't known here, except Pigsty's own. Ansible fails at it when the value is
needed. Define the variable, give the template a default(), or write the value out.`},
	{TemplateFails, "A template can't be evaluated", `
The part of Jinja that inventories use is evaluated and means what it means in Ansible; anything
else is refused by its name rather than guessed at. The message names what isn't known, or what
fails. docs/inventories.md lists what there is, and what to write instead.`},
	{SecretNotHandedOn, "A secret would become part of a plan", `
Plans are sent to nodes, shown and logged, so they hold no secrets. This value is made of a variable
that looks like one (password, secret, token, key), or a selector looks at such a variable. Write
the value out, or let it depend on something that everybody may see.`},
	{WrongType, "A value has the wrong type", `
A list, a mapping or a text is wanted here and something else stands there, as the message says.
Ansible's templates would make nonsense of it, or fail on the node. An empty list is [], a text that
looks like a number or a boolean needs quotes.`},
	{NotBoolean, "A value is neither true nor false", `
Where a condition is wanted, true, false, yes, no, on, off, 1 and 0 are understood. Ansible takes
other words for false without saying so, and JMESPath any text that isn't empty for true, so a
misspelt word turns something off, or on. Write true or false.`},
	{NumberOutOfRange, "A number is out of range", `
A whole number is wanted, in the range that the message gives. What is no number (01:30, 1e3, a
text), or is too large or too small, is refused by HAProxy or by pgporter, or cut to something else
in silence. Write it in decimal digits, without a sign.`},
	{PortOutOfRange, "A port is out of range", `
TCP's ports are 1 to 65535. Nothing can listen at, or connect to, any other number, and HAProxy
doesn't start with it. YAML reads 1:30 as 90, and 010 as 8: write ports in decimal digits.`},
	{TimeInvalid, "A time can't be read", `
A time is a whole number with a unit: us, ms, s, m, h or d, as in 500ms; without a unit it is in
milliseconds. HAProxy refuses fractions and other units, and doesn't start with them.`},
	{WordUnknown, "A value isn't one of the words that there are", `
The variable has one of a few words, which the message lists. Another one has no meaning: the
service would be carried in a way that nobody asked for. It is misspelt as a rule.`},
	{TextInvalid, "A text can't be used here", `
The text goes into files, command lines or messages as it is, so it has to have the form that the
message gives: no blanks, no line ends, and no characters that don't show or look like others. A
copied text may have a zero-width or a no-break space in it: type it anew.`},
	{NoCluster, "No host is a member of a cluster", `
A cluster is all hosts with the same pg_cluster; each has a pg_seq and a pg_role besides. Without
any there is nothing to carry. Is it the right inventory? If it is, see to the variables' names, and
that they stand at a group or host that Ansible reads.`},
	{ClusterUnknown, "The inventory has no such cluster", `
Clusters go by their pg_cluster, which needn't be the name of their group. The message names one
that is near, or all: take one of those, or another inventory.`},
	{NodeUnknown, "The inventory has no such host", `
A node goes by its name in the inventory, which in Pigsty is its address, or by the name of its
instance, as in pg-test-1. Names that are in no group, in another inventory or behind ansible_host
aren't known.`},
	{NodeWithoutServices, "The node carries nothing", `
The host is in the inventory, but it is a member of no cluster, no cluster's services are delegated
to it, and it has no haproxy_services. pgporter would run there for nothing. Is it the right node? A
member needs pg_cluster, pg_seq and pg_role.`},
	{ClusterNameInvalid, "A cluster's name can't be used", `
The name becomes a part of the names of instances, services, files, DNS records and of keys in etcd,
so it is made of letters, digits and dashes. root is refused, as it is in Pigsty.`},
	{IdentityMissing, "A member lacks a part of its identity", `
A member needs pg_cluster, pg_seq and pg_role: its name is the cluster's and the number, and
services are selected by the role. Without pg_cluster the host is a member of nothing, without one
of the others it can't be named or selected. Groups that are only watched (pg_exporters and the
like, none of whose hosts has an identity) need none. Source: Pigsty's identity parameters.`},
	{HostInTwoClusters, "A host is listed in two clusters", `
A host has one pg_cluster. Of several groups that list it and set one, Ansible takes the deepest,
and of one depth the last by its name; the other cluster lacks a member in silence, and so its
services lack a server. List the host in one cluster. Source: Ansible's precedence of group
variables.`},
	{HostTwice, "Two hosts are one machine", `
Two hosts of the inventory are one machine, by two ways to write its address or by ansible_host. As
members they would be two servers that are one. Leave one of them out, or mend its address.`},
	{HostLoopback, "A member's address is each node's own", `
127.0.0.1 or localhost is every node's own machine: other nodes look for the member at themselves.
Write the address by which they reach it. An inventory of nothing but loopback addresses, which is
one machine that plays them all, is left alone.`},
	{SequenceInvalid, "pg_seq is no whole number", `
pg_seq makes the instance's name: pg-test-1 is pg_seq 1 of pg-test. It is a whole number from 0, a
different one for each member, and isn't changed while the instance lives, since Patroni and etcd
know it by that name.`},
	{SequenceTwice, "Two members have one pg_seq", `
Both would have the same name, and Patroni takes two members of one name for one: the second doesn't
join, or takes the place of the first. Checks and the leader key would speak of either. Give one of
them another number.`},
	{RoleInvalid, "pg_role isn't a role", `
The declared role decides whom selectors pick before anybody has answered, and who is set up as
what. Pigsty knows primary, replica, offline, standby and delayed. A word of other programs (master,
slave, leader) is none of them.`},
	{PrimaryMissing, "A cluster has no primary", `
One member is declared as pg_role: primary, the leader, in a standby cluster too; the cluster's
services are read from its variables. Pigsty can't set a cluster up without one. Which member leads
at the moment doesn't matter: roles are followed.`},
	{PrimaryTwice, "A cluster has two primaries", `
Two members are declared as pg_role: primary. Both would be set up as leaders, and which one's
variables describe the services can't be told. Declare one; the other is a replica, whoever leads at
the moment.`},
	{StandbyCluster, "A standby cluster's services for writes serve nobody", `
pg_upstream of the primary makes a standby cluster: its leader replicates from there, and Patroni
answers 503 to /primary on it, so that the services named serve nobody until the cluster is
promoted. Reads go on. Writes belong to the upstream; /leader and /standby-leader are what passes on
a standby cluster's leader. Source: Patroni, api.py do_GET.`},
	{UpstreamWrong, "pg_upstream isn't another cluster's address", `
pg_upstream of a cluster's primary is the address of another cluster's. A member of the same
cluster, or a cluster's name, isn't. Source: Pigsty's patroni templates (standby_cluster: host: {{
pg_upstream }}).`},
	{ScopeTwice, "Two clusters have one scope in etcd", `
Two clusters of a pg_shard with the same pg_group (0 unless set) have one scope in etcd, so that
Patroni takes their members for one cluster's and all but one never start. Give each its pg_group.
Source: Pigsty's patroni templates (scope: {{ pg_shard }}, citus: group: {{ pg_group }}).`},
	{NameInvalid, "A name can't be used", `
The names of services, servers, databases and users become parts of others' files, where blanks and
other signs would end them or mean something. Letters, digits, dashes, dots and underscores do.`},
	{NameTwice, "A name is used twice", `
Two services of one node, or two servers of one service, have one name. They would have one file, or
one line in HAProxy, which refuses it or keeps the last, and status and metrics couldn't tell them
apart. Note that a service is called after its cluster: a-b of pg is b of pg-a. Rename one.`},
	{KeyUnknown, "An entry has a key that isn't known", `
The key has no meaning here, and what it was to say isn't done. It is misspelt as a rule, or stands
one level too deep or too high. The message has the key that was probably meant, or all that there
are.`},
	{KeyMissing, "An entry lacks what it needs", `
A service needs a name, a port and a selector, a service of haproxy_services a name, a port and
servers, a server a name, an address and a port. A key with nothing after the colon is as good as
missing: give it a value, or take the key out.`},
	{ServiceReplaced, "A service takes the place of another", `
Two entries of a cluster's lists have one name, and the later one replaces the earlier, as its file
would in Pigsty. Where that is meant for a default service, leave that out of pg_default_services;
otherwise give one of the two another name.`},
	{PortTaken, "A port is taken", `
Two things on one node listen at the same port and address: two services, or a service and
PostgreSQL, PgBouncer, Patroni or the statistics page. An ip of * takes the port at every address.
Only the first that starts gets the port, and HAProxy doesn't start at all. The message names both
places. Give one of them another port or an ip of its own.`},
	{AddressInvalid, "An address can't be used", `
To listen at, there is an IP address of the node, or * for all of them; names aren't looked up. A
server has an IP address or a host's name. A mask, a port or a zone isn't a part of it.`},
	{NetworkInvalid, "A network can't be used", `
allow lists where a service's clients may come from: networks as in 10.0.0.0/8 and 2001:db8::/32,
and single addresses. Names aren't looked up, and a network has no bits set behind its mask:
10.0.0.7/8 may be meant as 10.0.0.0/8 or as 10.0.0.7. An empty list would keep everybody out;
without the key clients may come from anywhere.`},
	{SelectorInvalid, "A selector can't be used", `
selector and backup are JMESPath expressions over the cluster's members, as Ansible's json_query
evaluates them, and give a list of members: [] is all of them. The column is that of the expression.
Put the expression in quotes, and texts in it in backquotes. docs/services.md has examples.`},
	{NoServer, "A service has no server", `
By the declared roles neither the selector nor the backup picks a member, or only backups are left.
Clients of the service wait and are then refused, until a member gets a role that is selected. See
to the selector, or declare a member that fits, or leave the service out.`},
	{BackupNeverServes, "A backup can never serve", `
The backup is the primary, and the check is one that Patroni never answers with 200 there. When the
replicas are gone the service is gone too, which a backup is to prevent. Check /read-only-sync, or
/read-only, both of which pass on the primary.`},
	{CheckInvalid, "A check isn't a path", `
A check is the path that Patroni's REST API is asked for, with a slash before it: /primary,
/replica, /read-only?lag=1MB. A method, a host or blanks aren't a part of it.`},
	{CheckNeverPasses, "A check never passes", `
No member can ever answer 200 to this check, so the service has no server. Patroni doesn't know the
path, answers it to GET alone where HAProxy asks by OPTIONS, or compares a tag with a value that it
never has: its own tags are dropped where they are off, and booleans are written in small letters. A
path that Patroni doesn't know is misspelt as a rule: the usual ones are /primary, /replica,
/read-only, /sync, /async and /health. Source: Patroni, api.py do_GET, __main__.py get_tags.`},
	{CheckWordIgnored, "Patroni passes over a word of a check", `
Patroni doesn't look at this word of the check's query, so that it restricts nothing: paths of the
leader look at neither lag nor tags, /health at no lag, of a word that stands there twice the first
counts, and words that Patroni doesn't know are passed over. Leave it out, or name a path that looks
at it. Source: Patroni, api.py do_GET; Python's parse_qs.`},
	{LagWithoutLimit, "A lag limits nothing", `
A check's lag= is to keep readers away from replicas that are far behind. Patroni reads bytes, or a
number with B, kB, MB, GB or TB in just these letters; whatever else stands there, or stands where
Patroni takes it for a part of the path, is no limit, and the check passes on a replica that is
hours behind. Write it as in /replica?lag=10MB. Source: Patroni, api.py do_GET and utils.py
parse_int.`},
	{LagUnlikely, "A lag means something else than it looks", `
Patroni can read the lag, but hardly means what its writer does: a number with a zero before it is
octal, one below 0 lets no replica pass ever, one without a unit is bytes, and a number out of all
bounds leaves the request without an answer. Write a number and a unit, as in lag=10MB. Source:
Patroni, utils.py strtol and parse_int.`},
	{CheckTLSUnused, "Words about TLS have no effect", `
The options say how checks speak TLS (ca-file, crt, verify, check-sni), but nothing says that they
do: neither check-ssl among the options nor patroni_ssl_enabled at the members. Checks go
unencrypted. Add one of the two, or take the words out.`},
	{DestInvalid, "A destination isn't known", `
dest is where a service's clients are led on the member: default, postgres, pgbouncer, or a port.
Pigsty's templates take 5432 for a word that they don't know, and so does pgporter: clients then go
past PgBouncer, which is seldom meant.`},
	{PgBouncerOff, "A service leads to a PgBouncer that is turned off", `
pgbouncer_enabled: false leaves PgBouncer out of these members, but services lead to its port, by
dest: pgbouncer or by pg_default_service_dest, which is pgbouncer unless set. Their clients find
nobody. Set pg_default_service_dest: postgres, or dest: postgres of the service. Source: Pigsty's
documentation of pgbouncer_enabled.`},
	{DoorInvalid, "A PgBouncer can't be before the service", `
pool: door puts the node's PgBouncer before a service, and the service leads its connections to
PostgreSQL. With dest: pgbouncer there would be two pools in a row, each with queues and a memory of
its own. The door's connections come from its own node, so allow has to have that address in it; who
may come to the door itself is a matter of its own settings, or of a firewall.`},
	{DoorTwice, "Two clusters can't share a door", `
A node has one PgBouncer before its services, whoever they belong to. It listens at one port, knows
a database by one name and a user by one password. Where two clusters that a node carries say
different things of that, nobody could tell which of them is meant: call one of the two otherwise,
or have other nodes carry one of the clusters.`},
	{DoorBeforeHAProxy, "HAProxy is behind a door", `
With pool: door a PgBouncer is before the service, and pgporter keeps its connections waiting while
nobody leads. HAProxy refuses them after a moment, and so the PgBouncer refuses its clients, in
every failover that wasn't planned. Carry the service with the native engine, or take pool: door
away.`},
	{PoolsTooLarge, "The pools of all nodes are more than PostgreSQL takes", `
Each node has a PgBouncer of its own, so the pools multiply: nodes by databases by services.
Together they may open more connections to the primary than max_connections has room for, and who
comes last is refused. Lower pool_connlimit of the databases, or raise max_connections and
pg_max_conn with it.`},
	{PatroniOff, "A service asks a Patroni that is turned off", `
patroni_enabled: false means that Pigsty sets up no Patroni there, and Patroni is who answers a
service's checks. Without an answer no server is ever up. Turn it on, or select other members.
Source: Pigsty's documentation of patroni_enabled.`},
	{BalanceInvalid, "A balance isn't an algorithm", `
balance is one of HAProxy's algorithms, with the arguments that its manual gives it. HAProxy doesn't
start with anything else. Usual are roundrobin, leastconn, first and source.`},
	{BalanceNeedsHTTP, "A balance needs HTTP", `
The algorithm looks at HTTP requests, and the service passes TCP on. HAProxy warns and takes
roundrobin. For the same server for the same client there is source.`},
	{ServerOption, "A server option can't be used", `
The options of services and servers are the words of HAProxy's server lines, each with its values.
HAProxy doesn't start with a word or a value that it doesn't know; its manual, section 5.2, has
them. Lines of a whole listen section don't belong here.`},
	{ListenLine, "A line of options can't be used", `
Each line of the options of haproxy_services becomes a line of a listen section of HAProxy. This one
begins with no word that such a line may begin with, or lacks or has too many words after it, and
HAProxy doesn't start with it. Its manual, section 4, has the lines.`},
	{NativeUnsupported, "The native engine can't carry this", `
HAProxy can do what is asked for here, pgporter's own engine can't, and it refuses it by name rather
than carry the service in another way. Write what the message gives instead, or let HAProxy carry
the node's services: run --engine haproxy, and check --engine haproxy for the inventory.`},
	{NativeIgnores, "The native engine goes without this", `
The line is about HAProxy's own log, which there isn't when the native engine carries the service.
Clients notice no difference. It may stay for nodes that run HAProxy.`},
	{HoldInvalid, "How long clients wait can't be read", `
hold of a service, and pgporter_hold of a cluster (hold in a pgporter.yml), say how long new clients
wait while no server takes them: a time with its unit, as in 5s or 500ms, an hour at most; 0, which
refuses them at once; or failover, for as long as a failover can take. A bare number could be
seconds or milliseconds, so it isn't taken.`},
	{HAProxyHold, "HAProxy keeps no client waiting for a failover", `
HAProxy closes a client at once that finds no server; its timeout queue is for servers that are up
and full. So hold and pgporter_hold mean nothing on nodes whose services HAProxy carries, and files
and plans for them are made without. It may stay in the inventory for nodes that run the native
engine.`},
	{HAProxyDisabled, "The node has no HAProxy", `
haproxy_enabled is false there, so Pigsty sets none up, and --engine haproxy has nothing to run.
Turn it on, or run the native engine on this node.`},
	{PlanInvalid, "A node's plan can't be used", `
A plan is what pgporter plan writes for one node, and run --plan takes it whole or not at all: this
one is damaged or cut off, of another format, for another node or engine, or says what no inventory
could. Write it anew with pgporter plan where the inventory is, and take it to the node.`},
	{PlanByHand, "A plan was changed by hand", `
The sha256 of a plan shows that it is whole and as it was written. Where that line was taken out, as
it has to be to change a plan by hand, nothing does: the node runs from it all the same. Change the
inventory and write the plan anew, so that the next one has the change too.`},
	{ProviderUnknown, "The group that is to carry the services isn't there", `
pg_service_provider names the group whose hosts carry the services instead of the members. There is
none of this name, so the members carry them, as in Pigsty, on ports that the writer wanted
elsewhere. Correct the name, or leave it empty.`},
	{CarriedByNobody, "Nobody carries a cluster's services", `
They are delegated to a group by pg_service_provider, but the group has no hosts, or the cluster has
no primary as which they are seen. No node opens their ports. Add hosts or a primary, or leave
pg_service_provider empty for services at the members.`},
	{RTORowUnknown, "pg_rto names a row that isn't there", `
pg_rto says by the name of a row of pg_rto_plan how fast a failover is to be: fast, norm, safe,
wide, or rows of your own. With a name that isn't there norm is taken, as in Pigsty: checks and the
leader key's time are then others than were wanted.`},
	{RTORowInvalid, "A row of pg_rto_plan can't be used", `
pg_rto_plan is a mapping of names to rows, and a row a list of ttl, loop, retry, start, margin,
inter, fastinter, downinter, rise and fall. Patroni and the checks have their times from it. Copy a
row of Pigsty's and change that.`},
	{RTOInSeconds, "pg_rto is a number of seconds", `
Up to Pigsty 3 pg_rto was the ttl of Patroni's leader key in seconds; today it names a row of
pg_rto_plan, and a number is none. Checks go by norm, and pgporter reckons with the number as the
ttl, norm's 30 s at most, since a cluster that was made by the older version still has it and a
virtual address must not outlive the key. Name the row that is meant, and see that Patroni has its
ttl (patronictl show-config). Source: Pigsty's patroni templates of 2.7 and 3.x (ttl: {{ pg_rto }}).`},
	{VIPWithoutAddress, "A virtual address is turned on and not given", `
pg_vip_enabled is true, and pg_vip_address isn't set for this host. There is no address that would
do for every cluster. Set pg_vip_address to an address with the length of its network, as in
10.10.10.2/24.`},
	{VIPAddressInvalid, "A virtual address can't be used", `
pg_vip_address is an address that a network interface can have, with the length of its network:
10.10.10.2/24. It is none of loopback's, of multicast's or of a single link, and neither stands for
the network nor for all in it, as the first address and the broadcast do. Take a free address of the
members' network. vip-manager doesn't start with what is no address.`},
	{VIPUsedTwice, "A virtual address is given twice", `
Another cluster has the address too, or keepalived's on nodes (vip_address). Two machines would take
it, and whoever announced it last would get the clients of both: reads and writes go to the wrong
cluster. Give each an address of its own. The message names the other place; a default that both
inherit is a usual cause.`},
	{VIPIsHost, "A virtual address is a host's", `
The address, a cluster's or keepalived's on nodes (vip_address), belongs to a host of the inventory.
When another takes it the host can't be reached any more, by ssh neither. Choose an address of the
network that nobody has.`},
	{VIPDiffers, "Members of one cluster have different virtual addresses", `
Members of one cluster have different virtual addresses, so the address that clients use changes
with the leader. Set pg_vip_address for the whole cluster.`},
	{VIPOutsideNetwork, "A virtual address is outside of the members' network", `
A virtual address is found by ARP in its own network, where a member that is in another one isn't
heard. It works only if pg_vip_interface names an interface that has an address there. Take an
address of the members' network.`},
	{VIPTTLTooShort, "The leader key lives too short for a virtual address", `
The address follows the leader key and is kept by its ttl, renewed every few seconds. Below 10 s a
short delay would lose it while the leader is well. Take a row of pg_rto_plan with a longer ttl.`},
	{VIPInterfaceAuto, "The interface of a virtual address is found on the node only", `
pg_vip_interface is auto: which interface has the network can be told on the node alone, so no
vip-manager.yml is rendered for it. Name the interface, as in eth0, if you need the file. pgporter
run --vip finds it by itself.`},
	{VIPWithoutEtcd, "A virtual address has no leader key to follow", `
Who has the address is decided by the leader key in etcd, and the inventory has no group etcd with
hosts, so no vip-manager.yml is rendered. Add the group.`},
	{DNSNameInvalid, "A name doesn't fit into the DNS", `
A label, the part between two dots, has 1 to 63 bytes, a whole name 253 (RFC 1035). A longer one
can't be asked for. Shorten the cluster's or the service's name, or pg_dns_suffix.`},
	{DNSNameTwice, "Two clusters have one DNS name", `
The record can lead to one of them alone, so the first keeps it, and who asks for the other comes to
the wrong cluster. It happens when an instance of one is called like another cluster (pg-1 of pg).
Rename one, or set pg_dns_suffix.`},
	{DNSTargetInvalid, "pg_dns_target can't be used", `
The cluster's name leads to what pg_dns_target says: auto (the virtual address if there is one,
otherwise the primary), primary, vip, none, or an address.`},
	{DNSTargetWithoutVIP, "The cluster's name is to lead to a virtual address that it hasn't", `
pg_dns_target is vip and pg_vip_enabled isn't true, so there is nothing that the name could stand
for, and it isn't made. Turn the virtual address on, or take auto.`},
	{PasswordDefault, "A password is Pigsty's default", `
haproxy_admin_password is the one that stands in Pigsty's documents. Whoever reaches the port can
take servers out of service with it. Set one of your own.`},
	{PasswordUnreadable, "A password can't be read", `
The password of this user is encrypted, or a template that can't be evaluated, so url and doctor go
without it. Give it with --user, PGPASSWORD or ~/.pgpass, or write it out.`},
	{NotRenderable, "A file can't be written", `
What the inventory says can't be put into the file of another program: a host's name can't be a
directory, two things would have the same file, or the text would mean something else there. The
message says which. Nothing is left out in silence: the rest isn't written either, unless
--keep-going.`},
	{MoreWarnings, "There are more warnings than are shown", `
Nobody mends a thousand in one pass, and they have few causes as a rule. Mend the first ones and
look again; check -o json lists all.`},
}
