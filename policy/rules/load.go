package rules

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/webhook"
)

// DefaultMaxCost is the default of [Config].MaxCost. Ten thousand units take about a
// millisecond; a rule that compares a field or two costs less than ten.
const DefaultMaxCost = 10000

// Config configures [Load]. The zero value loads the built-in policies only.
type Config struct {
	// Files are the names of the rule files. A policy name must be unique in all
	// of them. A policy replaces the built-in policy of its name.
	Files []string

	// FS is the file system of Files and of the files named in them; nil means that
	// of the operating system.
	FS fs.FS

	// Caveats returns an error for a first-party caveat that homeservers would refuse. It
	// is called for every constant caveat when a policy is loaded, and for the others at
	// each decision. nil allows all caveats.
	Caveats func(condition string) error

	// MaxCost bounds the cost of a decision; 0 means DefaultMaxCost.
	MaxCost uint64

	// OnlyFiles omits the built-in policies, so that homeservers can
	// choose policies of Files only.
	OnlyFiles bool

	// Offline disables webhooks: their keys are not read, and a rule with a webhook is
	// undecided. It is for checks of files on another machine.
	Offline bool

	// SkipTests loads files without running their tests.
	SkipTests bool

	// Observe receives the events of webhooks; it may be nil.
	Observe webhook.Observer

	hookTimeout time.Duration // replaces the timeout of every webhook; 0: none
}

// Load reads, compiles and tests rule files. An error in their contents is a
// [yamlfile.Problems] with positions; an error of reading them is not.
func Load(cfg Config) (*Set, error) {
	return newLoader(cfg).tested()
}

// tested loads and tests files. Problems and failed tests are an error.
func (l *loader) tested() (*Set, error) {
	set, problems, err := l.load()
	if err != nil {
		return nil, err
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if !l.cfg.SkipTests {
		if failed := failures(set.Test()); len(failed) > 0 {
			return nil, append(problems, failed...)
		}
	}
	set.warnings = problems
	return set, nil
}

// A loader loads a set once.
type loader struct {
	cfg      Config
	set      *Set
	problems yamlfile.Problems
	at       map[string]string // position of each policy
	watched  []watched
}

func newLoader(cfg Config) *loader {
	if cfg.MaxCost == 0 {
		cfg.MaxCost = DefaultMaxCost
	}
	return &loader{cfg: cfg, set: &Set{policies: map[string]*namedPolicy{}}, at: map[string]string{}}
}

// Compile compiles rule files without reading keys and running tests. The set is complete
// if all problems are warnings. The error is that of reading the files.
func Compile(cfg Config) (*Set, yamlfile.Problems, error) {
	cfg.Offline = true
	return newLoader(cfg).load()
}

// load compiles files. The set is complete if all problems are warnings.
func (l *loader) load() (*Set, yamlfile.Problems, error) {
	files := make([]rawFile, 0, len(l.cfg.Files))
	for _, name := range l.cfg.Files {
		data, err := l.read(name, rulefile.MaxBytes+1)
		if err != nil {
			return nil, nil, fmt.Errorf("read policy: %w", err)
		}
		files = append(files, rawFile{name: name, data: data})
	}
	if !l.cfg.OnlyFiles {
		builtins, err := builtinFiles()
		if err != nil {
			return nil, nil, err
		}
		files = append(files, builtins...)
	}
	for _, f := range files {
		if err := l.compile(f); err != nil {
			return nil, nil, err
		}
	}
	l.set.hash = hashOf(files)
	return l.set, l.problems, nil
}

// read reads a file and keeps the hash of its contents for the reloader.
func (l *loader) read(name string, limit int64) ([]byte, error) {
	data, err := readLimited(l.cfg.FS, name, limit)
	l.watched = append(l.watched, watched{name, limit, sumOf(data, err)})
	return data, err
}

// A rawFile is a rule file before parsing.
type rawFile struct {
	name    string
	data    []byte
	builtin bool
}

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtin returns the built-in rule files. Their policies are default, strict, guest, kiosk,
// bots and limits. To change one, load a changed copy of its file.
func Builtin() fs.FS {
	sub, err := fs.Sub(builtin, "builtin")
	if err != nil {
		panic(err) // the directory is embedded
	}
	return sub
}

func builtinFiles() (files []rawFile, err error) {
	names, err := fs.Glob(builtin, "builtin/*.yaml")
	for _, name := range names {
		data, readErr := builtin.ReadFile(name)
		err = errors.Join(err, readErr)
		files = append(files, rawFile{name: name, data: data, builtin: true})
	}
	return files, err
}

// hashOf returns [Set.Hash] of files.
func hashOf(files []rawFile) string {
	h := sha256.New()
	for _, f := range files {
		sum := sha256.Sum256(f.data)
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// readLimited reads at most limit bytes of a file.
func readLimited(fsys fs.FS, name string, limit int64) ([]byte, error) {
	var f fs.File
	var err error
	if fsys == nil {
		f, err = os.Open(name)
	} else {
		f, err = fsys.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// beside returns a name in a rule file relative to the directory of the file.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// compile adds the policies and the problems of a file.
func (l *loader) compile(f rawFile) error {
	def := rulefile.Read(f.name, f.data, !f.builtin)
	lang, err := cel.New(cel.Config{Networks: def.Networks, Lists: def.Lists, MaxCost: l.cfg.MaxCost})
	if err != nil {
		return err
	}
	c := &compiler{File: def, Language: lang, name: f.name, hooks: map[string]*webhook.Webhook{}, caveats: l.cfg.Caveats}
	for _, name := range slices.Sorted(maps.Keys(def.Webhooks)) {
		c.hooks[name] = l.webhook(def.Webhooks[name], def, f.name)
	}
	for _, d := range def.Policies {
		if first, taken := l.at[d.Name]; taken {
			if !f.builtin {
				def.Errorf(d.At, "policy %s is a duplicate; the first is at %s", d.Name, first)
			}
			continue
		}
		l.at[d.Name] = fmt.Sprintf("%s:%d", f.name, d.At.Line)
		p := c.policy(d)
		p.builtin, p.order = f.builtin, len(l.at)
		l.set.policies[d.Name] = p
	}
	l.problems = append(l.problems, def.Problems()...)
	return nil
}

// webhook returns the client of a webhook and reports mistakes in the files that it names.
func (l *loader) webhook(def *rulefile.Webhook, f *rulefile.File, file string) *webhook.Webhook {
	cfg := def.Config
	cfg.Timeout = cmp.Or(l.cfg.hookTimeout, cfg.Timeout)
	cfg.Offline, cfg.Observe = l.cfg.Offline || f.Failed(), l.cfg.Observe
	if cfg.Offline {
		return webhook.New(cfg)
	}
	key, err := l.read(beside(file, def.SecretFile.Value), webhook.MaxKey+1)
	if err == nil {
		cfg.Key, err = webhook.ParseKey(key)
	}
	if err != nil {
		f.Errorf(def.SecretFile, "read key: %v", err)
	}
	if def.CAFile != nil {
		cfg.Roots = x509.NewCertPool()
		data, err := l.read(beside(file, def.CAFile.Value), maxAuthorities)
		if err == nil && !cfg.Roots.AppendCertsFromPEM(data) {
			err = fmt.Errorf("%s contains no certificate", def.CAFile.Value)
		}
		if err != nil {
			f.Errorf(def.CAFile, "read certificates: %v", err)
		}
	}
	return webhook.New(cfg)
}

// maxAuthorities bounds a ca_file in bytes.
const maxAuthorities = 1 << 20
