package policy_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/policy"
)

func TestNarrow(t *testing.T) {
	t.Parallel()
	grant := policy.Grant{TTL: 5 * time.Minute, MaxTTL: time.Hour}
	refused := policy.Grant{Revokes: true}
	full := policy.Decision{Effect: policy.EffectAllow, TTL: 9 * time.Hour, Caveats: []string{"a b"}, KeepSessions: 3,
		Labels: map[string]string{"a": "b"}, SoftLogout: true, RetryAfter: time.Second, Code: "c", Message: "m"}
	with := func(change func(*policy.Decision)) policy.Decision {
		d := full
		change(&d)
		return d
	}
	tests := []struct {
		name  string
		d     policy.Decision
		grant policy.Grant
		want  policy.Decision
	}{
		{"a long ttl is cut", full, grant, with(func(d *policy.Decision) { d.TTL, d.SoftLogout, d.RetryAfter = time.Hour, false, 0 })},
		{"a refusal stays a refusal", full, refused, policy.Decision{Effect: policy.EffectAllow, Code: "c", Message: "m"}},
		{"a deny has no ttl, caveats or labels", with(func(d *policy.Decision) { d.Effect = policy.EffectDeny }), grant,
			policy.Decision{Effect: policy.EffectDeny, Code: "c", Message: "m", SoftLogout: true}},
		{"reauth is soft", policy.Decision{Effect: policy.EffectReauth}, grant, policy.Decision{Effect: policy.EffectReauth, SoftLogout: true}},
		{"a long retry_after is cut", policy.Decision{Effect: policy.EffectDefer, RetryAfter: 9000 * time.Hour}, grant,
			policy.Decision{Effect: policy.EffectDefer, RetryAfter: 24 * time.Hour}},
		{"no max_ttl", policy.Decision{Effect: policy.EffectAllow, TTL: time.Hour}, policy.Grant{TTL: time.Minute},
			policy.Decision{Effect: policy.EffectAllow, TTL: time.Minute}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := test.d.Narrow(test.grant); err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
	for _, bad := range []policy.Decision{
		{},
		{Effect: "ALLOW"},
		{Effect: policy.EffectAllow, TTL: -1},
		{Effect: policy.EffectAllow, KeepSessions: -1},
		{Effect: policy.EffectDefer, RetryAfter: -1},
		{Effect: policy.EffectDeny, Code: "A"},
		{Effect: policy.EffectDeny, Code: strings.Repeat("a", 65)},
		{Effect: policy.EffectDeny, Message: "a\x1b[2J"},
		{Effect: policy.EffectDeny, Message: strings.Repeat("a", 257)},
		{Effect: policy.EffectAllow, Caveats: []string{""}},
		{Effect: policy.EffectAllow, Caveats: []string{" a"}},
		{Effect: policy.EffectAllow, Caveats: []string{"a\nb"}},
		{Effect: policy.EffectAllow, Caveats: []string{"a\xff"}},
		{Effect: policy.EffectAllow, Caveats: []string{strings.Repeat("a", 513)}},
		{Effect: policy.EffectAllow, Caveats: make([]string, 17)},
		{Effect: policy.EffectAllow, Labels: map[string]string{"": "x"}},
		{Effect: policy.EffectAllow, Labels: map[string]string{"x": "a\nb"}},
		{Effect: policy.EffectAllow, Labels: map[string]string{strings.Repeat("a", 65): "x"}},
		{Effect: policy.EffectAllow, Labels: map[string]string{"x": strings.Repeat("a", 257)}},
	} {
		t.Run(fmt.Sprintf("invalid/%.60v", bad), func(t *testing.T) {
			if d, err := bad.Narrow(grant); err == nil {
				t.Errorf("%+v narrowed to %+v", bad, d)
			}
		})
	}
}
