package model

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsNotShown(t *testing.T) {
	b := Base{AdminUser: "admin", AdminPassword: "hunter2"}
	text, err := json.Marshal([]any{b, b.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("base", "password", b.AdminPassword, "base", b)
	for _, shown := range []string{string(text), fmt.Sprint(b), fmt.Sprintf("%v %+v %#v %s %q", b, b, b, b.AdminPassword, b.AdminPassword), log.String()} {
		if strings.Contains(shown, "hunter2") {
			t.Errorf("the secret is in %s", shown)
		}
		if !strings.Contains(shown, "(secret)") {
			t.Errorf("nothing stands for the secret in %s", shown)
		}
	}
	if b.AdminPassword.Reveal() != "hunter2" {
		t.Error("the secret is lost")
	}
}
