package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/control"
)

// planted begins every secret of the test below.
const planted = "hunter2zz"

// plantedInventory has secrets wherever an inventory has them, and where it should not.
const plantedInventory = `# of old: ` + planted + `-comment
all:
  children:
    etcd:
      hosts: { ` + unreadOther + `: { etcd_seq: 1 } }
      vars: { etcd_cluster: etcd, etcd_root_password: ` + planted + `-etcd-root }
    pg-test:
      hosts:
        ` + unreadNode + `: { pg_seq: 1, pg_role: primary }
        ` + unreadOther + `: { pg_seq: 2, pg_role: replica }
      vars:
        pg_cluster: pg-test
        pg_rto: fast
        pg_etcd_password: ` + planted + `-etcd
        pg_users: [ { name: app, password: ` + planted + `-user } ]
        pg_default_services:
          - { name: primary, port: 5433, dest: postgres, check: /primary, selector: '[]' }
  vars:
    pg_admin_password: ` + planted + `-admin
    pg_replication_password: ` + planted + `-replication
    patroni_password: ` + planted + `-patroni
    haproxy_admin_password: ` + planted + `-page
    pgporter_page_actions: true
    a_url: postgres://app:` + planted + `-url@10.0.0.1/x
    innocent: &anchored ` + planted + `-anchored
    some_token: *anchored
`

// everything is what was said, by where.
type everything map[string]string

// leaks names the places where a secret is.
func (e everything) check(t *testing.T) {
	t.Helper()
	for where, text := range e {
		forms := []string{planted, base64.StdEncoding.EncodeToString([]byte(planted))[:11]}
		for _, form := range forms {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("%s has a secret: …%s", where, text[max(0, i-200):min(len(text), i+40)])
			}
		}
		if text == "" {
			t.Errorf("%s says nothing at all", where)
		}
	}
}

// run takes what a command of this machine says.
func (e everything) run(args ...string) {
	var out bytes.Buffer
	status := Main(args, strings.NewReader(""), &out, &out)
	e[strings.Join(args, " ")] = fmt.Sprintf("%sstatus %d", &out, status)
}

// get takes what is answered at a URL.
func (e everything) get(t *testing.T, client *http.Client, method, url, token, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text bytes.Buffer
	fmt.Fprintln(&text, res.Status, res.Header)
	// A stream goes on for ever.
	if !strings.HasSuffix(url, "/stream") {
		if _, err := io.Copy(&text, res.Body); err != nil {
			t.Fatal(err)
		}
	}
	e[method+" "+url+" "+body] = text.String()
}

// files takes what is in all files below a directory.
func (e everything) files(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		e[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// bundle takes what is in a bundle.
func (e everything) bundle(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle's mode is %v, %v", info.Mode(), err)
	}
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		e["bundle: "+header.Name] = header.Name + "\n" + string(text)
		_, name, _ := strings.Cut(header.Name, "/")
		names = append(names, name)
	}
	for _, name := range []string{"status.json", "events.json", "metrics.txt", "goroutines.txt", "sessions.json", "version.txt", "system.txt", "process/arguments.txt", "process/limits.txt", "CONTENTS"} {
		if !slices.Contains(names, name) {
			t.Errorf("the bundle has no %s: %v", name, names)
		}
	}
	if !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, "pigsty.yml") }) {
		t.Errorf("the bundle has no inventory: %v", names)
	}
}

// What a running pgporter says, in whichever way and whatever goes wrong, has no secret in it that it was given: the log of everything, all
// answers, commands, files, and the bundle of all of that.
func TestNothingThatRunsTellsSecrets(t *testing.T) {
	newPair(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made, err := control.MakeCredentials(dir, []string{unreadNode}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	const token = planted + "-token-0123456789-0123456789-0123456789"
	file(filepath.Base(made.Token), token+"\n")
	inventory := file("pigsty.yml", plantedInventory)
	broken := file("broken.yml", "all:\n  vars:\n    pg_admin_password: ["+planted+"-broken\n")
	account := file("monitor.account", "user = monitor\npassword = "+planted+"-account\n")
	wrongAccount := file("wrong.account", "user = monitor\n"+planted+"-line\n")
	wrongToken := file("wrong.token", planted+"-wrong-0123456789-0123456789-0123456789\n")
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "runtime.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	porter := startPorter(t, log, "--inventory", inventory, "--node", unreadNode, "--log-level", "debug", "--runtime-socket", socket, "--state-dir", state,
		"--control", unreadNode, "--control-token-file", made.Token, "--control-tls-cert", made.Certificate, "--control-tls-key", made.Key)
	porter.serves(t)
	if _, err := client(); err != nil {
		t.Fatal(err)
	}
	all := everything{}

	// Whoever only looks, at both addresses.
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	exporter := net.JoinHostPort(unreadNode, "9101")
	comesTrue(t, "the page's port is open", func() bool {
		res, err := plain.Get("http://" + exporter + "/health")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	for _, address := range []string{unreadAdmin, exporter} {
		for _, path := range []string{"/", "/status", "/services", "/services/pg-test-primary", "/health", "/metrics", "/;csv", "/events", "/openapi.json", "/history", "/plain", "/stream", "/nowhere?password=x"} {
			all.get(t, plain, http.MethodGet, "http://"+address+path, "", "")
		}
	}
	// The page's login with another password; and with the right one, without its being said.
	for name, body := range map[string]string{
		"login, wrong":  `{"user": "admin", "password": "` + planted + `-wrong"}`,
		"login, right":  `{"user": "admin", "password": "` + planted + `-page"}`,
		"login, broken": `{"password": "` + planted,
	} {
		one := everything{}
		one.get(t, plain, http.MethodPost, "http://"+exporter+"/login", "", body)
		for _, text := range one {
			all[name] = text
		}
	}
	// The control address, with the token and with another.
	trusting := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	at := "https://" + net.JoinHostPort(unreadNode, control.DefaultPort)
	for _, path := range []string{"/node", "/status", "/events", "/sessions", "/debug/goroutines", "/nowhere"} {
		all.get(t, trusting, http.MethodGet, at+path, token, "")
	}
	all.get(t, trusting, http.MethodGet, at+"/status", planted+"-of-a-stranger", "")
	all.get(t, trusting, http.MethodPost, at+"/plan", token, "{}")
	all.get(t, trusting, http.MethodPost, at+"/servers", token, "{}")
	// HAProxy's commands.
	for _, line := range []string{"help", "show info", "show stat", "show servers state", "show sess", "show env", "show table"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintln(conn, line)
		text, err := io.ReadAll(conn)
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		all["socket: "+line] = line + string(text)
	}
	// Commands, those that fail too.
	there := []string{"--token-file", made.Token, "--ca", made.Certificate}
	admin := []string{"--admin", unreadAdmin}
	for _, args := range [][]string{
		append([]string{"status"}, admin...), append([]string{"status", "-o", "json"}, admin...), append([]string{"sessions"}, admin...), append([]string{"drain", "pg-test-2", "--dry-run"}, admin...), append([]string{"health"}, admin...),
		append([]string{"sessions", "--node", unreadNode}, there...), {"sessions", "--node", unreadNode, "--token-file", wrongToken, "--ca", made.Certificate},
		append([]string{"reload", "--inventory", inventory, "pg-test", unreadNode, "--dry-run"}, there...), append([]string{"reload", "--inventory", inventory, "pg-test", unreadNode}, there...), append([]string{"reload", "--inventory", broken, "pg-test"}, there...),
		append([]string{"who", "--inventory", inventory, "--cluster", "pg-test", "--node", unreadNode, "--pg-credentials", account, "--timeout", "5s"}, there...),
		append([]string{"who", "--inventory", inventory, "--cluster", "pg-test", "--pg-credentials", wrongAccount}, there...),
		{"check", inventory}, {"check", broken}, {"services", inventory}, {"plan", inventory, "--node", unreadNode}, {"url", "pg-test", inventory, "--all"}, {"doctor", "pg-test", inventory, "--by", "ip", "--timeout", "1s", "--deadline", "5s"},
	} {
		all.run(args...)
	}
	// A configuration that is broken, read by the process itself.
	if err := os.WriteFile(inventory, []byte(strings.Replace(plantedInventory, "pg_cluster: pg-test", "pg_cluster: ["+planted+"-broken", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	all.run(append([]string{"reread"}, admin...)...)
	all.run(append([]string{"status"}, admin...)...)
	file("pigsty.yml", plantedInventory)
	all.run(append([]string{"reread"}, admin...)...)

	bundled := filepath.Join(dir, "report.tar.gz")
	all.run(append([]string{"bundle", "--out", bundled, "--sessions"}, admin...)...)
	all.bundle(t, bundled)

	porter.Process.Signal(syscall.SIGTERM)
	porter.exits(t, 0)
	all.run(append([]string{"bundle", "--out", bundled + ".2", "--inventory", broken}, admin...)...)
	all.files(t, state)
	text, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	all["the log"] = string(text)
	all.check(t)
	// What was to go wrong did.
	if text := all["login, wrong"]; !strings.Contains(text, "401 ") || !strings.Contains(all["login, right"], "200 OK") {
		t.Errorf("the page's login answers %s and %s", text, all["login, right"])
	}
	for _, said := range []string{"level=DEBUG", "credentials", "etcd", "can't be read"} {
		if !strings.Contains(all["the log"], said) {
			t.Errorf("the log has nothing of %q", said)
		}
	}
}
