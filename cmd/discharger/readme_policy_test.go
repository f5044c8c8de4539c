package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

// block is a fenced block of policy/README.md.
type block struct{ language, text string }

// policyBlocks reads the blocks of policy/README.md.
func policyBlocks(t *testing.T) []block {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "policy", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1) {
		all = append(all, block{m[1], m[2]})
	}
	return all
}

// TestReadmePolicies writes the files of policy/README.md, runs its commands, and
// loads its files as the service does.
func TestReadmePolicies(t *testing.T) {
	t.Parallel()
	r := &ruled{t: t, dir: t.TempDir()}
	kinds := make(map[string]int)
	blocks := policyBlocks(t)
	for _, b := range blocks {
		kinds[b.language]++
		if b.language == "yaml" {
			name := regexp.MustCompile(`^# (\S+\.yaml)\n`).FindStringSubmatch(b.text)
			if name == nil {
				t.Fatalf("a file has no name:\n%s", b.text)
			}
			r.write(name[1], b.text)
		}
	}
	if kinds["yaml"] != 4 || kinds["sh"] != 1 || kinds["python"] != 1 || len(blocks) != 6 {
		t.Fatalf("the document has other blocks than are run here: %v", kinds)
	}
	r.write("candidate.yaml", withTTL(60))
	r.write("risk.key", hookSecret+"\n")
	recordOne(t, filepath.Join(r.dir, "audit.ndjson"))
	for _, b := range blocks {
		switch b.language {
		case "sh":
			for line := range strings.Lines(b.text) {
				command, _, _ := strings.Cut(line, " #")
				args := strings.Fields(command)
				if args[0] != "discharger" || r.discharger(args[1:]...) == "" {
					t.Errorf("%s did nothing", line)
				}
			}
		case "python":
			t.Run("python", func(t *testing.T) { verifyInPython(t, b.text) })
		}
	}
	for _, file := range []string{"policy.yaml", "webhook.yaml"} {
		if _, err := rules.Load(rules.Config{Files: []string{filepath.Join(r.dir, file)}}); err != nil {
			t.Error(err)
		}
	}
	if out := r.discharger("config", "check", "--config", "discharger.yaml"); !strings.HasSuffix(out, "ok\n") {
		t.Errorf("config check prints %s", out)
	}
}

// recordOne makes an audit log with one decision in it.
func recordOne(t *testing.T, path string) {
	t.Helper()
	audit, err := check.NewAudit(check.AuditConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	audit.Record(policy.SampleInput(), policy.Decision{Effect: policy.EffectAllow, Rule: "default/otherwise"}, nil)
	if err := audit.Close(); err != nil {
		t.Fatal(err)
	}
}

// verifyInPython lets the README's function look at signatures.
func verifyInPython(t *testing.T, code string) {
	t.Helper()
	header := func(at time.Time, body string) string {
		mac := hmac.New(sha256.New, []byte(hookSecret))
		fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
		return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
	}
	now := time.Now()
	for _, h := range []string{header(now, "{}"), header(now, "{ }"), header(now.Add(-time.Hour), "{}")} {
		code += fmt.Sprintf("print(verified(b%q, %q, b'{}'))\n", hookSecret, h)
	}
	testkit.Need(t, "python3")
	out, err := exec.CommandContext(t.Context(), "python3", "-c", code).CombinedOutput()
	if err != nil || string(out) != "True\nFalse\nFalse\n" {
		t.Errorf("python prints %s, %v", out, err)
	}
}
