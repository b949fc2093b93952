package patroni

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		file string
		body string
		code int
		want Answer
		// words is Answer.Words.
		words string
	}{
		{
			name: "primary", file: "primary.json", code: 200, words: "200 primary running",
			want: Answer{Status: 200, Role: RolePrimary, State: StateRunning, Timeline: 7, Scope: "pg-test", Version: "3.0.2",
				ServerVersion: 150018, SystemID: "7710787112816185761", Location: 100664432},
		},
		{
			name: "replica", file: "replica.json", code: 503, words: "503 replica running",
			want: Answer{Status: 503, Role: RoleReplica, State: StateRunning, Timeline: 2, Name: "pg-test-3", Scope: "pg-test", Version: "4.0.4",
				ServerVersion: 170002, SystemID: "7512345678901234567", Received: 67395656, Replayed: 67395600, ReplayPaused: true, SyncStandby: true,
				PendingRestart: true, Pause: true, Tags: map[string]string{"nofailover": "true", "clonefrom": "true", "zone": "a", "nr": "7"}},
		},
		{
			name: "primary of 4.0.7", file: "primary-4.0.7.json", code: 200, words: "200 primary running",
			want: Answer{Status: 200, Role: RolePrimary, State: StateRunning, Timeline: 3, Name: "pg-test-1", Scope: "pg-test", Version: "4.0.7",
				ServerVersion: 170012, SystemID: "7713542231190909153", Location: 85214080},
		},
		{
			name: "standby of a quorum", file: "replica-4.0.7.json", code: 200, words: "200 replica running",
			want: Answer{Status: 200, Role: RoleReplica, State: StateRunning, Timeline: 1, Name: "pg-test-2", Scope: "pg-test", Version: "4.0.7",
				ServerVersion: 170012, SystemID: "7713544548659962333", Received: 83888696, Replayed: 83888696, QuorumStandby: true},
		},
		{
			name: "unlocked", code: 200, words: "200 primary stopping",
			body: `{"state": "stopping", "role": "master", "cluster_unlocked": true, "failsafe_mode_is_active": true, "dcs_last_seen": 1732233600}`,
			want: Answer{Status: 200, Role: RolePrimary, State: "stopping", ClusterUnlocked: true, Failsafe: true},
		},
		{
			name: "no replication connection", code: 503, words: "503 replica running",
			body: `{"role": "replica", "state": "running", "timeline": null}`,
			want: Answer{Status: 503, Role: RoleReplica, State: StateRunning, TimelineNull: true},
		},
		{name: "no body", code: 200, words: "200", want: Answer{Status: 200}},
		{name: "no JSON", body: "<html>", code: 502, words: "502", want: Answer{Status: 502}},
		{name: "a list", body: `["role"]`, code: 200, words: "200", want: Answer{Status: 200}},
		{
			name: "wrong types", code: 200, words: "200 replica",
			body: `{"role":"replica","state":7,"timeline":"2","xlog":[1],"patroni":"x","tags":[],"pause":"yes","server_version":1.5,"database_system_identifier":5}`,
			want: Answer{Status: 200, Role: RoleReplica},
		},
		{
			name: "control characters", code: 200, words: "200 pri\\u001b[31mmary running\\n",
			body: `{"role":"pri\u001b[31mmary","state":"running\n"}`,
			want: Answer{Status: 200, Role: "pri\\u001b[31mmary", State: "running\\n"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := []byte(test.body)
			if test.file != "" {
				var err error
				if body, err = os.ReadFile("testdata/" + test.file); err != nil {
					t.Fatal(err)
				}
			}
			got := ParseAnswer(test.code, body)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got\n %+v, want\n %+v", got, test.want)
			}
			if got.Words() != test.words {
				t.Errorf("words %q, want %q", got.Words(), test.words)
			}
		})
	}
}

func TestParseCluster(t *testing.T) {
	body, err := os.ReadFile("testdata/cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCluster(body)
	if err != nil {
		t.Fatal(err)
	}
	want := Cluster{Scope: "pg-test", Pause: true, Members: []ClusterMember{
		{Name: "pg-test-1", Role: RoleLeader, State: "running", Host: "10.10.10.11", Port: 5432, APIURL: "http://10.10.10.11:8008/patroni", Timeline: 2, Lag: -1},
		{Name: "pg-test-2", Role: RoleSyncStandby, State: "streaming", Host: "10.10.10.12", Port: 5432, APIURL: "https://10.10.10.12:8008/patroni", Timeline: 2,
			Tags: map[string]string{"clonefrom": "true"}},
		{Name: "pg-test-3", Role: RoleReplica, State: "creating replica", APIURL: "http://10.10.10.13:8008/patroni", Lag: -1},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n %+v, want\n %+v", got, want)
	}
	if body, err = os.ReadFile("testdata/cluster-4.0.7.json"); err != nil {
		t.Fatal(err)
	}
	if got, err = ParseCluster(body); err != nil {
		t.Fatal(err)
	}
	want = Cluster{Scope: "pg-test", Members: []ClusterMember{
		{Name: "pg-test-1", Role: RoleLeader, State: "running", Host: "10.10.10.11", Port: 5432, APIURL: "http://10.10.10.11:8008/patroni", Timeline: 1, Lag: -1},
		{Name: "pg-test-2", Role: RoleQuorumStandby, State: "streaming", Host: "10.10.10.12", Port: 5432, APIURL: "http://10.10.10.12:8008/patroni", Timeline: 1},
		{Name: "pg-test-3", Role: RoleQuorumStandby, State: "streaming", Host: "10.10.10.13", Port: 5432, APIURL: "http://10.10.10.13:8008/patroni", Timeline: 1},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n %+v, want\n %+v", got, want)
	}
	for body, part := range map[string]string{
		"":                          "isn't a JSON object",
		"[]":                        "isn't a JSON object",
		"{}":                        "no list of members",
		`{"members": {}}`:           "no list of members",
		`{"members": [{}]}`:         "without a name",
		`{"members": [{"name":1}]}`: "without a name",
	} {
		if _, err := ParseCluster([]byte(body)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("ParseCluster(%q): error %v doesn't say %q", body, err, part)
		}
	}
}

// FuzzParseAnswer: whatever comes, the status is kept, texts may be printed, and a second reading gives the same.
func FuzzParseAnswer(f *testing.F) {
	for _, file := range []string{"primary.json", "replica.json", "cluster.json", "primary-4.0.7.json", "replica-4.0.7.json"} {
		body, err := os.ReadFile("testdata/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(200, body)
	}
	f.Add(503, []byte(`{"role":"master","state":"starting","tags":{"a":null,"b":[1],"c":1e400}}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := ParseAnswer(status, body)
		if a.Status != status {
			t.Errorf("status %d became %d", status, a.Status)
		}
		texts := []string{a.Role, a.State, a.Name, a.Scope, a.Version, a.SystemID}
		for k, v := range a.Tags {
			texts = append(texts, k, v)
		}
		for _, s := range texts {
			if !utf8.ValidString(s) || len(s) > 600 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("unprintable text %q", s)
			}
		}
		if !json.Valid(body) && !reflect.DeepEqual(a, Answer{Status: status}) {
			t.Errorf("something was read from invalid JSON: %+v", a)
		}
		if again := ParseAnswer(status, body); !reflect.DeepEqual(a, again) {
			t.Errorf("a second reading gives %+v, not %+v", again, a)
		}
	})
}

// FuzzParseCluster: every member that is accepted has a name.
func FuzzParseCluster(f *testing.F) {
	body, err := os.ReadFile("testdata/cluster.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"members":[{"name":"a","lag":"unknown","port":99999999999999999999}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := ParseCluster(body)
		if err != nil && !reflect.DeepEqual(c, Cluster{}) {
			t.Errorf("an error with %+v", c)
		}
		for _, m := range c.Members {
			if m.Name == "" {
				t.Errorf("a member without a name: %+v", m)
			}
			if m.Lag < -1 && !bytes.Contains(body, []byte("-")) {
				t.Errorf("lag %d out of nowhere", m.Lag)
			}
		}
	})
}
