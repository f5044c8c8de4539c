package check_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
)

// audits collects the errors of lost records.
type audits struct {
	mu   sync.Mutex
	lost []error
}

func (a *audits) AuditFailed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = append(a.lost, err)
}

func records(t testing.TB, path string) []check.AuditRecord {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []check.AuditRecord
	for line := range bytes.Lines(data) {
		var r check.AuditRecord
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func TestAudit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testAudit)
}

func testAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.ndjson")
	seen := &audits{}
	a, err := check.NewAudit(check.AuditConfig{Path: path, Failed: seen.AuditFailed})
	if err != nil {
		t.Fatal(err)
	}
	set := mustLoad(t, rule("user.sessions > 3"))
	e := a.Evaluator(set)
	for _, name := range []string{"p", "unknown"} {
		in := policy.SampleInput()
		in.Policy = name
		_, _ = e.Evaluate(t.Context(), in)
	}
	// As log rotation does.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Reopen(); err != nil {
		t.Fatal(err)
	}
	a.Record(policy.SampleInput(), policy.Decision{Effect: policy.EffectDeny, RetryAfter: 90e9}, nil)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	a.Record(policy.SampleInput(), policy.Decision{}, nil)
	if len(seen.lost) != 1 || !errors.Is(seen.lost[0], os.ErrClosed) {
		t.Errorf("after Close: %v", seen.lost)
	}
	all := records(t, path)
	if first, err := os.Stat(path + ".1"); err == nil && first.Size() > 0 {
		all = append(records(t, path+".1"), all...)
	}
	if len(all) != 3 {
		t.Fatalf("%d records, want 3", len(all))
	}
	sample := policy.SampleInput()
	if r := all[0]; r.Version != 1 || !r.Time.Equal(time.Now()) || r.Decision == nil || r.Decision.Rule != "p/otherwise" || r.Decision.Hash != set.Hash() || r.Error != "" || r.Input.Grant != sample.Grant {
		t.Errorf("first record %+v", r)
	}
	if r := all[1]; r.Decision != nil || !strings.Contains(r.Error, `policy "unknown"`) {
		t.Errorf("second record %+v", r)
	}
	if r := all[2]; r.Decision.RetryAfter != 90e9 {
		t.Errorf("third record %+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := check.NewAudit(check.AuditConfig{Path: filepath.Join(t.TempDir(), "no", "where")}); err == nil {
		t.Error("log opened in a missing directory")
	}
	if _, err := check.NewAudit(check.AuditConfig{}); err == nil {
		t.Error("log opened without a path")
	}
}

// TestAuditFull writes to a full device.
func TestAuditFull(t *testing.T) {
	t.Parallel()
	seen := &audits{}
	a, err := check.NewAudit(check.AuditConfig{Path: "/dev/full", Failed: seen.AuditFailed})
	if err != nil {
		t.Fatal(err)
	}
	e := a.Evaluator(policy.Allow{})
	for range 3 {
		if d, err := e.Evaluate(t.Context(), policy.SampleInput()); err != nil || d.Effect != policy.EffectAllow {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if len(seen.lost) == 0 || !strings.Contains(seen.lost[0].Error(), "no space left") {
		t.Errorf("lost: %v", seen.lost)
	}
}
