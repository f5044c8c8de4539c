package policy_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/discharger/discharger/policy"
)

// TestJSON decodes an encoded input.
func TestJSON(t *testing.T) {
	t.Parallel()
	in := policy.SampleInput()
	in.Session.Labels["a"] = "b"
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var back policy.Input
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", *in) {
		t.Errorf("got  %+v\nwant %+v", back, *in)
	}
	for _, bad := range []string{`{"grant":{"ttl":5}}`, `{"grant":{"ttl":"5"}}`, `{"grant":{"ttl":"x"}}`, `{"grant":{"ttl":"1d1d"}}`} {
		t.Run(bad, func(t *testing.T) {
			if json.Unmarshal([]byte(bad), new(policy.Input)) == nil {
				t.Error("invalid duration accepted")
			}
		})
	}
	var d policy.Decision
	if err := json.Unmarshal([]byte(`{"effect":"defer","retry_after":"1d2h"}`), &d); err != nil || d.RetryAfter.Hours() != 26 {
		t.Errorf("%+v, %v", d, err)
	}
}
