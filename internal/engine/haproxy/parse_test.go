package haproxy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
)

const processTable = `#<PID>          <type>          <reloads>       <uptime>        <version>      
21829           master          4 [failed: 1]   0d00h00m36s     2.6.12-1+deb12u4
# workers
23528           worker          0               0d00h00m15s     2.6.12-1+deb12u4
# old workers
21834           worker          4               0d00h00m36s     2.6.12-1+deb12u4
22920           worker          2               0d00h00m20s     2.6.12-1+deb12u4
# programs
777             logger          0               0d00h00m20s     -

`

func TestParseProcesses(t *testing.T) {
	got, err := parseProcesses(processTable)
	want := processes{Master: procLine{21829, 4}, Failed: 1, Current: procLine{23528, 0}, Old: []procLine{{21834, 4}, {22920, 2}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	// Before 2.6 the master's line says nothing of failed reloads.
	got, err = parseProcesses("#<PID> <type> <reloads> <uptime> <version>\n7 master 1 0d00h00m36s 2.4\n# workers\n# old workers\n8 worker 1 0d 2.4\n")
	if err != nil || got.Master.PID != 7 || got.Current.PID != 0 || len(got.Old) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "Unknown command: 'show proc'\n", "x master 1\n", "1 master x\n"} {
		if got, err := parseProcesses(bad); err == nil {
			t.Errorf("%q gives %+v", bad, got)
		}
	}
}

const serverTable = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
2 pg-test-offline 1 pg-test-1 127.0.82.11 0 0 100 100 16 17 2 0 6 0 0 0 - 7000 - 0 8008 - - 8008
2 pg-test-offline 2 pg-test-2 fd00::2 2 9 50 100 16 15 3 5 0 0 0 0 - 7001 - 0 8008 - - 8008

`

func TestParseServers(t *testing.T) {
	got, err := parseServers(serverTable)
	want := map[serverID]serverState{
		{"pg-test-offline", "pg-test-1"}: {Address: "127.0.82.11", Port: 7000, Weight: 100, Initial: 100, Since: 16, Checked: true},
		{"pg-test-offline", "pg-test-2"}: {Address: "fd00::2", Port: 7001, Op: opRunning, Admin: 9, Weight: 50, Initial: 100, Since: 16, Passed: true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "2\n# be_id\n", "1\n2 a 1 b\n", "1\n2 a 1 b 1.1.1.1 x 0 1 1 0 1 1 1 1 1 1 1 - 5 -\n"} {
		if got, err := parseServers(bad); err == nil {
			t.Errorf("%q gives %+v", bad, got)
		}
	}
}

func TestParseSessions(t *testing.T) {
	got := parseSessions(`0x561b16e73d10: proto=tcpv4 src=127.0.0.1:40002 fe=pg-test-primary be=pg-test-primary srv=pg-test-1 ts=00 epoch=0 age=20s
0x7f06fc047f30: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0
0x7f06fc047f40: proto=tcpv4 src=127.0.0.1:1 fe=pg-test-primary be=pg-test-primary srv=<none> ts=02

`)
	want := []session{{"0x561b16e73d10", serverID{"pg-test-primary", "pg-test-1"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseCounts(t *testing.T) {
	now := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	got, err := parseCounts("# pxname,svname,scur,stot,econ,wretr,status,weight,bck,dcon,lastsess,ctime,\n"+
		"a,FRONTEND,2,9,,,OPEN,,,4,,,\na,one,2,7,1,3,UP,1,0,,-1,12,\na,BACKEND,2,9,1,0,UP,1,0,,5,,\n\n", now)
	want := map[serverID]counters{
		{"a", Frontend}: {Counts: engine.Counts{Sessions: 2, TotalSessions: 9}, Denied: 4},
		{"a", "one"}:    {Counts: engine.Counts{Sessions: 2, TotalSessions: 7, ConnectFailures: 1, Retries: 3, ConnectTime: 12 * time.Millisecond}, Refused: 1},
		{"a", Backend}:  {Counts: engine.Counts{Sessions: 2, TotalSessions: 9, ConnectFailures: 1, LastSession: now.Add(-5 * time.Second)}, Refused: 1},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := parseCounts("# pxname,svname\n", now); err == nil || !strings.Contains(err.Error(), "status") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzAnswers feeds what a socket may say to everything that reads it: whatever it is, nothing may break.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{processTable, serverTable, "# pxname,svname,scur,stot,econ,wretr,status,weight,bck\na,b,1,2,3,4,UP,5,0\n", "0x1: be=a srv=b\n", "1\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseProcesses(text); err == nil && p.Master.PID == 0 {
			t.Error("a table without a master")
		}
		if servers, err := parseServers(text); err == nil && !strings.HasPrefix(strings.TrimSpace(text), stateVersion) {
			t.Errorf("servers of another version: %v", servers)
		}
		for _, s := range parseSessions(text) {
			if strings.ContainsAny(s.ID, " \n;") {
				t.Errorf("a session's name %q is more than a word", s.ID)
			}
		}
		_, _ = parseCounts(text, time.Now())
	})
}
