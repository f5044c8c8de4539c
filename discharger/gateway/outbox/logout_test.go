package outbox

import (
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
)

func TestLastSeen(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_790_000_000_000)
	for _, c := range []struct {
		body string
		want time.Time
	}{
		{`{}`, time.Time{}},
		{`{"last_seen_ts":null}`, time.Time{}},
		{`{"last_seen_ts":0}`, time.UnixMilli(0)},
		{`{"last_seen_ts":1789999999999}`, now.Add(-time.Millisecond)},
		{`{"last_seen_ts":1789999999999.5}`, now},
		{`{"last_seen_ts":9789999999999}`, now},
		{`{"last_seen_ts":99999999999999999999}`, now},
		{`{"last_seen_ts":"1"}`, now},
		{`{"last_seen_ts":[]}`, now},
	} {
		t.Run(c.body, func(t *testing.T) {
			body, err := jsonbody.Parse([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if got := lastSeen(body, now); !got.Equal(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
