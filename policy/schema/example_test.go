package schema_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/discharger/discharger/policy/schema"
)

const file = `
format: 1
id: rooms
context:
  room: {type: string, doc: The room that the request is about.}
versions:
  v1:
    time-before: {type: time, required: true, repeat: true, check: now < value}
    room:        {type: string, style: "key = value", check: value == room}
`

func Example() {
	rooms, err := schema.Load("rooms.yaml", []byte(file))
	if err != nil {
		fmt.Println(err)
		return
	}
	checker, err := schema.New(schema.Config{Schema: rooms})
	if err != nil {
		fmt.Println(err)
		return
	}
	request := schema.Request{
		Now:    time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC),
		IP:     netip.MustParseAddr("203.0.113.7"),
		Values: map[string]any{"room": "!lobby:example.org"},
	}
	// The conditions come from a macaroon whose signature was verified.
	for _, conditions := range [][]string{
		{"time-before 2030-01-02T12:05:00Z", "room = !lobby:example.org"},
		{"time-before 2030-01-02T12:05:00Z", "time-before 2030-01-02T11:00:00Z"},
		{"time-before 2030-01-02T12:05:00Z", "is-admin"},
		{"room = !lobby:example.org"},
	} {
		fmt.Println(checker.Check(context.Background(), conditions, request))
	}
	// Output:
	// <nil>
	// caveat 2 "time-before": does not hold: now < value
	// caveat 2 "is-admin": not in the schema
	// caveat "time-before": required and missing
}

func ExampleCheck() {
	bad := "format: 1\nid: rooms\nversions:\n  v1:\n    room: {type: string, check: value == roon}\n"
	if _, err := schema.Check("rooms.yaml", []byte(bad)).WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// rooms.yaml:5:42: check of caveat "room": undeclared reference to 'roon'
	//     5 |     room: {type: string, check: value == roon}
	//       |                                          ^^^^
}

func ExampleSchema_Parse() {
	std, err := schema.Std()
	if err != nil {
		fmt.Println(err)
		return
	}
	condition, err := std.Parse("client-ip 203.0.113.0/24")
	fmt.Println(condition.Name, condition.Value, err)
	_, err = std.Parse("client-ip here")
	fmt.Println(err)
	fmt.Println(std.Knows("is-admin"))
	// Output:
	// client-ip 203.0.113.0/24 <nil>
	// caveat "client-ip": malformed: value: want an IP address or a CIDR range
	// false
}

// ExampleChecker_Func makes a function for verifiers of single conditions, which finds
// the request in the context.
func ExampleChecker_Func() {
	type requestKey struct{}
	std, err := schema.Std()
	if err != nil {
		fmt.Println(err)
		return
	}
	checker, err := schema.New(schema.Config{Schema: std})
	if err != nil {
		fmt.Println(err)
		return
	}
	check := checker.Func(func(ctx context.Context) (schema.Request, error) {
		r, ok := ctx.Value(requestKey{}).(schema.Request)
		if !ok {
			return schema.Request{}, errors.New("no request")
		}
		return r, nil
	})
	ctx := context.WithValue(context.Background(), requestKey{}, schema.Request{IP: netip.MustParseAddr("203.0.113.7")})
	fmt.Println(check(ctx, "client-ip 203.0.113.0/24"))
	fmt.Println(errors.Is(check(context.Background(), "client-ip 203.0.113.0/24"), schema.ErrUndecided))
	// Output:
	// <nil>
	// true
}
