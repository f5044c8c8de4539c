package main_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/discharger/discharger"

// layout lists the packages of this module that a package may import. Imports point down
// in the picture, and every package has a row. A store reads no record: bolt, redis
// and journal import neither discharger nor session. Its test suite does.
//
//	cmd
//	server   store     config     gateway    secevent
//	discharger         homeserver
//	policy             bakery  client
//	                   bundle  wire
//	caveat  cache  rawmacaroon  clientaddr  clientname  yamlfile
var layout = map[string][]string{
	"cmd/discharger": {
		"cmd/discharger/backup", "cmd/discharger/command", "cmd/discharger/demo", "cmd/discharger/gatewayd", "cmd/discharger/httpd",
		"cmd/discharger/keys", "cmd/discharger/policies", "cmd/discharger/ruleset", "cmd/discharger/serve", "cmd/discharger/sessions",
		"cmd/discharger/setup", "cmd/discharger/tokens", "config", "discharger/atomicfile", "discharger/wire",
	},
	"cmd/discharger/backup": {
		"cmd/discharger/command", "cmd/discharger/httpd", "cmd/discharger/logging", "cmd/discharger/setup", "cmd/discharger/storage", "config",
		"discharger/boltfile", "discharger/failover", "discharger/keyfile", "discharger/revocation", "discharger/store/backup", "discharger/store/bolt",
		"discharger/store/journal", "discharger/store/redis",
	},
	"cmd/discharger/command": {"config/yamlfile", "discharger/atomicfile", "discharger/caveat", "discharger/client"},
	"cmd/discharger/demo": {
		"cmd/discharger/command", "cmd/discharger/serve", "cmd/discharger/setup", "config", "discharger/caveat", "discharger/client",
		"discharger/homeserver", "discharger/server", "discharger/wire",
	},
	"cmd/discharger/gatewayd": {
		"cmd/discharger/command", "cmd/discharger/httpd", "cmd/discharger/logging", "cmd/discharger/reload", "cmd/discharger/setup", "config",
		"discharger/caveat", "discharger/homeserver", "discharger/gateway", "discharger/gateway/admission", "discharger/keyfile", "discharger/server", "discharger/wire",
	},
	"cmd/discharger/httpd": {"cmd/discharger/command", "discharger/clientaddr"},
	"cmd/discharger/keys": {
		"cmd/discharger/backup", "cmd/discharger/command", "cmd/discharger/httpd", "cmd/discharger/setup", "config", "discharger/caveat",
		"discharger/client", "discharger/keyfile", "discharger/secevent", "discharger/session", "discharger/store",
	},
	"cmd/discharger/logging": {"config"},
	"cmd/discharger/policies": {
		"cmd/discharger/command", "cmd/discharger/ruleset", "cmd/discharger/setup", "config", "config/yamlfile", "policy", "policy/check",
		"policy/rulefile", "policy/rules", "policy/schema", "policy/schema/boulangerie",
	},
	"cmd/discharger/reload": {"cmd/discharger/setup", "config"},
	"cmd/discharger/ruleset": {
		"cmd/discharger/command", "config", "config/yamlfile", "discharger/server", "policy", "policy/check", "policy/rules", "policy/schema",
		"policy/schema/boulangerie",
	},
	"cmd/discharger/serve": {
		"cmd/discharger/backup", "cmd/discharger/command", "cmd/discharger/gatewayd", "cmd/discharger/httpd", "cmd/discharger/logging",
		"cmd/discharger/reload", "cmd/discharger/ruleset", "cmd/discharger/setup", "cmd/discharger/storage", "config", "discharger",
		"discharger/failover", "discharger/gateway", "discharger/keyfile", "discharger/secevent", "discharger/server", "discharger/session",
		"discharger/store/redis/conn", "policy", "policy/check",
	},
	"cmd/discharger/sessions": {
		"cmd/discharger/command", "cmd/discharger/setup", "config/yamlfile", "discharger/caveat", "discharger/client",
		"discharger/keyfile", "discharger/revocation", "discharger/secret", "discharger/wire",
	},
	"cmd/discharger/setup": {
		"cmd/discharger/command", "cmd/discharger/httpd", "config", "discharger/caveat", "discharger/homeserver", "discharger/keyfile",
		"discharger/secevent",
	},
	"cmd/discharger/storage": {
		"cmd/discharger/command", "cmd/discharger/setup", "config", "discharger/keyfile", "discharger/revocation",
		"discharger/store", "discharger/store/bolt", "discharger/store/journal", "discharger/store/marker", "discharger/store/redis",
		"discharger/store/redis/conn",
	},
	"cmd/discharger/tokens": {
		"cmd/discharger/command", "cmd/discharger/setup", "config", "discharger/atomicfile", "discharger/bundle", "discharger/caveat",
		"discharger/client", "discharger/gateway/token", "discharger/homeserver", "discharger/keyfile", "discharger/rawmacaroon",
		"discharger/wire",
	},
	"cmd/discharger/interop": {},

	"config":                {"config/yamlfile", "discharger/caveat", "discharger/secret"},
	"discharger/atomicfile": {},
	"config/yamlfile":       {},
	"discharger/keyfile":    {"discharger/atomicfile", "discharger/caveat", "discharger/rawmacaroon", "discharger/secret"},
	"discharger/secret":     {},

	"discharger/server": {
		"discharger", "discharger/caveat", "discharger/clientaddr", "discharger/revocation", "discharger/session", "discharger/sse",
		"discharger/store", "discharger/wire", "policy", "policy/check",
	},
	"discharger/secevent": {"discharger/atomicfile", "discharger/caveat", "discharger/revocation", "discharger/secret", "discharger/store"},
	"discharger/store":    {"discharger/caveat", "discharger/revocation"},
	"discharger/store/backup": {
		"discharger/caveat", "discharger/revocation", "discharger/store", "discharger/store/journal", "discharger/store/limits",
		"discharger/store/marker", "discharger/store/record",
	},
	"discharger/store/bolt": {
		"discharger/atomicfile", "discharger/boltfile", "discharger/caveat", "discharger/revocation", "discharger/store", "discharger/store/backup", "discharger/store/journal", "discharger/store/limits", "discharger/store/marker", "discharger/store/record",
	},
	"discharger/store/journal": {"discharger/boltfile", "discharger/revocation", "discharger/store", "discharger/store/record"},
	"discharger/store/limits":  {"discharger/caveat", "discharger/revocation", "discharger/store"},
	"discharger/store/marker":  {"discharger/atomicfile"},
	"discharger/store/record":  {"discharger/store/limits"},
	"discharger/store/redis": {
		"discharger/caveat", "discharger/revocation", "discharger/secret", "discharger/store", "discharger/store/redis/conn",
		"discharger/store/redis/keys",
		"discharger/store/backup", "discharger/store/journal", "discharger/store/limits", "discharger/store/marker", "discharger/store/record",
	},
	"discharger/store/redis/conn": {"discharger/loglimit", "discharger/secret"},
	"discharger/store/redis/keys": {"discharger/caveat", "discharger/revocation", "discharger/secret", "discharger/store/record"},
	"discharger/store/redistest":  {"discharger/testkit"},
	"discharger/store/storetest": {
		"discharger", "discharger/caveat", "discharger/revocation", "discharger/session", "discharger/store", "discharger/store/journal",
		"discharger/store/marker", "discharger/store/redistest",
	},
	"discharger/boltfile": {"discharger/atomicfile"},
	"discharger": {
		"discharger/cache", "discharger/caveat", "discharger/clientname", "discharger/keyfile", "discharger/rawmacaroon", "discharger/revocation",
		"discharger/secret", "discharger/session", "discharger/store", "policy",
	},
	"discharger/session":    {"discharger/caveat", "discharger/clientname", "discharger/revocation", "discharger/store", "policy"},
	"discharger/revocation": {"discharger/caveat"},
	"discharger/failover":   {"discharger/revocation", "discharger/session", "discharger/store", "discharger/store/journal"},
	"discharger/simulate":   {"discharger", "discharger/caveat", "discharger/session"},

	"discharger/gateway": {
		"discharger/bundle", "discharger/cache", "discharger/caveat", "discharger/client", "discharger/clientaddr",
		"discharger/gateway/admission", "discharger/gateway/jsonbody", "discharger/gateway/matrix", "discharger/gateway/metrics",
		"discharger/gateway/outbox", "discharger/gateway/reply", "discharger/gateway/service", "discharger/gateway/token",
		"discharger/gateway/uia", "discharger/gateway/upstream", "discharger/homeserver", "discharger/loglimit", "discharger/rawmacaroon",
		"discharger/revocation", "discharger/secret", "discharger/wire",
	},
	"discharger/gateway/admission": {"discharger/clientaddr"},
	"discharger/gateway/jsonbody":  {},
	"discharger/gateway/matrix":    {},
	"discharger/gateway/metrics":   {"discharger/client", "discharger/gateway/admission", "discharger/gateway/reply", "discharger/gateway/token", "discharger/homeserver"},
	"discharger/gateway/outbox": {
		"discharger/boltfile", "discharger/cache", "discharger/caveat", "discharger/client", "discharger/gateway/admission",
		"discharger/gateway/jsonbody", "discharger/gateway/token", "discharger/gateway/upstream", "discharger/homeserver",
		"discharger/revocation", "discharger/wire",
	},
	"discharger/gateway/reply": {"discharger/gateway/jsonbody", "discharger/gateway/matrix"},
	"discharger/gateway/service": {
		"discharger/bundle", "discharger/cache", "discharger/caveat", "discharger/client", "discharger/gateway/admission",
		"discharger/gateway/upstream", "discharger/homeserver", "discharger/wire",
	},
	"discharger/gateway/token": {
		"discharger/bundle", "discharger/caveat", "discharger/client", "discharger/homeserver", "discharger/rawmacaroon",
		"discharger/wire",
	},
	"discharger/gateway/uia":      {"discharger/cache", "discharger/gateway/matrix"},
	"discharger/gateway/upstream": {"discharger/clientaddr", "discharger/gateway/jsonbody", "discharger/gateway/matrix", "discharger/gateway/token"},

	"discharger/homeserver": {
		"discharger/bundle", "discharger/cache", "discharger/caveat", "discharger/client", "discharger/clientaddr", "discharger/keyfile",
		"discharger/rawmacaroon", "discharger/revocation", "discharger/secret", "discharger/wire",
	},
	"discharger/bakery": {
		"discharger/bundle", "discharger/caveat", "discharger/client", "discharger/clientaddr", "discharger/homeserver", "discharger/rawmacaroon",
		"discharger/wire",
	},
	"discharger/client": {
		"discharger/bundle", "discharger/caveat", "discharger/rawmacaroon", "discharger/revocation", "discharger/secret", "discharger/sse",
		"discharger/wire",
	},
	"discharger/bundle":      {"discharger/rawmacaroon"},
	"discharger/sse":         {},
	"discharger/wire":        {"discharger/caveat"},
	"discharger/cache":       {},
	"discharger/caveat":      {"discharger/secret"},
	"discharger/rawmacaroon": {},
	"discharger/clientaddr":  {},
	"discharger/testkit":     {},
	"discharger/clientname":  {},
	"discharger/loglimit":    {},

	"policy/check":              {"config/yamlfile", "policy", "policy/cel", "policy/rulefile", "policy/rules", "policy/webhook"},
	"policy/rules":              {"config/yamlfile", "policy", "policy/cel", "policy/rulefile", "policy/webhook"},
	"policy/rulefile":           {"config/yamlfile", "policy", "policy/cel", "policy/webhook"},
	"policy/cel":                {"config/yamlfile", "policy"},
	"policy/webhook":            {"discharger/cache", "discharger/secret", "policy"},
	"policy":                    {"config/yamlfile"},
	"policy/schema":             {"config/yamlfile", "policy/schema/uri"},
	"policy/schema/boulangerie": {"config/yamlfile", "policy/schema", "policy/schema/uri"},
	"policy/schema/uri":         {},
}

// home lists the packages that may import a module, and those whose tests may too.
type home struct {
	module   string
	packages []string
	tests    []string
}

const anywhere = "*"

// homes has every module that is imported. One that is not here has to be put
// here first, with its reason in the commit.
var homes = []home{
	// The big ones, each behind one package.
	{"github.com/labstack/echo/v4", []string{"discharger/server"}, nil},
	{"github.com/redis/go-redis/v9", []string{"discharger/store/redis", "discharger/store/redis/conn", "discharger/store/redistest"}, nil},
	{"go.etcd.io/bbolt", []string{"discharger/boltfile", "discharger/store/bolt", "discharger/store/journal", "discharger/store/storetest", "discharger/gateway/outbox"}, []string{"discharger/gateway", "discharger/store/redis"}},
	{"cel.dev/cel-go", []string{"policy/cel", "policy/rulefile", "policy/schema"}, nil},
	{"go.yaml.in/yaml/v3", []string{"config/yamlfile"}, []string{"policy/rulefile"}},
	{"github.com/prometheus/client_golang", []string{
		"cmd/discharger/gatewayd", "cmd/discharger/ruleset", "cmd/discharger/serve", "cmd/discharger/storage",
		"discharger/secevent", "discharger/server", "discharger/gateway", "discharger/gateway/metrics",
	}, []string{"discharger/bakery"}},
	{"github.com/spf13/cobra", []string{"cmd/discharger", "cmd/discharger/command"}, nil},
	{"github.com/spf13/pflag", []string{
		"cmd/discharger", "cmd/discharger/backup", "cmd/discharger/command", "cmd/discharger/demo", "cmd/discharger/gatewayd",
		"cmd/discharger/keys", "cmd/discharger/policies", "cmd/discharger/serve", "cmd/discharger/sessions", "cmd/discharger/setup",
		"cmd/discharger/tokens",
	}, nil},
	{"github.com/coreos/go-systemd/v22", []string{"cmd/discharger/httpd"}, []string{"cmd/discharger"}},
	{"github.com/golang-jwt/jwt/v5", []string{"discharger/secevent"}, []string{"cmd/discharger"}},

	// Macaroons. Only package bakery and tests use the bakery.
	{"gopkg.in/macaroon.v2", []string{
		"discharger/bakery", "discharger/bundle", "discharger/client", "discharger/homeserver", "discharger/gateway", "discharger/gateway/service", "discharger/gateway/token", "discharger/testkit",
	}, []string{anywhere}},
	{"github.com/go-macaroon-bakery/macaroon-bakery/v3", []string{
		"discharger/bakery",
	}, []string{anywhere}},
	{"gopkg.in/errgo.v1", nil, []string{"cmd/discharger/interop", "discharger/bakery"}},

	// Small things.
	{"github.com/google/renameio/v2", []string{"discharger/atomicfile", "discharger/store/marker"}, nil},
	{"github.com/mileusna/useragent", []string{"discharger/clientname"}, nil},
	{"github.com/go-json-experiment/json", []string{
		"cmd/discharger/command", "cmd/discharger/sessions", "cmd/discharger/tokens", "discharger/keyfile", "discharger", "discharger/caveat", "discharger/client",
		"discharger/revocation", "discharger/wire",
		"discharger/server", "discharger/gateway", "discharger/gateway/jsonbody", "discharger/gateway/reply", "discharger/gateway/uia",
	}, nil},
	{"github.com/cenkalti/backoff/v5", []string{
		"discharger/client", "discharger/gateway", "discharger/gateway/outbox", "discharger/gateway/service", "discharger/homeserver", "discharger/secevent",
		"discharger/store/redis", "policy/webhook",
	}, nil},
	{"golang.org/x/time", []string{"cmd/discharger/httpd", "discharger", "discharger/server"}, nil},
	{"golang.org/x/crypto", []string{"discharger/caveat", "discharger/homeserver", "discharger/gateway/token"}, nil},
	{"pgregory.net/rapid", []string{"discharger/store/storetest"}, []string{anywhere}},
	{"github.com/anishathalye/porcupine", []string{"discharger/store/storetest"}, []string{"discharger/store/bolt", "discharger/store/redis"}},
	{"github.com/rogpeppe/go-internal", nil, []string{"cmd/discharger"}},
}

// imported is one import of one file.
type imported struct {
	file   string // from the root of the module
	pkg    string // directory of the file, likewise
	path   string // of the imported package
	inTest bool
}

// imports reads the imports of every Go file of the module, with any build
// tags.
func imports(t *testing.T) []imported {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []imported
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && file != root && (strings.HasPrefix(name, ".") || name == "testdata" || isModule(file)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		short, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		short = filepath.ToSlash(short)
		inTest := strings.HasSuffix(name, "_test.go")
		all = append(all, imported{file: short, pkg: path.Dir(short), inTest: inTest}) // the file as such
		for _, spec := range parsed.Imports {
			what, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all = append(all, imported{short, path.Dir(short), what, inTest})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// isModule reports whether a directory is the root of a module, which is then
// one of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// TestImportsPointDown holds the table of who may import whom. Tests may import
// all packages but the commands, since no program contains them.
func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, i := range imports(t) {
		allowed, known := layout[i.pkg]
		if !known && !seen[i.pkg] {
			t.Errorf("%s: package %s is not in the layout", i.file, i.pkg)
		}
		seen[i.pkg] = true
		what, inside := strings.CutPrefix(i.path, modulePath+"/")
		if !inside || !known {
			continue
		}
		if i.inTest && !strings.HasPrefix(what, "cmd/") {
			continue
		}
		if !slices.Contains(allowed, what) {
			t.Errorf("%s: package %s must not import %s", i.file, i.pkg, what)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(layout)) {
		if !seen[pkg] {
			t.Errorf("package %s is in the layout, but does not exist", pkg)
		}
	}
}

// TestModulesHaveOneHome holds the table of which module of others is used
// where.
func TestModulesHaveOneHome(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	for _, i := range imports(t) {
		if first, _, _ := strings.Cut(i.path, "/"); !strings.Contains(first, ".") || strings.HasPrefix(i.path, modulePath+"/") {
			continue // the standard library, and ourselves
		}
		at := slices.IndexFunc(homes, func(h home) bool { return i.path == h.module || strings.HasPrefix(i.path, h.module+"/") })
		if at < 0 {
			t.Errorf("%s: %s is of no module that has a home", i.file, i.path)
			continue
		}
		h := homes[at]
		used[h.module] = true
		inTest := i.inTest && (slices.Contains(h.tests, anywhere) || slices.Contains(h.tests, i.pkg))
		if !inTest && !slices.Contains(h.packages, i.pkg) {
			t.Errorf("%s: package %s must not import %s", i.file, i.pkg, i.path)
		}
	}
	for _, h := range homes {
		if !used[h.module] {
			t.Errorf("module %s has a home, but no package imports it", h.module)
		}
	}
}
