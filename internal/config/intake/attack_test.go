package intake

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Whoever has a control token may say which servers carry a service, and not read a node's files with HAProxy, which runs as root
// (`errorfile 503 /root-only` shows them to every client), run its scripts, or have it tell of its environment.
func TestAttackOptionsOverTheControlAddress(t *testing.T) {
	refused := func(t *testing.T, o Order, want string) {
		t.Helper()
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "can't be sent to a node") {
			t.Errorf("it is taken, or for another reason refused than %q: %v", want, err)
		}
	}
	for _, test := range []struct{ line, want string }{
		{"errorfile 503 /root-only", "line 1, column 1, can't be sent to a node: errorfile"},
		{"  errorfile 503 /root-only", "column 3"},
		{`"errorfile" 503 /root-only`, "a quote"},
		{`err\orfile 503 /root-only`, "a backslash"},
		{"errorfiles x", "errorfiles"},
		{"http-error status 503 file /root-only", "http-error"},
		{"http-error status 503 lf-file /root-only", "http-error"},
		{"http-request return file /root-only", "http-request"},
		{"http-request return status 200 content-type text/plain lf-string %[env(SECRET)]", "a %"},
		{"http-request lua.script", "http-request"},
		{"http-response return file /root-only", "http-response"},
		{"tcp-request content lua.script", "tcp-request"},
		{"acl x path -f /root-only", "acl"},
		{"use_backend %[env(SECRET)]", "a %"},
		{"use_backend other if { src -f /root-only }", "use_backend"},
		{"filter spoe engine x config /root-only", "filter"},
		{"option external-check", "option isn't known"},
		{"external-check command /bin/sh", "external-check"},
		{"external-check path /bin", "external-check"},
		{"log /dev/log local0", "log isn't known"},
		{"log 192.0.2.1:514 local0", "log isn't known"},
		{"log-format %[env(SECRET)]", "a %"},
		{"stats socket /tmp/x mode 666 level admin", "stats"},
		{"stats admin if TRUE", "stats"},
		{"load-server-state-from-file global", "load-server-state-from-file"},
		{"server-state-file-name /root-only", "server-state-file-name"},
		{"bind /tmp/x", "bind"},
		{"bind :443 ssl crt /root-only", "bind"},
		{"server x unix@/run/secret.sock", "server isn't known"},
		{"server-template x 1-3 a:1", "server-template"},
		{"default-server ssl crt /root-only", "default-server"},
		{"source 0.0.0.0 usesrc clientip", "source"},
		{"dispatch 192.0.2.1:1", "dispatch"},
		{"http-check send hdr X %[env(SECRET)]", "a %"},
		{"http-check send uri-lf /x", "uri-lf of http-check send"},
		{"http-check connect addr unix@/run/secret.sock", `"unix@/run/secret.sock" has`},
		{"http-check connect addr /run/secret.sock", `"/run/secret.sock" has`},
		{"http-check set-var(proc.x) str(1)", "http-check isn't known"},
		{"http-check expect string-lf x", "string-lf"},
		{`http-check send uri /x body "${SECRET}"`, "environment variable"},
		{"tcp-check send-lf x", "tcp-check isn't known"},
		{"tcp-check connect addr /run/x", "tcp-check isn't known"},
		{"email-alert to a@b", "email-alert"},
		{"stick-table type ip size 1 peers x", "stick-table"},
		{`description "$SECRET"`, "environment variable"},
		{"use-fcgi-app x", "use-fcgi-app"},
		{"option http-use-htx /x", "option isn't known"},
		{"a-directive-of-next-year on", "a-directive-of-next-year"},
	} {
		t.Run(test.line, func(t *testing.T) {
			o := sample()
			o.Plan.TCPServices[0].Options = []string{test.line}
			refused(t, o, test.want)
		})
	}
	for _, test := range []struct{ words, want string }{
		{"inter 2s crt /root-only", "column 10: crt can't be sent to a node: it names a file"},
		{"ca-file /root-only", "column 1: ca-file can't be sent to a node: it names a file other than @system-ca"},
		{"crl-file /root-only", "crl-file"},
		{"resolvers x", "resolvers"},
		{"init-addr libc", "init-addr"},
		{"source 0.0.0.0:1", "source"},
		{"interface eth0", "interface"},
		{"namespace x", "namespace"},
		{"socks4 192.0.2.1:1", "socks4"},
		{"sni str(x)", "sni"},
		{"check-sni %[env(SECRET)]", "check-sni"},
		{"addr unix@/run/x", "addr can't be sent"},
		{"addr /run/x", "addr can't be sent"},
		{`agent-send "${SECRET}"`, "agent-send"},
		{"log-proto x", "log-proto"},
		{"set-proxy-v2-tlv-fmt(0x20) %[env(SECRET)]", "set-proxy-v2-tlv-fmt"},
		{"proxy-v2-options unique-id", "proxy-v2-options"},
		{"pool-conn-name env(SECRET)", "pool-conn-name"},
		{"cookie ${SECRET}", "cookie can't be sent"},
		{"track other/server", "track"},
		{"verifyhost", ""},
	} {
		t.Run(test.words, func(t *testing.T) {
			if test.want != "" {
				o := sample()
				o.Plan.Clusters[0].Definitions[0].Options.Text = test.words
				if _, wrong := model.ParseOptions(test.words); len(wrong) == 0 {
					refused(t, o, "service pg-test-primary: options: "+map[bool]string{true: test.want}[strings.HasPrefix(test.want, "column")])
				}
			}
			o := sample()
			o.Plan.TCPServices[0].Default = test.words
			refused(t, o, test.want)
			o = sample()
			o.Plan.TCPServices[0].Servers[0].Options = test.words
			refused(t, o, test.want)
		})
	}
	for _, balance := range []string{"hash env(SECRET)", "hash(x)", "roundrobin %[x]", "first $X", "uri depth 1 if { src -f /x }"} {
		o := sample()
		o.Plan.TCPServices[0].Balance = balance
		refused(t, o, "balance")
		o = sample()
		o.Plan.Clusters[0].Definitions[0].Balance = model.Balance(balance)
		refused(t, o, "balance")
	}
}

// What inventories really say of their services can be sent.
func TestWhatIsHarmlessIsTaken(t *testing.T) {
	o := sample()
	o.Plan.TCPServices[0].Options = []string{
		"option httpchk", "option http-keep-alive", "http-check send meth OPTIONS uri /minio/health/live?x=1 ver HTTP/1.1 hdr Host example", "http-check expect status 200,300-399",
		"http-check expect ! rstring ^[45]..$", "http-check connect port 9000 ssl sni minio.example", "option httpchk GET /health HTTP/1.0", "option tcplog", "log global",
		"timeout client 1h", "retries 3", "option redispatch 1", "mode tcp", "option tcpka", "hash-type consistent", "option forwardfor", "", "# a comment",
	}
	o.Plan.TCPServices[0].Default = "inter 3s fastinter 1s downinter 5s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100"
	o.Plan.TCPServices[0].Servers[0].Options = "check-ssl ca-file /etc/pki/ca.crt check port 9000 addr 10.10.10.11 check-sni minio.example verify required"
	for _, balance := range []string{"roundrobin", "random(3)", "uri depth 1 whole", "hdr(X-Id) use_domain_only", "source"} {
		o.Plan.TCPServices[0].Balance = balance
		if _, err := o.Encode(); err != nil {
			t.Error(err)
		}
	}
}
