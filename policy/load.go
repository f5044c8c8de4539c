package policy

import (
	"crypto/sha256"
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
)

// DefaultMaxCost is what one decision may cost unless [LoadConfig] says
// otherwise. It is about a millisecond in the worst case; a rule that
// compares a field or two costs less than ten.
const DefaultMaxCost = 10000

// LoadConfig says what to load. The zero value loads the built-in policies
// alone.
type LoadConfig struct {
	// Files are the rule files, in order. A policy name may come once in all
	// of them. A policy of a built-in's name replaces the built-in one.
	Files []string

	// FS is where Files, and the files they name, are; nil means the
	// operating system's.
	FS fs.FS

	// Caveats knows the caveats that policies may add. nil lets them add
	// any.
	Caveats CaveatChecker

	// MaxCost bounds a decision; 0 means DefaultMaxCost.
	MaxCost uint64

	// OnlyFiles leaves the built-in policies out, so that homeservers can
	// choose none that Files does not have.
	OnlyFiles bool

	// Offline leaves webhooks unprepared: their secrets are not read, and a
	// rule that asks one is undecided. For checking files where they do not
	// run.
	Offline bool

	// SkipTests loads files whose own tests fail or are missing all the
	// same.
	SkipTests bool

	// Now is the clock of webhooks; nil means time.Now.
	Now func() time.Time

	// Observe is told what webhooks do; nil means nobody is.
	Observe Observer

	hookPatience time.Duration // in place of every webhook's timeout; 0 means that
}

// Load reads, compiles and tests rule files, all or nothing. An error about
// what the files say is a [Problems], with places in the files; one about
// reading them is not.
func Load(cfg LoadConfig) (*Set, error) {
	return newLoader(cfg).tested()
}

// tested is load with all problems as an error, and with the files' own tests.
func (l *loader) tested() (*Set, error) {
	set, problems, err := l.load()
	if err != nil {
		return nil, err
	}
	if err := problems.err(); err != nil {
		return nil, err
	}
	if !l.cfg.SkipTests {
		report := set.test()
		if report.Failed() > 0 {
			return nil, append(problems, report.problems()...)
		}
	}
	set.warnings = problems
	return set, nil
}

// A loader makes a set of files.
type loader struct {
	cfg      LoadConfig
	set      *Set
	problems Problems
	at       map[string]string // the place of each policy
	watched  []watched
}

func newLoader(cfg LoadConfig) *loader {
	if cfg.MaxCost == 0 {
		cfg.MaxCost = DefaultMaxCost
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &loader{cfg: cfg, set: &Set{policies: map[string]*rulePolicy{}, caveats: cfg.Caveats}, at: map[string]string{}}
}

// load compiles files. The set is complete only if no problem is more than a
// warning.
func (l *loader) load() (*Set, Problems, error) {
	files := make([]rawFile, 0, len(l.cfg.Files))
	for _, name := range l.cfg.Files {
		data, err := l.read(name, maxFileBytes+1)
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
		if err := l.add(f); err != nil {
			return nil, nil, err
		}
	}
	l.set.hash = hashOf(files)
	return l.set, l.problems, nil
}

// read reads a file, and notes what was in it.
func (l *loader) read(name string, limit int64) ([]byte, error) {
	data, err := readLimited(l.cfg.FS, name, limit)
	l.watched = append(l.watched, watched{name, limit, sumOf(data, err)})
	return data, err
}

// A rawFile is a rule file as text.
type rawFile struct {
	name    string
	data    []byte
	builtin bool
}

// hashOf identifies the text of files.
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
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// beside resolves a name that a rule file mentions, from the file's folder.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// add compiles a file and adds its policies.
func (l *loader) add(f rawFile) error {
	def := &fileDef{src: &source{name: f.name}, untested: f.builtin}
	def.read(f.data)
	if len(def.policies) > 0 {
		if err := l.compile(def, f.builtin); err != nil {
			return err
		}
	}
	l.problems = append(l.problems, def.src.result()...)
	return nil
}

func (l *loader) compile(def *fileDef, builtin bool) error {
	lang, err := newLanguage(def.networks, def.lists)
	if err != nil {
		return err
	}
	hooks := l.hooks(def)
	c := &compiler{source: def.src, language: lang, maxCost: l.cfg.MaxCost, caveats: l.cfg.Caveats}
	for _, d := range def.policies {
		place := fmt.Sprintf("%s:%d", def.src.name, d.at.Line)
		if first, taken := l.at[d.name]; taken {
			if !builtin {
				def.src.errorAt(d.at, "there is a policy %s already, at %s", d.name, first)
			}
			continue
		}
		l.at[d.name] = place
		p := c.policy(d, hooks)
		p.builtin, p.order = builtin, len(l.at)
		l.set.policies[d.name] = p
	}
	return nil
}

// hooks prepares a file's webhooks.
func (l *loader) hooks(def *fileDef) map[string]*webhook {
	hooks := map[string]*webhook{}
	for _, name := range slices.Sorted(maps.Keys(def.webhooks)) {
		hooks[name] = l.webhook(def.webhooks[name], def.src)
	}
	return hooks
}
