// Package ruleset loads the rules of a configuration: the rule files in force, the
// candidate beside them, the audit log around both, and the caveat schemas that the
// rules are checked against. Files in force are watched, and one that cannot be used
// changes nothing.
package ruleset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

// Rules decide about sessions by one reading of the configuration: the rule files,
// which are watched from [Loader.Begin] on, the candidate beside them, and the audit log
// around both.
type Rules struct {
	Evaluator policy.Evaluator
	live      *watched
	candidate *watched // nil: none
	shadow    *check.Shadow
	stop      context.CancelFunc
}

// watched is a reloader that reports to its observer only while it is in force.
type watched struct {
	*rules.Reloader
	gate *gate
}

// gate drops the reports about a set that is not in force.
type gate struct {
	*server.SetObserver
	open atomic.Bool
}

// Reloaded passes on the report of a set in force.
func (g *gate) Reloaded(hash string, err error) {
	if g.open.Load() {
		g.SetObserver.Reloaded(hash, err)
	}
}

// Loader loads rules. It lives as long as the service.
type Loader struct {
	Metrics *server.PolicyMetrics
	Log     *slog.Logger
	Audits  map[string]*check.Audit // by path; open until the service ends
}

// Load loads the rules that a configuration names; source is the name of its file.
// They are neither in force nor watched before [Loader.Begin].
func (p *Loader) Load(cfg *config.Config, source string) (*Rules, error) {
	caveats, err := Caveats(cfg.Policy.Schema)
	if err != nil {
		return nil, err
	}
	load := rules.Config{Caveats: caveats}
	r := &Rules{stop: func() {}}
	load.Files = cfg.Policy.Files
	_, required := namedPolicies(cfg)
	if r.live, err = watch(load, required, p.Metrics.Live()); err != nil {
		if errors.Is(err, rules.ErrUnknownPolicy) {
			err = explainUnknown(cfg, source, load, err)
		}
		return nil, command.Mark(err, command.ErrConfig)
	}
	r.Evaluator = r.live
	if cfg.Policy.Shadow != "" {
		load.Files = []string{cfg.Policy.Shadow}
		if r.candidate, err = watch(load, nil, p.Metrics.Candidate()); err != nil {
			return nil, command.Mark(err, command.ErrConfig)
		}
		r.shadow, err = check.NewShadow(check.ShadowConfig{Live: r.live, Candidate: r.candidate, Observe: p.Metrics.Live()})
		if err != nil {
			return nil, err
		}
		r.Evaluator = r.shadow
	}
	if path := cfg.Policy.Audit; path != "" {
		audit, err := p.audit(path)
		if err != nil {
			r.End()
			return nil, command.Mark(err, command.ErrConfig)
		}
		r.Evaluator = audit.Evaluator(r.Evaluator)
	}
	return r, nil
}

func watch(load rules.Config, require []string, observe *server.SetObserver) (*watched, error) {
	g := &gate{SetObserver: observe}
	load.Observe = observe
	r, err := rules.NewReloader(rules.ReloaderConfig{Load: load, Require: require, Reloaded: g.Reloaded})
	if err != nil {
		return nil, err
	}
	return &watched{r, g}, nil
}

// audit opens an audit log, or returns it if it is open.
func (p *Loader) audit(path string) (*check.Audit, error) {
	if a, ok := p.Audits[path]; ok {
		return a, nil
	}
	a, err := check.NewAudit(check.AuditConfig{Path: path, Failed: p.Metrics.Live().AuditFailed})
	if err != nil {
		return nil, err
	}
	p.Audits[path] = a
	return a, nil
}

// Reopen opens the audit logs again, after the files were renamed.
func (p *Loader) Reopen() error {
	var errs []error
	for _, a := range p.Audits {
		errs = append(errs, a.Reopen())
	}
	return errors.Join(errs...)
}

// Close flushes and closes the audit logs.
func (p *Loader) Close() error {
	var errs []error
	for _, a := range p.Audits {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}

// Begin puts the rules into force, and watches their files until [Rules.End].
func (p *Loader) Begin(r *Rules) {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	p.Metrics.NoCandidate()
	for _, w := range []*watched{r.live, r.candidate} {
		if w == nil {
			continue
		}
		for _, warning := range w.Current().Warnings() {
			p.Log.Warn("policy file", slog.Any("problem", warning))
		}
		w.gate.open.Store(true)
		w.gate.Reloaded(w.Current().Hash(), nil)
		go w.Run(ctx)
	}
}

// End stops watching and comparing. Requests in progress are still answered.
func (r *Rules) End() {
	for _, w := range []*watched{r.live, r.candidate} {
		if w != nil {
			w.gate.open.Store(false)
		}
	}
	r.stop()
	if r.shadow != nil {
		go r.shadow.Close() // it blocks until comparisons end
	}
}

// Check loads the rules of a configuration and returns the names of the policies.
func Check(cfg *config.Config, source string, now func() time.Time) ([]string, error) {
	log := slog.New(slog.DiscardHandler)
	metrics, err := server.NewPolicyMetrics(prometheus.NewRegistry(), log, now)
	if err != nil {
		return nil, err
	}
	unrecorded := *cfg
	unrecorded.Policy.Audit = "" // opening makes the file
	r, err := (&Loader{Metrics: metrics, Log: log}).Load(&unrecorded, source)
	if err != nil {
		return nil, err
	}
	r.End()
	return r.live.Current().Names(), nil
}

// namedPolicies returns the policies that homeservers and the gateway name, by key of
// the configuration, in its order.
func namedPolicies(cfg *config.Config) (keys, names []string) {
	for i, h := range cfg.Homeservers {
		keys, names = append(keys, fmt.Sprintf("homeservers[%d].policy", i)), append(names, h.Policy)
	}
	if cfg.Gateway != nil {
		keys, names = append(keys, "gateway.policy"), append(names, cfg.Gateway.Policy)
	}
	return keys, names
}

// explainUnknown replaces the error about an unknown policy with one that has the place
// of its name in the configuration, and the existing policies.
func explainUnknown(cfg *config.Config, source string, load rules.Config, err error) error {
	set, loadErr := rules.Load(load)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	problems := UnknownPolicies(cfg, source, set)
	if len(problems) == 0 { // the files changed meanwhile
		return err
	}
	return problems
}

// UnknownPolicies returns a problem for each policy in the configuration that a set
// does not have.
func UnknownPolicies(cfg *config.Config, source string, set *rules.Set) yamlfile.Problems {
	var problems yamlfile.Problems
	keys, names := namedPolicies(cfg)
	for i, name := range names {
		if !set.Has(name) {
			problems = append(problems, &yamlfile.Problem{
				File: source, Path: keys[i],
				Message: fmt.Sprintf("there is no policy %q; there are %s", name, strings.Join(set.Names(), ", ")),
			})
		}
	}
	return problems
}

// knownCaveats has the standard schema and the operator's.
type knownCaveats []*schema.Schema

// CheckCaveat returns the verdict of the first schema that has a caveat by its name.
func (k knownCaveats) CheckCaveat(condition string) error {
	var err error
	for _, s := range k {
		if err = s.CheckCaveat(condition); !errors.Is(err, schema.ErrUnknown) {
			return err
		}
	}
	return err
}

// Caveats returns the checker of the caveats that policies may add: the standard schema,
// and the one at path unless that is empty.
func Caveats(path string) (func(condition string) error, error) {
	std, err := schema.Std()
	if err != nil {
		return nil, err
	}
	if path == "" {
		return knownCaveats{std}.CheckCaveat, nil
	}
	own, err := Schema(path)
	if err != nil {
		return nil, command.Mark(err, command.ErrConfig)
	}
	return knownCaveats{std, own}.CheckCaveat, nil
}

// Schema reads a caveat schema.
func Schema(path string) (*schema.Schema, error) {
	data, err := ReadSchema(path)
	if err != nil {
		return nil, err
	}
	return boulangerie.Load(path, data)
}

// ReadSchema reads the file of a schema, up to one byte beyond the parser's limit.
func ReadSchema(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read caveat schema: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, schema.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read caveat schema: %w", err)
	}
	return data, nil
}
