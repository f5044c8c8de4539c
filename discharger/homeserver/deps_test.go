package homeserver

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A homeserver author pays for the dependencies of this package and of keyfile. They
// are few, and none is the discharger's core, a policy, CEL or YAML.
func TestDependencies(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string]struct{ modules, packages []string }{
		"keyfile": {
			modules:  []string{"github.com/go-json-experiment/json", "github.com/google/renameio/v2", "golang.org/x/crypto", "golang.org/x/sys"},
			packages: []string{"atomicfile", "caveat", "keyfile", "rawmacaroon", "secret"},
		},
		"homeserver": {
			modules: []string{
				"github.com/cenkalti/backoff/v5", "github.com/go-json-experiment/json", "github.com/google/renameio/v2",
				"golang.org/x/crypto", "golang.org/x/sys", "gopkg.in/macaroon.v2",
			},
			packages: []string{
				"atomicfile", "bundle", "cache", "caveat", "client", "clientaddr", "homeserver", "keyfile", "rawmacaroon", "revocation", "secret", "sse", "wire",
			},
		},
	} {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			const own = "github.com/discharger/discharger"
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{$.ImportPath}}{{end}}", own+"/discharger/"+pkg).Output()
			if err != nil {
				t.Fatal(err)
			}
			var modules, packages []string
			for line := range strings.Lines(string(out)) {
				module, path, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch module {
				case "":
				case own:
					packages = append(packages, strings.TrimPrefix(path, own+"/discharger/"))
				default:
					modules = append(modules, module)
				}
			}
			slices.Sort(modules)
			slices.Sort(packages)
			if modules = slices.Compact(modules); !slices.Equal(modules, want.modules) {
				t.Errorf("modules are %q, want %q", modules, want.modules)
			}
			if !slices.Equal(packages, want.packages) {
				t.Errorf("packages are %q, want %q", packages, want.packages)
			}
		})
	}
}
