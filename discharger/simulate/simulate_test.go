package simulate

import (
	"os"
	"reflect"
	"strconv"
	"testing"
)

// simulateVariable is the environment variable with the number of refreshes of honest
// clients under each kind of rules; thefts of each rhythm are a hundredth of it.
const simulateVariable = "DISCHARGER_TEST_SIMULATE"

func size(t *testing.T) int {
	text := os.Getenv(simulateVariable)
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("%s is %q, want a number of refreshes, at least 1000", simulateVariable, text)
	}
	return n
}

// TestSimulation simulates honest clients and thieves under the rules of this service,
// and tests the promises of deploy/theft.md.
func TestSimulation(t *testing.T) {
	t.Parallel()
	n := size(t)
	for _, rules := range []Rules{Own(), OwnUnreported()} {
		t.Run(rules.Name, func(t *testing.T) {
			t.Parallel()
			row := Run(rules, n, n/100, Usual, 11)
			h := &row.Honest
			t.Logf("%d refreshes of %d sessions; thrown out: %v, by kind %v", h.Refreshes, h.Sessions, h.Out, h.ByKind)
			t.Logf("thefts:\n%s", RhythmTable(row.Thefts))
			if h.Hard > 0 {
				t.Errorf("%d sessions ended hard without a decision", h.Hard)
			}
			if h.Out[Unnamed] > 0 {
				t.Errorf("%d clients lost their session in an unnamed situation", h.Out[Unnamed])
			}
			if most := max(1, h.Refreshes/100_000); h.Wrongful() > most {
				t.Errorf("%d clients lost their session in %d refreshes", h.Wrongful(), h.Refreshes)
			}
			for _, lost := range row.Lost {
				if !lost {
					t.Error("a lost reply ends the session")
				}
			}
			for _, theft := range row.Thefts {
				if theft.OwnerOut*1000 > theft.Sessions { // until the owner logs in again, on the same device
					t.Errorf("%v: %d thieves outlasted the owner", theft.Rhythm, theft.OwnerOut)
				}
				if theft.Hard > 0 {
					t.Errorf("%v: %d thefts ended hard", theft.Rhythm, theft.Hard)
				}
				if theft.Returned < theft.Sessions/20 || theft.Detection() < 0.97 {
					t.Errorf("%v: of %d thieves, %d returned and %d were noticed", theft.Rhythm, theft.Sessions, theft.Returned, theft.Noticed)
				}
			}
		})
	}
}

// TestOthers simulates the rules of other servers, for the table in deploy/theft.md.
func TestOthers(t *testing.T) {
	t.Parallel()
	n := size(t)
	all := append([]Rules{Own(), OwnUnreported()}, Others()...)
	rows := make([]Row, len(all))
	t.Run("rules", func(t *testing.T) {
		for i, rules := range all {
			t.Run(rules.Name, func(t *testing.T) {
				t.Parallel()
				rows[i] = Run(rules, n/2, n/200, Usual, 12)
			})
		}
	})
	t.Logf("\n%s", Table(rows))
	own := &rows[0]
	for i := range rows[2:] {
		r := &rows[2+i]
		if r.Honest.Refreshes == 0 || r.Worst() >= own.Worst() && r.Honest.Wrongful() <= own.Honest.Wrongful() {
			t.Errorf("%s is as good: detection %.3f, thrown out %d", r.Rules.Name, r.Worst(), r.Honest.Wrongful())
		}
	}
}

// TestDeterministic tests that the results depend only on the seed.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	for _, rules := range append([]Rules{Own()}, Others()...) {
		t.Run(rules.Name, func(t *testing.T) {
			t.Parallel()
			play := func(seed uint64) any {
				row := Run(rules, 1000, 10, Usual, seed)
				row.Rules = Rules{}
				return row
			}
			if one, two := play(5), play(5); !reflect.DeepEqual(one, two) {
				t.Errorf("played twice:\n%+v\n%+v", one, two)
			}
			if reflect.DeepEqual(play(5), play(6)) {
				t.Error("another seed makes no difference")
			}
		})
	}
}
