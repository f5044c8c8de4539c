package main

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

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

// rules are what decides about sessions, from one reading of the configuration:
// the rule files, which are watched from [rules.begin] on, the candidate beside
// them, and the audit log around both.
type rules struct {
	evaluator policy.Evaluator
	live      *watched
	candidate *watched // nil: none
	shadow    *policy.Shadow
	stop      context.CancelFunc
}

// watched is a reloader whose observer hears of it only while it is in force.
type watched struct {
	*policy.Reloader
	gate *gate
}

// gate keeps quiet about a set that may never come into force.
type gate struct {
	policy.Observer
	open atomic.Bool
}

// Reloaded passes on what a set in force reports.
func (g *gate) Reloaded(hash string, err error) {
	if g.open.Load() {
		g.Observer.Reloaded(hash, err)
	}
}

// ruleParts are what rules are made with, the same for the life of the service.
type ruleParts struct {
	metrics *server.PolicyMetrics
	log     *slog.Logger
	now     func() time.Time
	audits  map[string]*policy.Audit // by path; open until the service ends
}

// make loads what the configuration names, or says what is wrong with it.
// source is the name of the configuration's file. Nothing is in force or
// watched before begin.
func (p *ruleParts) make(cfg *config.Config, source string) (*rules, error) {
	caveats, err := loadCaveats(cfg.Policy.Schema)
	if err != nil {
		return nil, err
	}
	load := policy.LoadConfig{Caveats: caveats, Now: p.now}
	r := &rules{stop: func() {}}
	load.Files = cfg.Policy.Files
	if r.live, err = watch(load, namedPolicies(cfg), p.metrics.Live()); err != nil {
		if errors.Is(err, policy.ErrUnknownPolicy) {
			err = explainUnknown(cfg, source, load, err)
		}
		return nil, mark(err, errConfig)
	}
	r.evaluator = r.live
	if cfg.Policy.Shadow != "" {
		load.Files = []string{cfg.Policy.Shadow}
		if r.candidate, err = watch(load, nil, p.metrics.Candidate()); err != nil {
			return nil, mark(err, errConfig)
		}
		r.shadow, err = policy.NewShadow(policy.ShadowConfig{Live: r.live, Candidate: r.candidate, Observe: p.metrics.Live()})
		if err != nil {
			return nil, err
		}
		r.evaluator = r.shadow
	}
	if path := cfg.Policy.Audit; path != "" {
		audit, err := p.audit(path)
		if err != nil {
			r.end()
			return nil, mark(err, errConfig)
		}
		r.evaluator = audit.Evaluator(r.evaluator)
	}
	return r, nil
}

func watch(load policy.LoadConfig, require []string, observe policy.Observer) (*watched, error) {
	g := &gate{Observer: observe}
	r, err := policy.NewReloader(policy.ReloaderConfig{Load: load, Require: require, Observe: g})
	if err != nil {
		return nil, err
	}
	return &watched{r, g}, nil
}

// audit opens an audit log, or returns it if it is open.
func (p *ruleParts) audit(path string) (*policy.Audit, error) {
	if a, ok := p.audits[path]; ok {
		return a, nil
	}
	a, err := policy.NewAudit(policy.AuditConfig{Path: path, Now: p.now, Observe: p.metrics.Live()})
	if err != nil {
		return nil, err
	}
	p.audits[path] = a
	return a, nil
}

// reopen opens the audit logs anew, for whoever has renamed the files.
func (p *ruleParts) reopen() error {
	var errs []error
	for _, a := range p.audits {
		errs = append(errs, a.Reopen())
	}
	return errors.Join(errs...)
}

// close writes what the audit logs still hold.
func (p *ruleParts) close() error {
	var errs []error
	for _, a := range p.audits {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}

// begin says that the rules are in force, and watches their files until end.
func (p *ruleParts) begin(r *rules) {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	p.metrics.NoCandidate()
	for _, w := range []*watched{r.live, r.candidate} {
		if w == nil {
			continue
		}
		for _, warning := range w.Current().Warnings() {
			p.log.Warn("policy file", slog.Any("problem", warning))
		}
		w.gate.open.Store(true)
		w.gate.Reloaded(w.Current().Hash(), nil)
		go w.Run(ctx)
	}
}

// end stops watching and comparing. Requests under way are still answered.
func (r *rules) end() {
	for _, w := range []*watched{r.live, r.candidate} {
		if w != nil {
			w.gate.open.Store(false)
		}
	}
	r.stop()
	if r.shadow != nil {
		go r.shadow.Close() // waits for comparisons, which nobody else should
	}
}

// checkRules loads the rules of a configuration to see whether they can be
// used, and returns the names of the policies.
func checkRules(cfg *config.Config, source string, now func() time.Time) ([]string, error) {
	log := slog.New(slog.DiscardHandler)
	metrics, err := server.NewPolicyMetrics(prometheus.NewRegistry(), log, now)
	if err != nil {
		return nil, err
	}
	unrecorded := *cfg
	unrecorded.Policy.Audit = "" // opening it would make it
	r, err := (&ruleParts{metrics: metrics, log: log, now: now}).make(&unrecorded, source)
	if err != nil {
		return nil, err
	}
	r.end()
	return r.live.Current().Names(), nil
}

// namedPolicies are the policies that homeservers and the gateway are configured
// with.
func namedPolicies(cfg *config.Config) []string {
	var names []string
	for _, h := range cfg.Homeservers {
		if h.Policy != "" {
			names = append(names, h.Policy)
		}
	}
	if g := cfg.Gateway; g != nil && g.Policy != "" {
		names = append(names, g.Policy)
	}
	return names
}

// explainUnknown says which homeserver names a policy that does not exist, and
// which do.
func explainUnknown(cfg *config.Config, source string, load policy.LoadConfig, err error) error {
	set, loadErr := policy.Load(load)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	problems := unknownPolicies(cfg, source, set)
	if len(problems) == 0 { // the files have just changed
		return err
	}
	return problems
}

// unknownPolicies says which homeservers name a policy that a set does not have.
func unknownPolicies(cfg *config.Config, source string, set *policy.Set) yamlfile.Problems {
	var problems yamlfile.Problems
	check := func(key, name string) {
		if !set.Has(name) {
			problems = append(problems, &yamlfile.Problem{
				File: source, Path: key,
				Message: fmt.Sprintf("there is no policy %q; there are %s", name, strings.Join(set.Names(), ", ")),
			})
		}
	}
	for i, h := range cfg.Homeservers {
		check(fmt.Sprintf("homeservers[%d].policy", i), h.Policy)
	}
	if cfg.Gateway != nil {
		check("gateway.policy", cfg.Gateway.Policy)
	}
	return problems
}

// knownCaveats are those of the standard schema and of the operator's.
type knownCaveats []*schema.Schema

// KnowsCaveat asks each schema. What one knows by name, it decides about.
func (k knownCaveats) KnowsCaveat(condition string) error {
	var err error
	for _, s := range k {
		if err = s.KnowsCaveat(condition); !errors.Is(err, schema.ErrUnknown) {
			return err
		}
	}
	return err
}

// loadCaveats reads the schema of what policies may add; path may be empty.
func loadCaveats(path string) (policy.CaveatChecker, error) {
	std, err := schema.Std()
	if err != nil {
		return nil, err
	}
	if path == "" {
		return knownCaveats{std}, nil
	}
	own, err := loadSchema(path)
	if err != nil {
		return nil, mark(err, errConfig)
	}
	return knownCaveats{std, own}, nil
}

// loadSchema reads a caveat schema.
func loadSchema(path string) (*schema.Schema, error) {
	data, err := readSchema(path)
	if err != nil {
		return nil, err
	}
	return boulangerie.Load(path, data)
}

// readSchema reads a schema's file. One that is too long is left to the parser
// to complain about.
func readSchema(path string) ([]byte, error) {
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
